// Package blob keeps the files of documents: in a folder, in S3 and what speaks its language (Google and Alibaba Cloud
// among them), or in Azure.
//
// What is kept is private, and handed out by addresses that are signed and live for minutes. A file's type is that of its
// content, whichever accepted extension its name has; what a browser would run (HTML, SVG) is never accepted. The client's file name
// is in no key: see Key and Name.
package blob

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"barong/internal/fault"
	"barong/internal/patience"

	"github.com/gabriel-vasile/mimetype"
)

// Providers.
const (
	Local    = "local"
	AWS      = "aws"
	Google   = "google"
	AliCloud = "alicloud"
	Azure    = "azure"
)

// ErrNotFound says that there is no such file.
var ErrNotFound = errors.New("blob: not found")

// Options are what Open needs.
type Options struct {
	Provider string // in any case

	Folder string   // Local: where files lie; made if it is absent
	Key    []byte   // Local: signs addresses; at least 32 bytes
	Also   [][]byte // Local: other keys whose addresses are good
	Path   string   // Local: where clients find the files, with a slash at both ends; the key follows

	// Cloud providers. Google and AliCloud are reached by their S3 interfaces, so their keys are those of that interface
	// (HMAC keys at Google). With AWS, empty keys mean those of the environment or the machine. Azure takes the name of
	// the storage account, its key, and the container.
	Bucket, AccessKey, SecretKey string
	// Endpoint replaces the provider's address. AliCloud without one is found by its region.
	Endpoint, Region string
	PathStyle        bool // the bucket in the path instead of the host name

	Extensions       []string // accepted, without a dot
	MinSize, MaxSize int64    // bytes, both accepted
	URLLife          time.Duration

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// A Store keeps files. Safe for concurrent use; Close it.
type Store struct {
	o      Options
	bucket bucket
	keys   atomic.Pointer[[][]byte] // that sign addresses: the first, and others that have
}

// A bucket keeps files by their keys. ErrNotFound is how each of them says that there is no such file.
type bucket interface {
	// put stores a file whole or not at all.
	put(ctx context.Context, key, contentType string, content Content) error
	get(ctx context.Context, key string) (size int64, content io.ReadCloser, err error)
	stat(ctx context.Context, key string) error
	remove(ctx context.Context, key string) error
	close()
}

// Headers that a file is handed out with by a store that this process does not serve.
const (
	disposition  = "attachment"
	cacheControl = "private, no-store"
)

// Content is what is to be stored: of a size that is known, and to be read more than once. A *bytes.Reader and an
// *io.SectionReader are such.
type Content interface {
	io.ReaderAt
	Size() int64
}

// A File is what was stored.
type File struct {
	Key         string // <document id>/<random>.<extension>
	ContentType string
	Size        int64
}

// Open opens a store. It contacts nobody: with AWS and empty keys, the machine is asked for its own at the first need.
func Open(o Options) (*Store, error) {
	o.Provider = strings.ToLower(o.Provider)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Extensions = slices.Clone(o.Extensions)
	for i, e := range o.Extensions {
		e = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(e), "."))
		if !plainExtension.MatchString(e) || slices.Contains(active, e) {
			return nil, fmt.Errorf("files: the extension %q cannot be accepted", e)
		}
		o.Extensions[i] = e
	}
	if o.MaxSize <= 0 || o.MinSize > o.MaxSize || o.URLLife <= 0 {
		return nil, errors.New("files: sizes or the life of addresses make no sense")
	}
	s := &Store{o: o}
	s.SignWith(append([][]byte{o.Key}, o.Also...))
	var err error
	switch o.Provider {
	case Local:
		s.bucket, err = openFolder(o)
	case AWS, Google, AliCloud:
		s.bucket, err = openS3(o)
	case Azure:
		s.bucket, err = openAzure(o)
	default:
		err = fmt.Errorf("no provider %q", o.Provider)
	}
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	return s, nil
}

// SignWith has addresses of local files signed with the first of some keys; those that any of them has signed are good.
func (s *Store) SignWith(keys [][]byte) { s.keys.Store(&keys) }

// Close lets go of the store's connections.
func (s *Store) Close() error {
	s.bucket.close()
	return nil
}

// Local reports whether this process itself serves the files.
func (s *Store) Local() bool { return s.o.Provider == Local }

// Codes of a file that is refused, beside the original's sentences.
const (
	blank        fault.Code = "upload.blank"
	wrongContent fault.Code = "upload.invalid_extension"
)

// HeadSize is how much of a file its type is judged by, in bytes.
const HeadSize = 3072

// Inspect judges a file by its client's name, its size and its beginning (3,072 bytes, or all of it), before anything is
// stored. It returns the type, or the codes of a refusal.
func (s *Store) Inspect(name string, size int64, head []byte) (contentType string, codes []fault.Code) {
	contentType, _, codes = s.inspect(name, size, head)
	return contentType, codes
}

// inspect is Inspect that also returns the extension to keep the file under: that of its content, in the client's spelling
// where that says the same.
func (s *Store) inspect(name string, size int64, head []byte) (contentType, kept string, codes []fault.Code) {
	extension := extensionOf(name)
	if !slices.Contains(s.o.Extensions, extension) {
		return "", "", []fault.Code{fault.Code(fmt.Sprintf("upload.You are not allowed to upload %q files, allowed types: %s",
			extension, strings.Join(s.o.Extensions, ", "))), blank}
	}
	switch {
	case size < s.o.MinSize:
		return "", "", s.tooSmall()
	case size > s.o.MaxSize:
		return "", "", s.tooLarge()
	}
	contentType, detected := typeOf(head)
	for _, e := range append([]string{extension}, s.o.Extensions...) {
		if canonical(e) == detected {
			return contentType, e, nil
		}
	}
	return "", "", []fault.Code{wrongContent, blank}
}

func (s *Store) tooSmall() []fault.Code {
	return []fault.Code{fault.Code("upload.File size should be greater than " + humanSize(s.o.MinSize)), blank}
}

func (s *Store) tooLarge() []fault.Code {
	return []fault.Code{fault.Code("upload.File size should be less than " + humanSize(s.o.MaxSize)), blank}
}

// Put stores a file of a document. The error is the fault of a refusal (see Inspect), or 422 "Connection error" when the
// store cannot be reached; nothing is stored then. The content is not read any more when Put has returned.
func (s *Store) Put(ctx context.Context, documentID int64, name string, content Content) (File, error) {
	defer patience.Outside(ctx)()
	if documentID <= 0 {
		return File{}, fmt.Errorf("store file: document %d", documentID)
	}
	head := make([]byte, min(HeadSize, content.Size()))
	if _, err := content.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return File{}, fmt.Errorf("read upload: %w", err)
	}
	contentType, extension, codes := s.inspect(name, content.Size(), head)
	if codes != nil {
		return File{}, fault.Invalid(codes...)
	}
	random := make([]byte, 16)
	rand.Read(random)
	f := File{Key: fmt.Sprintf("%d/%x.%s", documentID, random, extension), ContentType: contentType, Size: content.Size()}
	upload := &upload{Content: content}
	err := s.bucket.put(ctx, f.Key, contentType, upload)
	switch {
	case upload.err != nil:
		return File{}, fmt.Errorf("read upload: %w", upload.err)
	case err != nil:
		return File{}, unreachable(err)
	}
	return f, nil
}

// An upload is content that keeps the error of reading it: the client is to blame for that, and not the store.
type upload struct {
	Content
	err error
}

func (u *upload) ReadAt(p []byte, off int64) (int, error) {
	n, err := u.Content.ReadAt(p, off)
	if err == io.EOF && off+int64(n) < u.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		u.err = err
	}
	return n, err
}

func unreachable(err error) error {
	return fault.Plain(http.StatusUnprocessableEntity, "Connection error").Because(err)
}

// Delete removes a file. That there is none is no error.
func (s *Store) Delete(ctx context.Context, key string) error {
	defer patience.Outside(ctx)()
	if !isKey(key) {
		return ErrNotFound
	}
	if err := s.bucket.remove(ctx, key); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete file: %w", err)
	}
	return nil
}

// Open reads a file back. Close the reader. ErrNotFound says that there is none.
func (s *Store) Open(ctx context.Context, key string) (File, io.ReadCloser, error) {
	if !isKey(key) {
		return File{}, nil, ErrNotFound
	}
	size, content, err := s.bucket.get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return File{}, nil, ErrNotFound
	}
	if err != nil {
		return File{}, nil, fmt.Errorf("open file: %w", err)
	}
	return File{Key: key, ContentType: contentTypes(extensionOf(key)), Size: size}, content, nil
}

// Exists reports whether there is such a file.
func (s *Store) Exists(ctx context.Context, key string) (bool, error) {
	if !isKey(key) {
		return false, nil
	}
	err := s.bucket.stat(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// URL is an address that hands the file out until its life is over: the provider's own, or a path below Options.Path that
// Verify checks. It is empty for a key that is none.
func (s *Store) URL(key string) string {
	if !isKey(key) {
		return ""
	}
	cloud, ok := s.bucket.(*remote)
	if !ok {
		expires := s.o.Now().Add(s.o.URLLife).Unix()
		return fmt.Sprintf("%s%s?expires=%d&signature=%s", s.o.Path, (&url.URL{Path: key}).EscapedPath(), expires, sign((*s.keys.Load())[0], key, expires))
	}
	address, err := cloud.presign(context.Background(), key, s.o.URLLife)
	if err != nil { // the machine has no keys
		s.o.Log.Error("a file's address cannot be signed", "error", err)
		return ""
	}
	return address
}

// Verify reports whether this address of a local file was signed here and is still alive. Cloud stores verify their own.
func (s *Store) Verify(key, expires, signature string) bool {
	until, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || !s.Local() || !isKey(key) {
		return false
	}
	good := false
	for _, with := range *s.keys.Load() {
		good = hmac.Equal([]byte(signature), []byte(sign(with, key, until))) || good
	}
	return good && s.o.Now().Unix() < until
}

func sign(with []byte, key string, expires int64) string {
	mac := hmac.New(sha256.New, with)
	fmt.Fprintf(mac, "GET /api/v2/files/%s\n%d", key, expires) // wherever it is published
	return hex.EncodeToString(mac.Sum(nil))
}

var (
	// A key of this program, or one that the original gave to a file that was uploaded there.
	validKey       = regexp.MustCompile(`^(?:[1-9][0-9]{0,18}/[0-9a-f]{32}\.[a-z0-9]{1,10}|uploads/document/upload/[1-9][0-9]{0,18}/[\pL\pM\p{Nd}_.+-]{1,255})$`)
	plainExtension = regexp.MustCompile(`^[a-z0-9]{1,10}$`)
)

// active are the extensions of what a browser runs or a program opens as more than a picture of paper.
var active = []string{
	"svg", "svgz", "html", "htm", "xhtml", "shtml", "xml", "xsl", "xslt", "js", "mjs", "css", "swf", "php", "exe",
}

// activeTypes are the same by content.
var activeTypes = []string{
	"image/svg+xml", "text/html", "application/xhtml+xml", "text/xml", "text/javascript", "text/x-php",
	"application/x-shockwave-flash", "application/vnd.microsoft.portable-executable", "application/x-elf",
}

// alike maps the extensions that stand for one type to the one that the detector names.
var alike = map[string]string{"jpeg": "jpg", "jpe": "jpg", "tif": "tiff", "heif": "heic"}

// canonical is the extension by which the detector names the type that an extension stands for.
func canonical(extension string) string {
	if other, ok := alike[extension]; ok {
		return other
	}
	return extension
}

// typeOf judges a file's beginning: its type and the canonical extension of it, empty for what a browser would run.
func typeOf(head []byte) (contentType, extension string) {
	detected := mimetype.Detect(head)
	if slices.ContainsFunc(activeTypes, detected.Is) {
		return "", ""
	}
	contentType, _, _ = strings.Cut(detected.String(), ";")
	return contentType, canonical(strings.TrimPrefix(detected.Extension(), "."))
}

// ImportedFolder begins the keys of files that the original stored.
const ImportedFolder = "uploads/document/upload/"

// ImportedKey is the key of a file that the original stored for a document, or empty for a name that it gives none. The
// name is the one in the document's row: the client's, with all but word characters, ".", "-" and "+" replaced.
func ImportedKey(documentID int64, name string) string {
	key := fmt.Sprintf("%s%d/%s", ImportedFolder, documentID, name)
	if !isKey(key) {
		return ""
	}
	return key
}

// isKey reports whether a file may have that key.
func isKey(key string) bool {
	return validKey.MatchString(key) && path.Clean(key) == key
}

// TypeOfName is the type that a file name's extension stands for.
func TypeOfName(name string) string { return contentTypes(extensionOf(name)) }

// contentTypes is the type that a stored file's extension stands for.
func contentTypes(extension string) string {
	switch extension {
	case "jpg", "jpeg", "jpe":
		return "image/jpeg"
	case "png", "gif", "webp", "tiff", "bmp", "heic":
		return "image/" + extension
	case "pdf":
		return "application/pdf"
	}
	return "application/octet-stream"
}

func extensionOf(name string) string {
	return strings.ToLower(strings.TrimPrefix(path.Ext(strings.ReplaceAll(name, `\`, "/")), "."))
}

// Name makes a client's file name fit to be shown: without folders, every character but letters, digits, "_", ".", "-"
// and "+" replaced, at most 255 bytes.
func Name(client string) string {
	name := path.Base(strings.ReplaceAll(client, `\`, "/"))
	if name == "/" || client == "" {
		name = ""
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || strings.ContainsRune("_.-+", r) {
			return r
		}
		return '_'
	}, strings.ToValidUTF8(name, "_"))
	if name == "" {
		return "unnamed"
	}
	if strings.Trim(name, ".") == "" {
		name = "_" + name
	}
	if len(name) > 255 { // keep the end, where the extension is
		name = strings.ToValidUTF8(name[len(name)-255:], "")
	}
	return name
}

// humanSize writes a size as the original's messages do: "1 Byte", "10 MB", "1.5 KB".
func humanSize(n int64) string {
	if n == 1 {
		return "1 Byte"
	}
	if n < 1024 {
		return fmt.Sprintf("%d Bytes", n)
	}
	value, unit := float64(n), ""
	for _, u := range []string{"KB", "MB", "GB", "TB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, u
	}
	digits := 2
	for limit := 10.0; digits > 0 && value >= limit; limit *= 10 {
		digits-- // three significant ones
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + " " + unit
}

// ValidateEndpoint says what is wrong with the address of a store. The error has nothing of it.
func ValidateEndpoint(address string) error {
	_, err := endpoint(address)
	return err
}

// endpoint reads an address of a provider's; "example.com" is https.
func endpoint(address string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("no address of a store: https://host, without a user, a password or options")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

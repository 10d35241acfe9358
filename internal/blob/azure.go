package blob

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// azureVersion is the version of the interface, and with it the form of what is signed.
const azureVersion = "2021-12-02"

// azure is the language of Azure's blob storage, signed by the key of the storage account.
type azure struct {
	account, container string
	key                []byte
	base               url.URL // of the account
	now                func() time.Time
}

// openAzure opens a container of a storage account.
func openAzure(o Options) (*remote, error) {
	if o.AccessKey == "" || o.SecretKey == "" || o.Bucket == "" {
		return nil, errors.New("azure needs the storage account as access key, its key as secret key, and a container as bucket")
	}
	address := o.Endpoint
	if address == "" {
		address = "https://" + o.AccessKey + ".blob.core.windows.net"
	}
	u, err := endpoint(address)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(o.SecretKey)
	if err != nil {
		return nil, errors.New("the secret key of azure is not base64") // the cause may show the key
	}
	return newRemote(&azure{account: o.AccessKey, container: o.Bucket, key: key, base: *u, now: o.Now}), nil
}

func (a *azure) address(key string) *url.URL {
	u := a.base
	u.RawPath = u.EscapedPath() + "/" + url.PathEscape(a.container) + "/" + url.PathEscape(key)
	u.Path += "/" + a.container + "/" + key
	return &u
}

func (a *azure) describe(h http.Header, contentType string) {
	h.Set("X-Ms-Blob-Type", "BlockBlob")
	h.Set("X-Ms-Blob-Content-Type", contentType)
	h.Set("X-Ms-Blob-Content-Disposition", disposition)
	h.Set("X-Ms-Blob-Cache-Control", cacheControl)
}

func (a *azure) sign(r *http.Request, _ Content) error {
	r.Header.Set("X-Ms-Version", azureVersion)
	r.Header.Set("X-Ms-Date", a.now().UTC().Format(http.TimeFormat))
	r.Header.Set("Authorization", "SharedKey "+a.account+":"+a.mac(a.stringToSign(r)))
	return nil
}

// stringToSign is what the signature of a request covers: the method, eleven standard headers, of which an absent one and a
// length of zero leave their lines empty, the headers of Azure by name, and the address as it is sent, after the name of the
// account. The date stands in X-Ms-Date. The names above sort alike by Azure's order and by that of their bytes.
func (a *azure) stringToSign(r *http.Request) string {
	length := ""
	if r.ContentLength > 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	lines := []string{
		r.Method, r.Header.Get("Content-Encoding"), r.Header.Get("Content-Language"), length, r.Header.Get("Content-Md5"),
		r.Header.Get("Content-Type"), "", r.Header.Get("If-Modified-Since"), r.Header.Get("If-Match"),
		r.Header.Get("If-None-Match"), r.Header.Get("If-Unmodified-Since"), r.Header.Get("Range"),
	}
	own := map[string]string{}
	for name, values := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-ms-") {
			own[name] = strings.Join(values, ",")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		lines = append(lines, name+":"+own[name])
	}
	return strings.Join(append(lines, "/"+a.account+r.URL.EscapedPath()), "\n")
}

// presign makes a service shared access signature that allows to read one blob. It names no beginning, for clocks differ.
func (a *azure) presign(_ context.Context, key string, life time.Duration) (string, error) {
	const allowed, resource = "r", "b"
	until := a.now().Add(life).UTC().Format(time.RFC3339)
	signature := a.mac(strings.Join([]string{
		allowed, "", until, fmt.Sprintf("/blob/%s/%s/%s", a.account, a.container, key),
		"", "", "", azureVersion, resource, "", "", // no policy, no addresses, any protocol; no snapshot, no encryption scope
		"", "", "", "", "", // no headers of the answer are replaced
	}, "\n"))
	u := a.address(key)
	u.RawQuery = url.Values{"sv": {azureVersion}, "sr": {resource}, "sp": {allowed}, "se": {until}, "sig": {signature}}.Encode()
	return u.String(), nil
}

func (a *azure) mac(text string) string {
	h := hmac.New(sha256.New, a.key)
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

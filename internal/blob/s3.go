package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
	"github.com/minio/minio-go/v7/pkg/signer"
)

// keysTimeout bounds each question for keys to the machine, which is next to the process, or to Amazon.
const keysTimeout = 5 * time.Second

// s3 is the language of S3, signed by version 4.
type s3 struct {
	base   url.URL // of the bucket
	region string
	keys   *credentials.Credentials
	client *http.Client // asks the machine for keys
}

// inHostName is a bucket whose name can be a part of a host name that one certificate covers.
var inHostName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// openS3 opens a bucket of S3 or of what speaks its language.
func openS3(o Options) (*remote, error) {
	address, region, pathStyle := o.Endpoint, o.Region, o.PathStyle
	switch o.Provider {
	case Google:
		if address == "" {
			address, pathStyle = "https://storage.googleapis.com", true
		}
		if region == "" {
			region = "auto"
		}
	case AliCloud:
		region = strings.TrimPrefix(region, "oss-")
		if address == "" {
			if region == "" {
				return nil, errors.New("alicloud needs a region or an endpoint")
			}
			address = "https://oss-" + region + ".aliyuncs.com"
		}
	}
	if region == "" {
		region = "us-east-1"
	}
	if address == "" {
		address = "https://s3." + region + "." + amazonDomain(region)
	}
	u, err := endpoint(address)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Bucket == "":
		return nil, fmt.Errorf("%s needs a bucket", o.Provider)
	case strings.ContainsAny(o.Bucket, "/:?#%") || strings.HasSuffix(o.Bucket, "--x-s3"):
		return nil, fmt.Errorf("the bucket %q is not the name of a general purpose bucket, nor an alias of an access point", o.Bucket)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil || !inHostName.MatchString(o.Bucket) {
		pathStyle = true
	}
	if pathStyle {
		u.Path += "/" + o.Bucket
	} else {
		u.Host = o.Bucket + "." + u.Host
	}
	s := &s3{base: *u, region: region, client: &http.Client{Timeout: keysTimeout}}
	switch {
	case o.AccessKey != "" && o.SecretKey != "":
		s.keys = credentials.NewStaticV4(o.AccessKey, o.SecretKey, "")
	case o.Provider == AWS && o.AccessKey == "" && o.SecretKey == "":
		s.keys = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Region: region},
		})
	default:
		return nil, fmt.Errorf("%s needs an access key and a secret key", o.Provider)
	}
	return newRemote(s), nil
}

// amazonDomain is the domain of the services of a region: Amazon keeps some parts of the world apart.
func amazonDomain(region string) string {
	for prefix, domain := range map[string]string{
		"cn-": "amazonaws.com.cn", "eusc-": "amazonaws.eu", "us-iso-": "c2s.ic.gov", "us-isob-": "sc2s.sgov.gov",
		"eu-isoe-": "cloud.adc-e.uk", "us-isof-": "csp.hci.ic.gov",
	} {
		if strings.HasPrefix(region, prefix) {
			return domain
		}
	}
	return "amazonaws.com"
}

// address encodes the path as the signature does: S3 takes a plain "+" for a space.
func (s *s3) address(key string) *url.URL {
	u := s.base
	u.Path += "/" + key
	u.RawPath = s3utils.EncodePath(u.Path)
	return &u
}

func (s *s3) describe(h http.Header, contentType string) {
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", disposition)
	h.Set("Cache-Control", cacheControl)
}

func (s *s3) sign(r *http.Request, content Content) error {
	keys, err := s.credentials(r.Context())
	if err != nil {
		return err
	}
	sum := sha256.New()
	if content != nil {
		if _, err := io.Copy(sum, io.NewSectionReader(content, 0, content.Size())); err != nil {
			return err
		}
	}
	r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum.Sum(nil)))
	signer.SignV4(*r, keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken, s.region) // into r's own header
	return nil
}

func (s *s3) presign(ctx context.Context, key string, life time.Duration) (string, error) {
	keys, err := s.credentials(ctx)
	if err != nil {
		return "", err
	}
	r := &http.Request{Method: http.MethodGet, URL: s.address(key), Header: http.Header{}}
	signed := signer.PreSignV4(*r, keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken, s.region, int64(life.Seconds()))
	return signed.URL.String(), nil
}

// credentials are the keys to sign with: those of the settings, or, kept until they expire, those of the environment or
// the machine.
func (s *s3) credentials(ctx context.Context) (credentials.Value, error) {
	keys, err := s.keys.GetWithContext(&credentials.CredContext{Client: s.client, Context: ctx})
	if err == nil && (keys.AccessKeyID == "" || keys.SecretAccessKey == "") {
		err = errors.New("neither the settings, nor the environment, nor the machine have keys for the store")
	}
	return keys, err
}

package blob

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
	"gocloud.dev/blob/s3blob"
)

// callTimeout bounds one call of a store, whatever the caller's context allows.
const callTimeout = 60 * time.Second

// openS3 opens a bucket of S3 or of what speaks its language.
func openS3(ctx context.Context, o Options) (*blob.Bucket, error) {
	address, region, pathStyle := o.Endpoint, o.Region, o.PathStyle
	switch {
	case o.Provider == Google:
		if address == "" {
			address, pathStyle = "https://storage.googleapis.com", true
		}
		if region == "" {
			region = "auto"
		}
	case o.Provider == AliCloud:
		region = strings.TrimPrefix(region, "oss-")
		if address == "" {
			if region == "" {
				return nil, errors.New("alicloud needs a region or an endpoint")
			}
			address = "https://oss-" + region + ".aliyuncs.com"
		}
	case region == "":
		region = "us-east-1"
	}
	if region == "" {
		region = "us-east-1"
	}
	options := s3.Options{
		Region: region, UsePathStyle: pathStyle, HTTPClient: &http.Client{Timeout: callTimeout}, RetryMaxAttempts: 2,
		// The check sums that S3 has learned lately are unknown elsewhere.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		APIOptions:                 []func(*middleware.Stack) error{leaveEncodingUnsigned},
	}
	if address != "" {
		u, err := endpoint(address)
		if err != nil {
			return nil, err
		}
		options.BaseEndpoint = aws.String(u.String())
	}
	switch {
	case o.AccessKey != "" && o.SecretKey != "":
		options.Credentials = credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, "")
	case o.Provider == AWS && o.AccessKey == "" && o.SecretKey == "":
		c, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
		if err != nil {
			return nil, err
		}
		options.Credentials = c.Credentials
	default:
		return nil, fmt.Errorf("%s needs an access key and a secret key", o.Provider)
	}
	return s3blob.OpenBucket(ctx, s3.New(options), o.Bucket, &s3blob.Options{
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
}

// leaveEncodingUnsigned keeps Accept-Encoding out of the signature: Google changes that header before it verifies.
func leaveEncodingUnsigned(stack *middleware.Stack) error {
	const signing, header = "Signing", "Accept-Encoding"
	if _, ok := stack.Finalize.Get(signing); !ok {
		return nil // an address is being signed, not a request
	}
	type kept struct{}
	hide := middleware.FinalizeMiddlewareFunc("HideAcceptEncoding", func(ctx context.Context, in middleware.FinalizeInput,
		next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if r, ok := in.Request.(*smithyhttp.Request); ok {
			ctx = middleware.WithStackValue(ctx, kept{}, r.Header.Get(header))
			r.Header.Del(header)
		}
		return next.HandleFinalize(ctx, in)
	})
	restore := middleware.FinalizeMiddlewareFunc("RestoreAcceptEncoding", func(ctx context.Context, in middleware.FinalizeInput,
		next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if r, ok := in.Request.(*smithyhttp.Request); ok {
			if value, _ := middleware.GetStackValue(ctx, kept{}).(string); value != "" {
				r.Header.Set(header, value)
			}
		}
		return next.HandleFinalize(ctx, in)
	})
	if err := stack.Finalize.Insert(hide, signing, middleware.Before); err != nil {
		return err
	}
	return stack.Finalize.Insert(restore, signing, middleware.After)
}

// openAzure opens a container of a storage account.
func openAzure(ctx context.Context, o Options) (*blob.Bucket, error) {
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
	credential, err := container.NewSharedKeyCredential(o.AccessKey, o.SecretKey)
	if err != nil {
		return nil, errors.New("the secret key of azure is not base64") // the cause may show the key
	}
	address = u.String() + "/" + url.PathEscape(o.Bucket)
	client, err := container.NewClientWithSharedKeyCredential(address, credential, &container.ClientOptions{
		ClientOptions: azcore.ClientOptions{
			Retry:     policy.RetryOptions{MaxRetries: 1, RetryDelay: 200 * time.Millisecond, TryTimeout: callTimeout},
			Transport: &http.Client{Timeout: callTimeout},
		},
	})
	if err != nil {
		return nil, err
	}
	return azureblob.OpenBucket(ctx, client, nil)
}

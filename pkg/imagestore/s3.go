package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// S3Options says which bucket of which store.
type S3Options struct {
	// Endpoint is the URL of the store.
	Endpoint string
	// Bucket must exist.
	Bucket string
	// Prefix stands before every name as it is; an empty name with it names one object.
	Prefix string
	// Region is us-east-1 when empty.
	Region      string
	Credentials S3Credentials
	Network     Network
}

const (
	defaultRegion = "us-east-1"
	// s3Attempts is how often one request is made: a part is repeated from memory, so that a short trouble at the store
	// does not cost the whole transfer.
	s3Attempts = 4
	// firstPause is before the second attempt; it doubles with each.
	firstPause = 250 * time.Millisecond
	// maxPages is how many pages a list of unfinished uploads of one name may have, of a thousand each.
	maxPages = 100
)

// S3 is a bucket and prefix of an S3-compatible store.
type S3 struct {
	core    minio.Core
	bucket  string
	prefix  string
	parting parting
}

var _ Store = (*S3)(nil)

// NewS3 makes no request yet; its error is of kind Invalid or Forbidden.
func NewS3(options S3Options) (*S3, error) {
	wrong := func(kind Kind, err error) error {
		return &Error{Kind: kind, Op: "use", Target: "s3://" + options.Bucket + "/" + options.Prefix, Err: err}
	}
	endpoint, err := url.Parse(options.Endpoint)
	if err != nil || endpoint.Host == "" {
		return nil, wrong(Invalid, errors.New("the endpoint is no URL"))
	}
	if err := s3utils.CheckValidBucketName(options.Bucket); err != nil {
		return nil, wrong(Invalid, err)
	}
	if err := options.Network.checkURL(options.Endpoint); err != nil {
		return nil, wrong(Forbidden, err)
	}
	client, err := options.Network.client()
	if err != nil {
		return nil, wrong(Invalid, err)
	}
	region := options.Region
	if region == "" {
		region = defaultRegion
	}
	signer := credentials.NewStaticV4(options.Credentials.AccessKeyID, options.Credentials.SecretAccessKey, options.Credentials.SessionToken)
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds: signer, Secure: endpoint.Scheme == "https", Region: region, Transport: client.Transport,
		BucketLookup: minio.BucketLookupAuto, MaxRetries: s3Attempts, TrailingHeaders: true,
	})
	if err != nil {
		return nil, wrong(Invalid, err)
	}

	return &S3{core: *core, bucket: options.Bucket, prefix: options.Prefix, parting: defaultParting}, nil
}

func (s *S3) key(name string) string { return s.prefix + name }

// Location implements Store.
func (s *S3) Location(name string) string { return "s3://" + s.bucket + "/" + s.key(name) }

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, name string) (Object, error) {
	info, err := s.core.StatObject(ctx, s.bucket, s.key(name), minio.StatObjectOptions{Checksum: true})
	if err != nil {
		return Object{}, s.wrap(ctx, "look at", name, err)
	}

	return s3Object(info), nil
}

func s3Object(info minio.ObjectInfo) Object {
	object := Object{Size: info.Size, Version: info.ETag}
	if !strings.Contains(info.ChecksumSHA256, "-") { // with a dash it is a digest of the parts' digests
		object.Digests.SHA256 = hexOf(info.ChecksumSHA256)
	}

	return object
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, name string, object Object, offset, length int64) (io.ReadCloser, error) {
	options := minio.GetObjectOptions{}
	if object.Version != "" {
		if err := options.SetMatchETag(object.Version); err != nil {
			return nil, s.wrap(ctx, "read", name, err)
		}
	}
	var err error
	switch {
	case length == 0:
		return io.NopCloser(strings.NewReader("")), nil
	case length > 0:
		err = options.SetRange(offset, offset+length-1)
	case offset > 0:
		err = options.SetRange(offset, 0)
	}
	if err != nil {
		return nil, s.wrap(ctx, "read", name, err)
	}
	body, info, header, err := s.core.GetObject(whole(ctx), s.bucket, s.key(name), options)
	if err != nil {
		return nil, s.wrap(ctx, "read", name, err)
	}
	if offset > 0 && header.Get("Content-Range") == "" {
		_ = body.Close() // nothing was read of it
		return nil, &Error{Kind: NoRanges, Op: "read", Target: s.Location(name), Err: errors.New("the store does not read from an offset")}
	}

	return &download{ctx: ctx, body: body, op: "read", target: s.Location(name), left: info.Size}, nil
}

// Remove implements Store.
func (s *S3) Remove(ctx context.Context, name string) error {
	if err := s.removeStale(ctx, name); err != nil && KindOf(err) != NotFound {
		return err
	}
	err := s.core.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{})
	if err := s.wrap(ctx, "delete", name, err); err != nil && KindOf(err) != NotFound {
		return err
	}

	return nil
}

// removeStale aborts multipart uploads of a name that nobody finished. Who may write and not list has none of ours
// that we could find; that is no error.
func (s *S3) removeStale(ctx context.Context, name string) error {
	keyMarker, idMarker := "", ""
	for range maxPages {
		found, err := s.core.ListMultipartUploads(ctx, s.bucket, s.key(name), keyMarker, idMarker, "", 0)
		if err := s.wrap(ctx, "list unfinished uploads of", name, err); err != nil {
			if KindOf(err) == Refused {
				return nil
			}
			return err
		}
		for _, upload := range found.Uploads {
			if upload.Key != s.key(name) {
				continue // a longer name with the same beginning
			}
			err := s.core.AbortMultipartUpload(ctx, s.bucket, upload.Key, upload.UploadID)
			if err := s.wrap(ctx, "abort an unfinished upload of", name, err); err != nil && KindOf(err) != NotFound {
				return err
			}
		}
		if !found.IsTruncated || found.NextKeyMarker == keyMarker && found.NextUploadIDMarker == idMarker {
			return nil
		}
		keyMarker, idMarker = found.NextKeyMarker, found.NextUploadIDMarker
	}

	return &Error{Kind: Unavailable, Op: "list unfinished uploads of", Target: s.Location(name), Err: fmt.Errorf("the list has more than %d pages", maxPages)}
}

// s3Kinds are codes that say more than their status.
var s3Kinds = map[string]Kind{
	"SlowDown": Throttled, "SlowDownRead": Throttled, "SlowDownWrite": Throttled, "Throttling": Throttled, "RequestLimitExceeded": Throttled,
	"RequestTimeout": Stalled, "ExpiredToken": Refused, "XAdminUserNotFound": Refused,
	"BadDigest": Damaged, "XAmzContentSHA256Mismatch": Damaged, "XAmzContentChecksumMismatch": Damaged, "IncompleteBody": Interrupted,
	"NoSuchUpload": Interrupted, "InvalidPart": Interrupted, // somebody cleared the upload away; a new one may succeed
	"XMinioStorageFull": Full, "QuotaExceeded": Full, "XMinioAdminBucketQuotaExceeded": Full, "InsufficientStorage": Full, "InsufficientCapacity": Full,
	"PreconditionFailed": Changed, "InvalidRange": Changed, "NotImplemented": Refused,
}

func (s *S3) wrap(ctx context.Context, op, name string, err error) error {
	var response minio.ErrorResponse
	if err == nil || !errors.As(err, &response) || ctx.Err() != nil {
		return wrap(ctx, op, s.Location(name), err)
	}
	e := &Error{Op: op, Target: s.Location(name), Status: response.StatusCode, Err: fmt.Errorf("%s: %s", response.Code, response.Message)}
	kind, told := s3Kinds[response.Code]
	switch {
	case told:
		e.Kind = kind
	case response.StatusCode != 0:
		e.Kind = kindOfStatus(response.StatusCode)
	default: // the client's own checks: names, sizes
		e.Kind = Invalid
	}
	if response.StatusCode == http.StatusServiceUnavailable && !told {
		e.Kind = Throttled
	}

	return e
}

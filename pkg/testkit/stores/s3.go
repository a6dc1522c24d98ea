package stores

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3 is an S3 server with one bucket.
type S3 struct {
	URL, Bucket, AccessKeyID, SecretAccessKey string
	// CABundle signs the server's certificate, with NewS3TLS.
	CABundle []byte
	core     *minio.Core
}

// NewS3 starts versitygw over plain HTTP.
func NewS3(t testing.TB) *S3 { return startS3(t, false) }

// NewS3TLS starts versitygw with a certificate of an authority of its own.
func NewS3TLS(t testing.TB) *S3 { return startS3(t, true) }

func startS3(t testing.TB, secure bool) *S3 {
	t.Helper()
	directory, address := t.TempDir(), freeAddress(t)
	for _, name := range []string{"data", "sidecar"} {
		if err := os.Mkdir(filepath.Join(directory, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &S3{URL: "http://" + address, Bucket: "backups", AccessKeyID: "an-access-key", SecretAccessKey: "a-secret-key"}
	arguments := []string{"--access", s.AccessKeyID, "--secret", s.SecretAccessKey, "--port", address}
	transport := &http.Transport{}
	if secure {
		certificate, key := selfSigned(t)
		s.URL, s.CABundle = "https://"+address, certificate
		write(t, filepath.Join(directory, "tls.crt"), string(certificate))
		write(t, filepath.Join(directory, "tls.key"), string(key))
		arguments = append(arguments, "--cert", filepath.Join(directory, "tls.crt"), "--key", filepath.Join(directory, "tls.key"))
		authorities := x509.NewCertPool()
		authorities.AppendCertsFromPEM(certificate)
		transport.TLSClientConfig = &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}
	}
	arguments = append(arguments, "posix", "--sidecar", filepath.Join(directory, "sidecar"), filepath.Join(directory, "data"))
	program := built(t, "versitygw", "github.com/versity/versitygw/cmd/versitygw")
	t.Cleanup(transport.CloseIdleConnections)
	serve(t, "versitygw", filepath.Join(directory, "versitygw.log"), s.URL, &http.Client{Transport: transport}, exec.Command(program, arguments...))
	core, err := minio.NewCore(address, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKeyID, s.SecretAccessKey, ""), Secure: secure, Region: "us-east-1", Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.core = core
	if err := core.MakeBucket(t.Context(), s.Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}

	return s
}

// Secret is the data of a Secret with the server's credentials.
func (s *S3) Secret() map[string][]byte {
	data := map[string][]byte{"accessKeyID": []byte(s.AccessKeyID), "secretAccessKey": []byte(s.SecretAccessKey)}
	if s.CABundle != nil {
		data["ca.crt"] = s.CABundle
	}

	return data
}

// Put stores an object.
func (s *S3) Put(t testing.TB, key string, data []byte) {
	t.Helper()
	if _, err := s.core.Client.PutObject(t.Context(), s.Bucket, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Get reads an object with a client of its own; it is nil if there is none.
func (s *S3) Get(t testing.TB, key string) []byte {
	t.Helper()
	body, _, _, err := s.core.GetObject(t.Context(), s.Bucket, key, minio.GetObjectOptions{})
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}

	return data
}

// Download reads an object as somebody with a shell does: by curl, which knows nothing of the clients here.
func (s *S3) Download(t testing.TB, key string) []byte {
	t.Helper()
	nothing := sha256.Sum256(nil) // what is sent with a GET; older curls sign this header, but do not make it
	arguments := []string{
		"--fail", "--silent", "--show-error", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", s.AccessKeyID + ":" + s.SecretAccessKey,
		"--header", "x-amz-content-sha256: " + hex.EncodeToString(nothing[:]),
	}
	if s.CABundle != nil {
		authority := filepath.Join(t.TempDir(), "ca.crt")
		write(t, authority, string(s.CABundle))
		arguments = append(arguments, "--cacert", authority)
	}
	var body, complaints bytes.Buffer
	curl := exec.CommandContext(t.Context(), "curl", append(arguments, s.URL+"/"+s.Bucket+"/"+key)...)
	curl.Stdout, curl.Stderr = &body, &complaints
	if err := curl.Run(); err != nil {
		t.Fatalf("curl %s: %v\n%s", key, err, complaints.String())
	}
	return body.Bytes()
}

// Keys lists the objects.
func (s *S3) Keys(t testing.TB) (keys []string) {
	t.Helper()
	for object := range s.core.Client.ListObjects(t.Context(), s.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		if object.Err != nil {
			t.Fatal(object.Err)
		}
		keys = append(keys, object.Key)
	}

	return keys
}

// Unfinished lists the keys of multipart uploads that were neither completed nor aborted.
func (s *S3) Unfinished(t testing.TB) (keys []string) {
	t.Helper()
	found, err := s.core.ListMultipartUploads(t.Context(), s.Bucket, "", "", "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, upload := range found.Uploads {
		keys = append(keys, upload.Key)
	}

	return keys
}

// LeaveUnfinished leaves what a client that died leaves: an upload with a part.
func (s *S3) LeaveUnfinished(t testing.TB, key string) {
	t.Helper()
	id, err := s.core.NewMultipartUpload(t.Context(), s.Bucket, key, minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	part := strings.Repeat("x", 5<<20)
	if _, err := s.core.PutObjectPart(t.Context(), s.Bucket, key, id, 1, strings.NewReader(part), int64(len(part)), minio.PutObjectPartOptions{}); err != nil {
		t.Fatal(err)
	}
}

package disk

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
)

// Digest counts and hashes what passes.
type Digest struct {
	sha256, sha512 hash.Hash
	n              int64
}

// NewDigest hashes with SHA-256.
func NewDigest() *Digest { return &Digest{sha256: sha256.New()} }

// NewDigest512 hashes with SHA-256 and SHA-512, for a source whose checksum is of the latter.
func NewDigest512() *Digest { return &Digest{sha256: sha256.New(), sha512: sha512.New()} }

// Write takes the next bytes. It never fails.
func (d *Digest) Write(p []byte) (int, error) {
	d.n += int64(len(p))
	_, _ = d.sha256.Write(p)
	if d.sha512 != nil {
		_, _ = d.sha512.Write(p)
	}
	return len(p), nil
}

// Len is how many bytes passed.
func (d *Digest) Len() int64 { return d.n }

// SHA256 is the digest so far, in hexadecimal digits.
func (d *Digest) SHA256() string { return hex.EncodeToString(d.sha256.Sum(nil)) }

// SHA512 is the digest so far, in hexadecimal digits; "" if it was not asked for.
func (d *Digest) SHA512() string {
	if d.sha512 == nil {
		return ""
	}
	return hex.EncodeToString(d.sha512.Sum(nil))
}

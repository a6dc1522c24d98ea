package imagestore

import (
	"crypto/md5" //nolint:gosec // stores tell MD5 of what they hold; it finds damage, it proves nothing
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
)

// digester computes digests of what passes by.
type digester struct {
	sha256, sha512, md5 hash.Hash // nil when not wanted
}

func (d *digester) write(p []byte) {
	for _, h := range []hash.Hash{d.sha256, d.sha512, d.md5} {
		if h != nil {
			_, _ = h.Write(p) // a hash takes everything
		}
	}
}

func (d *digester) digests() Digests {
	return Digests{SHA256: sum(d.sha256), SHA512: sum(d.sha512), MD5: sum(d.md5)}
}

func sum(h hash.Hash) string {
	if h == nil {
		return ""
	}

	return hex.EncodeToString(h.Sum(nil))
}

// digesterOf computes what wanted names, by whatever value.
func digesterOf(wanted Digests) *digester {
	d := &digester{}
	if wanted.SHA256 != "" {
		d.sha256 = sha256.New()
	}
	if wanted.SHA512 != "" {
		d.sha512 = sha512.New()
	}
	if wanted.MD5 != "" {
		d.md5 = md5.New() //nolint:gosec // as above
	}

	return d
}

// compare tells whether both sides know a digest of the same kind, and which of those differ.
func (d Digests) compare(other Digests) (compared bool, err error) {
	for _, pair := range []struct{ name, ours, theirs string }{
		{"SHA-256", d.SHA256, other.SHA256}, {"SHA-512", d.SHA512, other.SHA512}, {"MD5", d.MD5, other.MD5},
	} {
		if pair.ours == "" || pair.theirs == "" {
			continue
		}
		compared = true
		if pair.ours != pair.theirs {
			return true, fmt.Errorf("its %s is %s, not %s", pair.name, pair.theirs, pair.ours)
		}
	}

	return compared, nil
}

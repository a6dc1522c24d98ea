package instance

import (
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"hash"
	"strings"
)

// NewPassword makes a password of about 119 bits, of characters that are told apart when read aloud.
func NewPassword() string { return randomText(passwordLength, passwordAlphabet) }

const (
	passwordLength   = 20
	passwordAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789-_.+=@%"
	cryptAlphabet    = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	saltLength       = 16
	cryptRounds      = 5000
)

// randomText draws characters evenly: both alphabets have 64 of them or fewer, and draws beyond are repeated.
func randomText(length int, alphabet string) string {
	text := make([]byte, 0, length)
	var draw [1]byte
	for len(text) < length {
		_, _ = rand.Read(draw[:]) // never fails: it ends the process instead
		if i := int(draw[0] & 63); i < len(alphabet) {
			text = append(text, alphabet[i])
		}
	}
	return string(text)
}

// HashPassword is the password in the SHA-512 form of crypt(3), which every guest's libc knows.
func HashPassword(password string) string {
	return sha512Crypt(password, randomText(saltLength, cryptAlphabet))
}

// sha512Crypt computes crypt(3)'s "$6$" form with its default of 5000 rounds, as Ulrich Drepper's "Unix crypt using
// SHA-256 and SHA-512" defines it; the numbered steps are that document's.
func sha512Crypt(password, salt string) string {
	key, saltBytes := []byte(password), []byte(salt)

	b := sha512.Sum512([]byte(password + salt + password)) // steps 4 to 8
	a := sha512.New()                                      // steps 1 to 3
	a.Write(key)
	a.Write(saltBytes)
	writeRepeated(a, b[:], len(key))    // steps 9 and 10
	for n := len(key); n > 0; n >>= 1 { // step 11
		if n&1 != 0 {
			a.Write(b[:])
		} else {
			a.Write(key)
		}
	}
	digest := a.Sum(nil) // step 12

	dp := sha512.New() // steps 13 to 16
	for range key {
		dp.Write(key)
	}
	p := repeated(dp.Sum(nil), len(key))

	ds := sha512.New() // steps 17 to 20
	for range 16 + int(digest[0]) {
		ds.Write(saltBytes)
	}
	s := repeated(ds.Sum(nil), len(saltBytes))

	for round := range cryptRounds { // step 21
		c := sha512.New()
		write := func(odd bool) {
			if odd {
				c.Write(p)
			} else {
				c.Write(digest)
			}
		}
		write(round&1 != 0)
		if round%3 != 0 {
			c.Write(s)
		}
		if round%7 != 0 {
			c.Write(p)
		}
		write(round&1 == 0)
		digest = c.Sum(nil)
	}
	return fmt.Sprintf("$6$%s$%s", salt, cryptBase64(digest)) // step 22
}

// writeRepeated writes n bytes of sum over and over.
func writeRepeated(h hash.Hash, sum []byte, n int) { h.Write(repeated(sum, n)) }

// repeated is sum over and over, cut to n bytes.
func repeated(sum []byte, n int) []byte {
	out := make([]byte, 0, n+len(sum))
	for len(out) < n {
		out = append(out, sum...)
	}
	return out[:n]
}

// cryptBase64 is crypt(3)'s own encoding: three bytes at a time, taken from three thirds of the digest in turn.
func cryptBase64(digest []byte) string {
	var out strings.Builder
	encode := func(b2, b1, b0 byte, n int) {
		w := uint(b2)<<16 | uint(b1)<<8 | uint(b0)
		for range n {
			out.WriteByte(cryptAlphabet[w&0x3f])
			w >>= 6
		}
	}
	for i := range 21 {
		x, y, z := i, i+21, i+42
		switch i % 3 {
		case 0:
			encode(digest[x], digest[y], digest[z], 4)
		case 1:
			encode(digest[y], digest[z], digest[x], 4)
		case 2:
			encode(digest[z], digest[x], digest[y], 4)
		}
	}
	encode(0, 0, digest[63], 2)
	return out.String()
}

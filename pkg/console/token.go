package console

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// tokenBytes is the length of a token before it is written as text: 256 bits, so that guessing is hopeless whatever the rate.
const tokenBytes = 32

// NewToken makes a token: 43 characters that may stand in a URL.
func NewToken() string {
	var secret [tokenBytes]byte
	_, _ = rand.Read(secret[:]) // never fails: the runtime ends the program rather than give weak randomness
	return base64.RawURLEncoding.EncodeToString(secret[:])
}

// URL is what the client opens. With token empty it is the address alone, for whoever has the token from elsewhere.
// In a browser's URL the token is the fragment, which is never sent to a server; viewers put it into the query, as their protocol has it.
func URL(gateway string, client v1alpha1.ConsoleClient, token string) string {
	base := strings.TrimRight(gateway, "/") + "/console"
	switch {
	case client == v1alpha1.ConsoleClientBrowser && token == "":
		return base + "/"
	case client == v1alpha1.ConsoleClientBrowser:
		return base + "/#token=" + url.QueryEscape(token)
	case token == "":
		return base
	default:
		return base + "?token=" + url.QueryEscape(token)
	}
}

// ParsePublicKey reads an RSA public key in PEM, in either of the two forms that tools write.
func ParsePublicKey(text string) (*rsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("publicKey holds no PEM block: wanted one of type PUBLIC KEY (openssl pkey -pubout) or RSA PUBLIC KEY")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("publicKey holds something after its first PEM block: wanted the public key alone")
	}
	key, err := parseBlock(block)
	if err != nil {
		return nil, err
	}
	if bits := key.N.BitLen(); bits < 2048 || bits > 8192 {
		return nil, fmt.Errorf("publicKey has %d bits: wanted 2048 to 8192", bits)
	}
	return key, nil
}

func parseBlock(block *pem.Block) (*rsa.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("publicKey cannot be read as PKIX: %w", err)
		}
		rsaKey, ok := key.(*rsa.PublicKey)
		if !ok {
			return nil, fmt.Errorf("publicKey is a %T: wanted an RSA key", key)
		}
		return rsaKey, nil
	case "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("publicKey cannot be read as PKCS#1: %w", err)
		}
		return key, nil
	default:
		return nil, fmt.Errorf("publicKey holds a PEM block of type %q: wanted PUBLIC KEY or RSA PUBLIC KEY", block.Type)
	}
}

// Seal encrypts a token for the holder of the private key: RSA-OAEP with SHA-256 and an empty label, in base64. It is opened by
//
//	base64 -d | openssl pkeyutl -decrypt -inkey key.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256
func Seal(token, publicKey string) (string, error) {
	key, err := ParsePublicKey(publicKey)
	if err != nil {
		return "", err
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, []byte(token), nil)
	if err != nil {
		return "", fmt.Errorf("encrypt the token: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// SecretName is the Secret that holds a console's token with access SecretToken.
func SecretName(c *v1alpha1.XenConsole) string { return c.Name + "-console" }

// KeyDigest names a public key in the status; empty for none.
func KeyDigest(publicKey string) string {
	if publicKey == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(publicKey))
	return hex.EncodeToString(sum[:])
}

// Shows reports whether the status has the URL that the spec asks for now. A token in it has to be the one that the status knows.
func Shows(c *v1alpha1.XenConsole, gateway string) bool {
	if c.Spec.Access != v1alpha1.AccessURLToken {
		return c.Status.URL == URL(gateway, c.Spec.Client, "")
	}
	_, query, _ := strings.Cut(c.Status.URL, "token=")
	token, err := url.QueryUnescape(query)
	return err == nil && v1alpha1.ConsoleTokenDigest(token) == c.Status.TokenSHA256 && c.Status.URL == URL(gateway, c.Spec.Client, token)
}

package httpd

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// headerLimit is how long request line and headers may be together (xapi_globs.ml, max_header_length_tcp).
const headerLimit = 1024

var (
	errHeaderTooLong = errors.New("headers are too long")
	errNoRequest     = errors.New("no HTTP request")
)

// Request is a request and the connection it came over.
type Request struct {
	Method  string
	Path    string // unescaped, without the query
	Query   url.Values
	Version string            // "1.0" or "1.1"
	Header  map[string]string // names in lower case
	Length  int64             // Content-Length, -1 when there was none
	Close   bool              // the connection ends after this request
	Conn    net.Conn
	Reader  *bufio.Reader // what follows the headers on the connection

	remaining int64
}

// Body reads the request's body and no further.
func (r *Request) Body() io.Reader { return bodyReader{r} }

type bodyReader struct{ r *Request }

func (b bodyReader) Read(p []byte) (int, error) {
	if b.r.remaining <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.r.remaining {
		p = p[:b.r.remaining]
	}
	n, err := b.r.Reader.Read(p)
	b.r.remaining -= int64(n)
	return n, err
}

// Cookie gives a cookie's value.
func (r *Request) Cookie(name string) string {
	for part := range strings.SplitSeq(r.Header["cookie"], ";") {
		if key, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok && key == name {
			if plain, err := url.QueryUnescape(value); err == nil {
				return plain
			}
			return value
		}
	}
	return ""
}

// Param gives a value from the query, or else from the cookies.
func (r *Request) Param(name string) string {
	if v := r.Query.Get(name); v != "" {
		return v
	}
	return r.Cookie(name)
}

// BasicAuth gives the name and password of HTTP Basic authentication.
func (r *Request) BasicAuth() (user, password string, ok bool) {
	encoded, ok := strings.CutPrefix(r.Header["authorization"], "Basic ")
	if !ok {
		return "", "", false
	}
	plain, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(plain), ":")
}

// readRequest reads request line and headers.
func readRequest(conn net.Conn, reader *bufio.Reader) (*Request, error) {
	lines, err := readHeader(reader)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(lines[0])
	if len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/") {
		return nil, errNoRequest
	}
	path, rawQuery, _ := strings.Cut(originForm(words[1]), "?")
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, errNoRequest
	}
	r := &Request{Method: words[0], Path: plain, Query: parseQuery(rawQuery), Version: "1.1", Length: -1,
		Header: map[string]string{}, Conn: conn, Reader: reader}
	if words[2] == "HTTP/1.0" {
		r.Version, r.Close = "1.0", true
	}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, errNoRequest
		}
		r.Header[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return r, r.finish()
}

// originForm takes scheme and host off a target that has them, as requests to a proxy do.
func originForm(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok && !strings.HasPrefix(target, "/") {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			return rest[i:]
		}
		return "/"
	}
	return target
}

func (r *Request) finish() error {
	if text, ok := r.Header["content-length"]; ok {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errNoRequest
		}
		r.Length, r.remaining = n, n
	}
	switch strings.ToLower(r.Header["connection"]) {
	case "close":
		r.Close = true
	case "keep-alive":
		r.Close = false
	}
	return nil
}

// parseQuery takes a query leniently: '+' stays, and what cannot be unescaped is taken as it stands.
func parseQuery(raw string) url.Values {
	values := url.Values{}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		if plain, err := url.PathUnescape(key); err == nil {
			key = plain
		}
		if plain, err := url.PathUnescape(value); err == nil {
			value = plain
		}
		values.Add(key, value)
	}
	return values
}

// readHeader reads lines up to the empty one.
func readHeader(reader *bufio.Reader) ([]string, error) {
	var lines []string
	size := 0
	for {
		line, err := readLine(reader, headerLimit-size)
		if err != nil {
			if len(lines) == 0 && size == 0 && errors.Is(err, io.EOF) {
				return nil, io.EOF
			}
			return nil, err
		}
		size += len(line)
		text := strings.TrimRight(line, "\r\n")
		if text == "" {
			if len(lines) == 0 {
				return nil, errNoRequest
			}
			return lines, nil
		}
		lines = append(lines, text)
	}
}

func readLine(reader *bufio.Reader, most int) (string, error) {
	var line []byte
	for {
		b, err := reader.ReadByte()
		if err != nil {
			return "", fmt.Errorf("read request: %w", err)
		}
		line = append(line, b)
		if b == '\n' {
			return string(line), nil
		}
		if len(line) >= most {
			return "", errHeaderTooLong
		}
	}
}

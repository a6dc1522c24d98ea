package httpd

import (
	"fmt"
	"strings"
)

// Header is one header of an answer; the order counts, for whoever compares bytes.
type Header struct{ Name, Value string }

// NoCache is the header that every answer has.
var NoCache = Header{"cache-control", "no-cache, no-store"}

// WriteHead writes the status line and headers.
func (r *Request) WriteHead(status int, reason string, headers ...Header) error {
	var out strings.Builder
	fmt.Fprintf(&out, "HTTP/%s %d %s\r\n", r.Version, status, reason)
	for _, h := range headers {
		fmt.Fprintf(&out, "%s: %s\r\n", h.Name, h.Value)
	}
	out.WriteString("\r\n")
	_, err := r.Conn.Write([]byte(out.String()))
	return err
}

// Respond writes a whole answer of status 200: content-length, connection and cache-control, then the given headers.
func (r *Request) Respond(body []byte, headers ...Header) error {
	head := r.okHead(len(body), headers)
	_, err := r.Conn.Write(append(head, body...))
	return err
}

// RespondPart writes the head of an answer, but only so much of its body.
func (r *Request) RespondPart(body []byte, most int, headers ...Header) error {
	head := r.okHead(len(body), headers)
	_, err := r.Conn.Write(append(head, body[:min(most, len(body))]...))
	return err
}

func (r *Request) okHead(length int, headers []Header) []byte {
	connection := "keep-alive"
	if r.Close {
		connection = "close"
	}
	out := fmt.Appendf(nil, "HTTP/%s 200 OK\r\ncontent-length: %d\r\nconnection: %s\r\ncache-control: no-cache, no-store\r\n",
		r.Version, length, connection)
	for _, h := range headers {
		out = fmt.Appendf(out, "%s: %s\r\n", h.Name, h.Value)
	}
	return append(out, "\r\n"...)
}

// Error writes an answer that is an html page, and ends the connection.
func (r *Request) Error(status int, reason, html string, headers ...Header) {
	r.Close = true
	body := "<html><body>" + html + "</body></html>"
	head := []Header{{"content-length", fmt.Sprint(len(body))}, {"content-type", "text/html"}, {"connection", "close"}, NoCache}
	if r.WriteHead(status, reason, append(head, headers...)...) == nil {
		_, _ = r.Conn.Write([]byte(body))
	}
}

// Forbidden answers 403, which is also what an unknown path gets.
func (r *Request) Forbidden() {
	r.Error(403, "Forbidden", "<h1>HTTP 403 forbidden</h1>Access to the requested resource is forbidden.")
}

// Unauthorised answers 401; the realm is the handler's name.
func (r *Request) Unauthorised(realm string) {
	r.Error(401, "Unauthorised", "<h1>HTTP 401 unauthorised</h1>Please check your credentials and retry.",
		Header{"WWW-Authenticate", fmt.Sprintf("Basic realm=%q", realm)})
}

// Internal answers 500 with the text of an OCaml exception.
func (r *Request) Internal(extra string) {
	r.Error(500, "Internal Error", "<h1>HTTP 500 internal server error</h1>An unexpected error occurred; please wait a "+
		"while and try again. If the problem persists, please contact your support representative."+
		"<h1> Additional information </h1>"+Escape(extra))
}

// NotImplemented answers 501 for a method that no path takes.
func (r *Request) NotImplemented() {
	r.Error(501, "Method not implemented",
		fmt.Sprintf("<h1>HTTP 501 Method Not Implemented</h1><p>Unknown %s not supported.<br /></p>", r.Method))
}

func (r *Request) headerTooLong() {
	r.Error(431, "Request Header Fields Too Large",
		"<h1>HTTP 431 request header fields too large</h1>Exceeded the maximum header size.")
}

// Escape makes text safe in html, quotes included.
func Escape(text string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;", "&", "&amp;").Replace(text)
}

package xapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// rpcLimit is how long the body of a call may be (constants.ml, http_limit_max_rpc_size).
const rpcLimit = 300 * 1024

// HTTPHandler answers a request that carries credentials. The pool is not locked.
type HTTPHandler func(x *Exchange) error

// Exchange is an HTTP request whose credentials were checked.
type Exchange struct {
	*httpd.Request
	Pool    *Pool
	Session string
	Host    string // reference of the host that was addressed
	//nolint:containedctx // an exchange is handed to one handler, its context with it
	Context context.Context // ends when the toolstack restarts
}

type httpRoute struct {
	method, path, realm string
	handler             HTTPHandler
}

// HandleHTTP registers what answers a method under a path. Requests without good credentials get 401 with the realm;
// with an empty realm there is no check.
func (p *Pool) HandleHTTP(method, path, realm string, h HTTPHandler) {
	p.routes = append(p.routes, httpRoute{method, path, realm, h})
}

// Mount puts the pool's paths on a host's server.
func (p *Pool) Mount(s *httpd.Server, host string) {
	s.Handle("POST", "/", func(r *httpd.Request) error { return p.serveXML(r, host) })
	s.Handle("POST", "/jsonrpc", func(r *httpd.Request) error { return p.serveJSON(r, host) })
	for _, path := range []string{"/", "/jsonrpc"} {
		s.Handle("OPTIONS", path, serveOptions)
	}
	forbidden := func(r *httpd.Request) error {
		r.Forbidden()
		return nil
	}
	s.Handle("GET", "/", forbidden)
	for _, method := range []string{"PUT", "CONNECT"} {
		s.Handle(method, "/", forbidden)
	}
	for _, route := range p.routes {
		s.Handle(route.method, route.path, func(r *httpd.Request) error { return p.serveRoute(r, route, host) })
	}
}

func (p *Pool) serveRoute(r *httpd.Request, route httpRoute, host string) error {
	x := &Exchange{Request: r, Pool: p, Host: host}
	p.Lock()
	x.Context = p.life
	if route.realm != "" {
		user, password, basic := r.BasicAuth()
		x.Session = p.Authenticate(r.Param("session_id"), user, password, basic)
	}
	p.Unlock()
	if route.realm != "" && x.Session == "" {
		r.Unauthorised(route.realm)
		return nil
	}
	if x.Session != "" && r.Param("session_id") == "" {
		defer p.endSession(x.Session) // it was made for this request
	}
	return p.underFaults(x, route)
}

func (p *Pool) endSession(ref string) {
	p.Lock()
	defer p.Unlock()
	p.dropSession(ref)
}

func serveOptions(r *httpd.Request) error {
	allowed := "X-Requested-With"
	if asked := r.Header["access-control-request-headers"]; asked != "" {
		allowed = asked + ", " + allowed
	}
	return r.Respond(nil, httpd.Header{Name: "Access-Control-Allow-Origin", Value: "*"},
		httpd.Header{Name: "Access-Control-Allow-Headers", Value: allowed},
		httpd.Header{Name: "Access-Control-Allow-Methods", Value: "PUT"})
}

func readBody(r *httpd.Request) ([]byte, error) {
	if r.Length < 0 {
		return nil, &wire.ParseError{Text: `Failure("We require a content-length: HTTP header")`}
	}
	if r.Length > rpcLimit {
		return nil, &wire.ParseError{Text: "Http_svr.Client_requested_size_over_limit"}
	}
	return io.ReadAll(r.Body())
}

func (p *Pool) serveXML(r *httpd.Request, host string) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	call, err := wire.ParseXMLCall(body)
	if err != nil {
		return err
	}
	success := wire.XMLSuccess
	if call.Method == "system.listMethods" {
		success = wire.XMLBare
	}
	return p.serveCall(r, "text/xml", Request{Method: call.Method, Params: call.Params, Host: host}, success, wire.XMLFailure)
}

func (p *Pool) serveJSON(r *httpd.Request, host string) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	call, err := wire.ParseJSONCall(body)
	if err != nil {
		return err
	}
	return p.serveCall(r, "application/json", Request{Method: call.Method, Params: call.Params, Host: host}, call.Success, call.Failure)
}

func (p *Pool) serveCall(r *httpd.Request, contentType string, request Request,
	success func(any) []byte, failure func(string, []string) []byte) error {
	request.UserAgent = r.Header["user-agent"]
	object := p.objectOf(request) // before the call, which may destroy it
	result, err := p.Dispatch(context.Background(), request)
	p.calls.add(request, object, err)
	headers := []httpd.Header{{Name: "content-type", Value: contentType},
		{Name: "Access-Control-Allow-Origin", Value: "*"}, {Name: "Access-Control-Allow-Headers", Value: "X-Requested-With"}}
	if err != nil {
		return p.serveFailure(r, err, failure, headers)
	}
	if cut, ok := result.(Truncated); ok {
		r.Close = true
		return r.RespondPart(success(voidIfNil(cut.Value)), cut.Bytes, headers...)
	}
	return r.Respond(success(voidIfNil(result)), headers...)
}

// serveFailure answers with the error, or breaks the connection when nobody is there to answer.
func (p *Pool) serveFailure(r *httpd.Request, err error, failure func(string, []string) []byte, headers []httpd.Header) error {
	var dropped *DropConnection
	if errors.As(err, &dropped) || errors.Is(err, errRestart) || errors.Is(err, errClosed) {
		r.Close = true
		return nil
	}
	known := errorOf(err)
	return r.Respond(failure(known.Code, known.Params), headers...)
}

// objectOf gives the name of the object that a call is about, as far as it has one.
func (p *Pool) objectOf(r Request) string {
	if len(r.Params) < 2 {
		return ""
	}
	ref, _ := r.Params[1].(string)
	p.Lock()
	defer p.Unlock()
	m := p.message(strings.TrimPrefix(r.Method, "Async."))
	if m == nil || p.Model.Class(m.Class).Field("name_label") == nil {
		return ""
	}
	if record := p.db.Get(m.Class, ref); record.Exists() {
		return record.Str("name_label")
	}
	return ""
}

func voidIfNil(v any) any {
	if v == nil {
		return ""
	}
	return v
}

// underFaults runs an HTTP handler under the fault plan; its path is the call's name.
func (p *Pool) underFaults(x *Exchange, route httpRoute) error {
	name := strings.TrimPrefix(route.path, "/")
	p.calls.add(Request{Method: route.method + " " + route.path, UserAgent: x.Header["user-agent"]}, "", nil)
	p.Lock()
	c := &Call{Pool: p, Session: x.Session, Host: x.Host, ctx: x.Context, args: map[string]any{}}
	for key, values := range x.Query {
		c.args[key] = values[0]
		for class := range map[string]bool{"VDI": true, "VM": true} {
			if ref, ok := p.db.ByUUID(class, values[0]); ok {
				c.args[key+" "+class] = ref
			}
		}
	}
	c.befallen = p.faults.take(name, c.names)
	err := c.faultsAtDoor()
	p.Unlock()
	if err != nil {
		return turnAway(x, err, route.realm)
	}
	for _, f := range c.befallen {
		if f.CorruptBody > 0 {
			x.Reader = bufio.NewReader(&corrupted{reader: x.Reader, left: f.CorruptBody})
		}
		if f.TruncateBody > 0 {
			x.Conn = &cutConn{Conn: x.Conn, left: f.TruncateBody}
		}
		if f.Error != "" && !f.AfterEffect {
			return Fail(f.Error, f.Params...)
		}
	}
	return route.handler(x)
}

// corrupted is a body of which one byte arrives changed: the one after so many.
type corrupted struct {
	reader io.Reader
	left   int
}

// Read implements io.Reader.
func (c *corrupted) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	if 0 <= c.left && c.left < n {
		p[c.left] ^= 0xff
	}
	c.left -= n
	return n, err
}

// turnAway answers a request that the fault plan does not let in: with a broken connection, or as if its session had
// ended.
func turnAway(x *Exchange, err error, realm string) error {
	var dropped *DropConnection
	if errors.As(err, &dropped) {
		x.Close = true
		return nil
	}
	x.Unauthorised(realm)
	return nil
}

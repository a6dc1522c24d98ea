package xensim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/classes"
	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Options say what pool to simulate. The zero value is the demonstration pool for root without a password.
type Options struct {
	User       string    // default root
	Password   string    //
	State      io.Reader // JSON {class: {ref: record}}; the demonstration pool when nil
	Hosts      int       // of the demonstration pool, default 3
	DataDir    string    // for disks and ca.pem; a temporary directory that Close removes when empty
	ClockScale float64   // how many times faster than the wall clock time passes; default 1
	HTTP       bool      // plain HTTP instead of TLS
	Profile    string    // 24.19 (default) or 26.17
	Faults     []Fault
	VNC        string    // address of a VNC server that all consoles show instead of the built-in screen
	Durations  Durations // how long operations take; unset ones as on a small idle pool, or as recorded when State is given
	Guests     Guests    // what runs in VMs
	Logf       func(format string, args ...any)
}

// Durations are how long operations take in the pool's time.
type Durations = classes.Durations

// What operations may take: as long as in a small idle pool, or as on the server of the recordings, whose hypervisor and
// storage were stand-ins. Who brings a state compares with a real server, and gets the latter unless asked otherwise.
var (
	DefaultDurations  = classes.DefaultDurations
	RecordedDurations = classes.RecordedDurations
)

// Guests say what runs in VMs: whether they have an agent, and when it reports.
type Guests = classes.Guests

// Fault is one line of a fault plan: which calls it befalls and what happens to them.
type Fault = xapi.Fault

// Call is one call that a client made.
type Call = xapi.CallRecord

// CallCounts are numbers of calls by method and by error code.
type CallCounts = xapi.CallCounts

// Pool is a simulated pool.
type Pool struct {
	*xapi.Pool

	options   Options
	disks     *blockstore.Store // the bytes of VDIs, by uuid
	world     *classes.World    // what VMs, disks and devices do
	temporary bool              // the data directory is ours to remove
	tls       *authority
	hosts     map[string]*hostServer // by host reference
	port      int
}

// hostServer is the web server of one host.
type hostServer struct {
	server   *httpd.Server
	listener net.Listener
	address  string
}

// New makes a pool. Start lets it serve.
func New(o Options) (*Pool, error) {
	if o.Profile == "" {
		o.Profile = "24.19"
	}
	if o.Hosts == 0 {
		o.Hosts = 3
	}
	if o.State != nil && o.Durations == (Durations{}) {
		o.Durations = RecordedDurations
	}
	model, err := datamodel.Load(o.Profile)
	if err != nil {
		return nil, err
	}
	p := &Pool{Pool: xapi.NewPool(model, xapi.NewClock(o.ClockScale)), options: o, hosts: map[string]*hostServer{}}
	p.Password = o.Password
	if o.User != "" {
		p.User = o.User
	}
	if o.Logf != nil {
		p.Logf = o.Logf
	}
	if err := p.prepare(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Pool) prepare() error {
	if p.options.DataDir == "" {
		dir, err := os.MkdirTemp("", "xensim-")
		if err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
		p.options.DataDir, p.temporary = dir, true
	}
	if err := os.MkdirAll(p.options.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	var err error
	if p.disks, err = blockstore.Open(filepath.Join(p.options.DataDir, "disks")); err != nil {
		return err
	}
	if err := p.load(); err != nil {
		return err
	}
	p.HostDies = p.KillHost
	p.SetFaults(p.options.Faults)
	registerControl(p)
	registerGeneral(p)
	registerClasses(p)
	return registerTransfers(p)
}

func (p *Pool) load() error {
	p.Lock()
	defer p.Unlock()
	if p.options.State != nil {
		if err := p.DB().Load(p.options.State); err != nil {
			return err
		}
	} else if err := demoPool(p.Pool, p.options.Hosts); err != nil {
		return err
	}
	p.claimVersion()
	p.Started()
	p.DB().Settle(xapi.NewRef())
	return nil
}

// claimVersion lets the hosts say what version they are of, where the profile is not that of the recorded state
// (datamodel_common.ml, api_version.ml).
func (p *Pool) claimVersion() {
	if p.options.Profile != "26.17" {
		return
	}
	for _, ref := range p.DB().Refs("host") {
		version := maps.Clone(p.DB().Get("host", ref).Map("software_version"))
		maps.Copy(version, map[string]string{"xapi": "26.17", "xapi_build": "26.17.0", "xencenter_min": "2.23",
			"xencenter_max": "2.23", "db_schema": "5.909"})
		p.Set("host", ref, db.Fields{"API_version_minor": int64(23), "software_version": version})
	}
}

// Start serves at the address, host:port with port 0 for any. The coordinator listens there; each other host listens
// at the same port of the next loopback address (127.0.0.2, …), as clients who follow HOST_IS_SLAVE keep the port.
// It gives the coordinator's URL.
func (p *Pool) Start(addr string) (string, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("listen address: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return "", fmt.Errorf("listen address: %w", err)
	}
	for attempt := 0; ; attempt++ {
		err := p.listen(host, port)
		if err == nil {
			break
		}
		p.stopListening()
		if port != 0 || attempt == 20 {
			return "", err
		}
	}
	scheme := "https"
	if p.options.HTTP {
		scheme = "http"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(p.port)), nil
}

// listen opens a listener for every host and serves.
func (p *Pool) listen(host string, port int) error {
	p.Lock()
	coordinator := p.Coordinator()
	refs := slices.Clone(p.DB().Refs("host"))
	refs = slices.DeleteFunc(refs, func(ref string) bool { return ref == coordinator })
	slices.SortFunc(refs, func(a, b string) int {
		return cmp.Compare(p.DB().Get("host", a).Str("name_label"), p.DB().Get("host", b).Str("name_label"))
	})
	refs = slices.Insert(refs, 0, coordinator)
	p.Unlock()
	addresses, err := hostAddresses(host, len(refs))
	if err != nil {
		return err
	}
	if !p.options.HTTP && p.tls == nil {
		if p.tls, err = newAuthority(p.options.DataDir, addresses); err != nil {
			return err
		}
	}
	for i, ref := range refs {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(addresses[i], strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("listen for a host: %w", err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		p.hosts[ref] = &hostServer{server: httpd.NewServer(), listener: l, address: addresses[i]}
	}
	p.port = port
	p.serve(refs)
	return nil
}

func (p *Pool) serve(refs []string) {
	for _, ref := range refs {
		h := p.hosts[ref]
		p.Lock()
		p.Set("host", ref, db.Fields{"address": h.address})
		p.Unlock()
		p.Mount(h.server, ref)
		l := h.listener
		if !p.options.HTTP {
			l = p.tls.wrap(l)
		}
		go h.server.Serve(l)
	}
}

// hostAddresses gives each host an address: the first as asked, the others counting on.
func hostAddresses(first string, n int) ([]string, error) {
	out := []string{first}
	ip := net.ParseIP(first).To4()
	if n > 1 && ip == nil {
		return nil, fmt.Errorf("a pool of %d hosts needs an IPv4 address to count on from, not %q", n, first)
	}
	for i := 1; i < n; i++ {
		next := net.IPv4(ip[0], ip[1], ip[2], ip[3]+byte(i))
		out = append(out, next.String())
	}
	return out, nil
}

func (p *Pool) stopListening() {
	for ref, h := range p.hosts {
		_ = h.listener.Close()
		h.server.Close()
		delete(p.hosts, ref)
	}
}

// Port is the port that all hosts listen at.
func (p *Pool) Port() int { return p.port }

// DataDir is the directory of the pool's disks.
func (p *Pool) DataDir() string { return p.options.DataDir }

// CACert gives the certificate of the authority that signed the hosts' certificates, in PEM; nil with plain HTTP.
func (p *Pool) CACert() []byte {
	if p.tls == nil {
		return nil
	}
	return p.tls.pem
}

// Close ends the pool. Nothing it started runs on.
func (p *Pool) Close() {
	for _, h := range p.hosts {
		_ = h.listener.Close()
	}
	for _, h := range p.hosts {
		h.server.DropConnections()
	}
	p.Pool.Close()
	p.stopListening()
	if p.disks != nil {
		_ = p.disks.Close() // what is left of them is useless without the process
	}
	if p.temporary {
		_ = os.RemoveAll(p.options.DataDir)
	}
}

// Records gives all objects of a class: fields by name, with Go values (string, int64, float64, bool, time.Time,
// []string, map[string]string).
func (p *Pool) Records(class string) map[string]map[string]any {
	p.Lock()
	defer p.Unlock()
	out := map[string]map[string]any{}
	for _, ref := range p.DB().Refs(class) {
		out[ref] = p.DB().Get(class, ref).Fields()
	}
	return out
}

// Update writes fields of an object behind the clients' backs; they see it in events.
func (p *Pool) Update(class, ref string, fields map[string]any) error {
	p.Lock()
	defer p.Unlock()
	c := p.Model.Class(class)
	if c == nil {
		return fmt.Errorf("no class %q", class)
	}
	for name := range fields {
		if c.Field(name) == nil {
			return fmt.Errorf("class %s has no field %q", class, name)
		}
	}
	if !p.DB().Update(class, ref, fields) {
		return xapi.HandleInvalid(class, ref)
	}
	return nil
}

// Insert adds an object behind the clients' backs and gives its reference.
func (p *Pool) Insert(class string, fields map[string]any) (string, error) {
	p.Lock()
	defer p.Unlock()
	c := p.Model.Class(class)
	if c == nil {
		return "", fmt.Errorf("no class %q", class)
	}
	for name := range fields {
		if c.Field(name) == nil {
			return "", fmt.Errorf("class %s has no field %q", class, name)
		}
	}
	return p.Create(class, fields), nil
}

// Dump writes the pool's objects in the form that Options.State reads.
func (p *Pool) Dump(w io.Writer) error {
	p.Lock()
	defer p.Unlock()
	return p.DB().Dump(w)
}

// ReadFaults reads a fault plan: a JSON array of faults.
func ReadFaults(r io.Reader) ([]Fault, error) {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	var plan []Fault
	if err := decoder.Decode(&plan); err != nil {
		return nil, fmt.Errorf("read fault plan: %w", err)
	}
	return plan, nil
}

// RestartToolstack restarts xapi: sessions, tasks and connections are lost, guests run on. The generation of the
// database falls back by rewind, so that clients may hold tokens from the future.
func (p *Pool) RestartToolstack(rewind int64) {
	p.Restart(rewind)
	for _, h := range p.hosts {
		h.server.DropConnections()
	}
}

// registerControl adds the paths by which a test looks at the simulator from outside: the calls that were made, and
// the fault plan. They are not part of the XenAPI.
func registerControl(p *Pool) {
	p.HandleHTTP("GET", "/xensim/calls", "", func(x *xapi.Exchange) error {
		return writeJSON(x, p.CallCounts())
	})
	p.HandleHTTP("GET", "/xensim/calls/log", "", func(x *xapi.Exchange) error {
		after, err := strconv.Atoi(cmp.Or(x.Query.Get("after"), "0"))
		if err != nil {
			return fmt.Errorf("after: %w", err)
		}
		calls := p.Calls()
		return writeJSON(x, calls[min(max(after, 0), len(calls)):])
	})
	p.HandleHTTP("PUT", "/xensim/calls", "", func(x *xapi.Exchange) error {
		p.ResetCalls()
		return writeJSON(x, p.CallCounts())
	})
	p.HandleHTTP("GET", "/xensim/faults", "", func(x *xapi.Exchange) error {
		return writeJSON(x, p.Faults())
	})
	p.HandleHTTP("PUT", "/xensim/faults", "", func(x *xapi.Exchange) error {
		plan, err := ReadFaults(x.Body())
		if err != nil {
			return err
		}
		p.SetFaults(plan)
		return writeJSON(x, p.Faults())
	})
}

func writeJSON(x *xapi.Exchange, v any) error {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return x.Respond(out.Bytes(), httpd.Header{Name: "content-type", Value: "application/json"})
}

// errNoHost is for a host that the pool does not have.
var errNoHost = errors.New("no such host")

// hostByName finds a host by reference, uuid or name.
func (p *Pool) hostByName(name string) (string, error) {
	for _, ref := range p.DB().Refs("host") {
		h := p.DB().Get("host", ref)
		if ref == name || h.Str("uuid") == name || strings.EqualFold(h.Str("name_label"), name) {
			return ref, nil
		}
	}
	return "", fmt.Errorf("%w: %q", errNoHost, name)
}

// SetCoordinator makes another host the coordinator, as after the death of the old one: sessions and tasks are lost,
// and the hosts answer HOST_IS_SLAVE with the new address.
func (p *Pool) SetCoordinator(host string) error {
	p.Lock()
	ref, err := p.hostByName(host)
	if err == nil {
		p.Set("pool", p.PoolRef(), db.Fields{"master": ref})
	}
	p.Unlock()
	if err != nil {
		return err
	}
	p.RestartToolstack(0)
	return nil
}

// KillHost lets a host die: its connections break, nobody listens there, and the pool finds it dead when its patience
// with the host's silence ends.
func (p *Pool) KillHost(host string) error {
	p.Lock()
	defer p.Unlock()
	ref, err := p.hostByName(host)
	if err != nil {
		return err
	}
	p.silence(ref)
	p.After(hostPatience, func() {
		p.Set("host_metrics", p.DB().Get("host", ref).Str("metrics"), db.Fields{"live": false})
	})
	return nil
}

// silence takes a host off the network; the pool must be locked.
func (p *Pool) silence(ref string) {
	if h := p.hosts[ref]; h != nil {
		_ = h.listener.Close()
		h.server.DropConnections()
	}
}

// revive puts a host that was silenced back on the network; the pool must be locked.
func (p *Pool) revive(ref string) error {
	h := p.hosts[ref]
	if h == nil {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(h.address, strconv.Itoa(p.port)))
	if err != nil {
		return fmt.Errorf("listen for a host: %w", err)
	}
	h.listener = l
	if !p.options.HTTP {
		l = p.tls.wrap(l)
	}
	go h.server.Serve(l)
	return nil
}

// hostPatience is how long a host may be silent before the pool calls it dead (xapi_globs.ml, host_assumed_dead_interval).
const hostPatience = 10 * time.Minute

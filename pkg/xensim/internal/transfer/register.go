package transfer

import (
	"fmt"
	"net/url"
	"slices"
	"sync"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Options are what transfers need of their surroundings.
type Options struct {
	// Disks are the bytes of VDIs, by uuid.
	Disks *blockstore.Store
	// Attach plugs a VDI into the control domain, in mode RO or RW. The pool is locked when it and detach are called.
	Attach func(vdi, mode string) (detach func(), err error)
	// BaseURL is where a host is reached from outside, for redirects: scheme, address and port.
	BaseURL func(host string) string
	// VNC is the address of a VNC server that all graphical consoles show, in place of the built-in screen.
	VNC string
	// WebSocket says that consoles are reached by WebSocket too. The recorded server had no proxy for it.
	WebSocket bool
	// QCOW2 says that disks travel as qcow2 too, which they do from 26.15 on.
	QCOW2 bool
}

// service is the transfers of one pool.
type service struct {
	*xapi.Pool
	Options

	mu      sync.Mutex // covers screens and viewers
	screens map[string]*sharedScreen
	viewers map[string][]string // names of the users who look at a VM's console, by the VM's reference
}

// Register registers the handlers. The realms are those that a real one names in 401 answers.
func Register(p *xapi.Pool, o Options) {
	s := &service{Pool: p, Options: o, screens: map[string]*sharedScreen{}, viewers: map[string][]string{}}
	p.HandleHTTP("GET", "/export_raw_vdi", "get_export_raw_vdi", s.exportRawVDI)
	p.HandleHTTP("PUT", "/import_raw_vdi", "put_import_raw_vdi", s.importRawVDI)
	p.HandleHTTP("GET", "/export", "get_export", s.exportVM)
	p.HandleHTTP("GET", "/export_metadata", "get_export_metadata", s.exportMetadata)
	p.HandleHTTP("PUT", "/import", "put_import", s.importVM)
	p.HandleHTTP("PUT", "/import_metadata", "put_import_metadata", s.importMetadata)
	p.HandleHTTP("CONNECT", "/console", "connect_console", s.connectConsole)
	p.HandleHTTP("GET", "/console", "connect_console_ws", s.webSocketConsole)
	p.HandleHTTP("GET", "/vncsnapshot", "get_vncsnapshot", s.vncSnapshot)
	p.HandleHTTP("GET", "/rrd_updates", "rrd_updates", s.rrdUpdates)
	p.HandleHTTP("GET", "/vm_rrd", "vm_rrd", missing)
	p.HandleHTTP("GET", "/host_rrd", "host_rrd", missing)
}

// missing is for round-robin databases: the simulator measures nothing.
func missing(x *xapi.Exchange) error { return respondBare(x, 404, "Not Found") }

// respondBare writes a head without a body, as a real one does where it gives up early (http.ml, http_404_missing and its
// neighbours).
func respondBare(x *xapi.Exchange, status int, reason string, more ...httpd.Header) error {
	x.Close = true
	headers := append([]httpd.Header{{Name: "Connection", Value: "close"}, {Name: "Cache-Control", Value: "no-cache, no-store"}}, more...)
	return x.WriteHead(status, reason, headers...)
}

// badHandle is how the database of a real one names an object that is not there, as text in a 500 page.
func badHandle(class, uuid string) error {
	return fmt.Errorf("Db_exn.Read_missing_uuid(%q, %q, %q)", class, "", uuid)
}

// find resolves a parameter that is a reference or a uuid. The pool is locked.
func (s *service) find(class, value string) (db.Record, string, error) {
	if r := s.DB().Get(class, value); r.Exists() {
		return r, value, nil
	}
	ref, ok := s.DB().ByUUID(class, value)
	if !ok {
		return db.Record{}, "", badHandle(class, value)
	}
	return s.DB().Get(class, ref), ref, nil
}

// sees tells whether a host has a storage repository plugged. The pool is locked.
func (s *service) sees(host, sr string) bool {
	repository := s.DB().Get("SR", sr)
	if !repository.Exists() {
		return false
	}
	for _, ref := range repository.Strs("PBDs") {
		if pbd := s.DB().Get("PBD", ref); pbd.Exists() && pbd.Str("host") == host && pbd.Bool("currently_attached") {
			return true
		}
	}
	return false
}

// elsewhere finds out whether another host must do it, because this one does not see a storage repository: the location to
// go to, empty when this host sees them all.
func (s *service) elsewhere(x *xapi.Exchange, repositories ...string) (string, error) {
	s.Lock()
	defer s.Unlock()
	seesAll := func(host string) bool {
		return !slices.ContainsFunc(repositories, func(sr string) bool { return !s.sees(host, sr) })
	}
	if seesAll(x.Host) {
		return "", nil
	}
	for _, host := range s.DB().Refs("host") {
		if s.DB().Get("host", host).Bool("enabled") && seesAll(host) {
			location := url.URL{Path: x.Path, RawQuery: x.Query.Encode()}
			return s.BaseURL(host) + location.String(), nil
		}
	}
	return "", shown(xapi.Fail("NO_HOSTS_AVAILABLE"))
}

// redirect sends the client to another host, unless looking for one has failed.
func redirect(x *xapi.Exchange, location string, err error) error {
	if err != nil {
		return err
	}
	return respondBare(x, 302, "Found", httpd.Header{Name: "Location", Value: location})
}

package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"io"
	"net"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/rfb"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// errConsole is the exception without a text that a real one raises when there is no console to be had (console.ml).
var errConsole = errors.New("Console.Failure")

// consoleOf finds the console that a request is for: one that is named, or the graphical one of a VM that is named. The VM
// must run on the host that was asked. The pool is locked.
func (s *service) consoleOf(x *xapi.Exchange) (console, vm db.Record, vmRef string, err error) {
	ref, err := s.consoleRef(x)
	if err != nil {
		return console, vm, "", err
	}
	console = s.DB().Get("console", ref)
	vmRef = console.Str("VM")
	vm = s.DB().Get("VM", vmRef)
	if !vm.Exists() || vm.Str("power_state") != "Running" || vm.Str("resident_on") != x.Host {
		return console, vm, "", errConsole
	}
	return console, vm, vmRef, nil
}

func (s *service) consoleRef(x *xapi.Exchange) (string, error) {
	ref := x.Query.Get("ref")
	if uuid := x.Query.Get("uuid"); uuid != "" {
		var found bool
		if ref, found = s.DB().ByUUID("VM", uuid); !found {
			if ref, found = s.DB().ByUUID("console", uuid); !found {
				return "", badHandle("console", uuid)
			}
		}
	}
	if s.DB().Get("console", ref).Exists() {
		return ref, nil
	}
	if vm := s.DB().Get("VM", ref); vm.Exists() {
		for _, console := range vm.Strs("consoles") {
			if s.DB().Get("console", console).Str("protocol") == "rfb" {
				return console, nil
			}
		}
	}
	return "", errConsole
}

// limited tells whether the pool lets only one user at a time look at a console; servers before 26.1 know no such limit.
// The pool is locked.
func (s *service) limited() bool {
	known := s.Model.Class("pool").Field("limit_console_sessions") != nil
	return known && s.DB().Get("pool", s.PoolRef()).Bool("limit_console_sessions")
}

// connectConsole answers CONNECT /console: 200, and then the console's own protocol on the bare connection.
func (s *service) connectConsole(x *xapi.Exchange) error {
	x.Close = true
	s.Lock()
	console, vm, ref, err := s.consoleOf(x)
	limited := s.limited()
	user := s.userOf(x.Session)
	s.Unlock()
	if err != nil {
		return err
	}
	others, ok := s.enter(ref, user, limited)
	if !ok {
		return refuseViewer(x, ref, others)
	}
	defer s.leave(ref, user)
	x.Version = "1.1" // whatever was asked in (recording 2098)
	err = x.WriteHead(200, "OK", httpd.Header{Name: "Connection", Value: "keep-alive"},
		httpd.Header{Name: "Cache-Control", Value: "no-cache, no-store"})
	if err != nil {
		return nil // the client is gone
	}
	s.show(x, struct {
		io.Reader
		io.WriteCloser
	}{x.Reader, x.Conn}, console, vm, ref)
	return nil
}

// userOf is the name of the user of a session. The pool is locked.
func (s *service) userOf(session string) string {
	if r := s.DB().Get("session", session); r.Exists() && r.Str("auth_user_name") != "" {
		return r.Str("auth_user_name")
	}
	return s.User
}

// enter counts a user among those who look at a VM's console, unless the limit is on and there is one already.
func (s *service) enter(vm, user string, limited bool) (others []string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	others = s.viewers[vm]
	if limited && len(others) > 0 {
		return others, false
	}
	s.viewers[vm] = append(append([]string{}, others...), user)
	return others, true
}

func (s *service) leave(vm, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range s.viewers[vm] {
		if name == user {
			s.viewers[vm] = append(s.viewers[vm][:i:i], s.viewers[vm][i+1:]...)
			break
		}
	}
	if len(s.viewers[vm]) == 0 {
		delete(s.viewers, vm)
	}
}

// refuseViewer names those who are in the way (console.ml, respond_console_limit_exceeded).
func refuseViewer(x *xapi.Exchange, vm string, others []string) error {
	who := fmt.Sprintf("User '%s' is", httpd.Escape(others[0]))
	if len(others) > 1 {
		who = fmt.Sprintf("Users '%s' are", httpd.Escape(strings.Join(others, ", ")))
	}
	x.Error(503, "Connection Limit Exceeded", fmt.Sprintf("<h1>Connection Limit Exceeded</h1><p>%s currently connected to this "+
		"console (VM %s). No more connections are allowed when limit_console_sessions is enabled.</p>", who, vm))
	return nil
}

// show lets a viewer look at a console until one of them is gone: a console ends when its VM stops or moves.
func (s *service) show(x *xapi.Exchange, conn io.ReadWriteCloser, console, vm db.Record, ref string) {
	ctx, cancel := context.WithCancel(x.Context)
	defer cancel()
	graphical := console.Str("protocol") == "rfb"
	shared, release := s.screen(ref, vm)
	defer release()
	go func() {
		defer cancel()
		s.follow(ctx, console.Str("uuid"), ref, vm.Int("domid"), shared)
	}()
	var err error
	switch {
	case graphical && s.VNC != "":
		err = rfb.Relay(ctx, conn, s.VNC)
	case graphical:
		err = rfb.Serve(ctx, conn, shared, vm.Str("name_label"))
	default:
		err = rfb.ServeVT100(ctx, conn, shared)
	}
	var broken net.Error
	if err != nil && !errors.As(err, &broken) {
		s.Logf("console of %s: %v", vm.Str("name_label"), err)
	}
}

// sharedScreen is a VM's screen and how many look at it.
type sharedScreen struct {
	*rfb.Screen
	users int
}

// screen gives the screen of a VM as it runs now: another boot has another screen.
func (s *service) screen(ref string, vm db.Record) (*rfb.Screen, func()) {
	s.Lock()
	text := s.screenText(vm)
	s.Unlock()
	key := fmt.Sprintf("%s %d", ref, vm.Int("domid"))
	s.mu.Lock()
	defer s.mu.Unlock()
	shared := s.screens[key]
	if shared == nil {
		shared = &sharedScreen{Screen: rfb.NewScreen(text)}
		s.screens[key] = shared
	}
	shared.users++
	return shared.Screen, func() { s.forgetScreen(key, ref, vm.Int("domid")) }
}

// forgetScreen lets a screen go that nobody looks at and whose VM does not run any more.
func (s *service) forgetScreen(key, ref string, domid int64) {
	s.Lock()
	vm := s.DB().Get("VM", ref)
	runs := vm.Exists() && vm.Int("domid") == domid
	s.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if shared := s.screens[key]; shared != nil {
		if shared.users--; shared.users == 0 && !runs {
			delete(s.screens, key)
		}
	}
}

// follow keeps the screen up to date, and returns when the console is gone, when its domain is, or when the context ends. A reboot keeps the
// console's record but not the domain behind it, so a stream does not outlive it.
func (s *service) follow(ctx context.Context, console, ref string, domid int64, screen *rfb.Screen) {
	var shown string
	for {
		s.Lock()
		_, exists := s.DB().ByUUID("console", console)
		vm := s.DB().Get("VM", ref)
		exists = exists && vm.Exists() && vm.Int("domid") == domid
		var text rfb.Text
		if exists {
			text = s.screenText(vm)
		}
		changed := s.Changed()
		s.Unlock()
		if !exists {
			return
		}
		if now := fmt.Sprint(text); now != shown {
			shown = now
			screen.Show(text)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// screenText is what a VM's screen says. The pool is locked.
func (s *service) screenText(vm db.Record) rfb.Text {
	state := vm.Str("power_state")
	if host := s.DB().Get("host", vm.Str("resident_on")); host.Exists() {
		state += " on " + host.Str("name_label")
	}
	return rfb.Text{Title: vm.Str("name_label"), Lines: []string{
		"Name         " + vm.Str("name_label"),
		"Power state  " + state,
		"Boot disk    " + s.bootDisk(vm),
		fmt.Sprintf("Memory       %s, vCPUs %d", inBytes(vm.Int("memory_dynamic_max")), vm.Int("VCPUs_at_startup")),
	}}
}

// bootDisk names what the VM boots from: the CD when it comes first in the boot order and holds something, else the disk
// with the lowest position. The pool is locked.
func (s *service) bootDisk(vm db.Record) string {
	fromCD := strings.HasPrefix(vm.Map("HVM_boot_params")["order"], "d")
	best, bestPosition, found := db.Record{}, 0, false
	for _, ref := range vm.Strs("VBDs") {
		vbd := s.DB().Get("VBD", ref)
		position := 1000
		_, _ = fmt.Sscan(vbd.Str("userdevice"), &position) // what is no number stands last
		if vbd.Bool("empty") || (vbd.Str("type") == "CD" && !fromCD) {
			continue
		}
		if vbd.Str("type") == "CD" {
			position -= 10000
		}
		if !found || position < bestPosition {
			best, bestPosition, found = vbd, position, true
		}
	}
	if !found {
		return "none"
	}
	vdi := s.DB().Get("VDI", best.Str("VDI"))
	if !vdi.Exists() {
		return best.Str("device")
	}
	return strings.TrimSpace(fmt.Sprintf("%s  %s  %s", best.Str("device"), vdi.Str("name_label"), inBytes(vdi.Int("virtual_size"))))
}

// inBytes writes a size for people.
func inBytes(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// vncSnapshot answers GET /vncsnapshot: the screen as a JPEG.
func (s *service) vncSnapshot(x *xapi.Exchange) error {
	x.Close = true
	s.Lock()
	_, vm, ref, err := s.consoleOf(x)
	s.Unlock()
	if err != nil {
		return err
	}
	screen, release := s.screen(ref, vm)
	defer release()
	var out bytes.Buffer
	if err := jpeg.Encode(&out, screen.Picture(), nil); err != nil {
		return fmt.Errorf("encode screen: %w", err)
	}
	return x.Respond(out.Bytes(), httpd.Header{Name: "content-type", Value: "image/jpeg"})
}

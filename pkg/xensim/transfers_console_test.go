package xensim

import (
	"bufio"
	"context"
	"fmt"
	"image"
	_ "image/jpeg"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// running makes a VM that runs, with a disk to boot from.
func (r *rig) running(name string) string {
	r.t.Helper()
	vm, _ := r.machine(name, sparse(4*mib))
	r.call("VM.start", vm, false, false)
	return vm
}

// console gives the uuid of a VM's console of a protocol.
func (r *rig) console(vm, protocol string) string {
	r.t.Helper()
	consoles, _ := r.field("VM", vm, "consoles").([]string)
	for _, ref := range consoles {
		if r.field("console", ref, "protocol") == protocol {
			uuid, _ := r.field("console", ref, "uuid").(string)
			return uuid
		}
	}
	r.t.Fatalf("no %s console among %v", protocol, consoles)
	return ""
}

// connect opens a console and gives the connection behind the head of the answer, or what was answered in its place.
func (r *rig) connect(version, query string) (net.Conn, *bufio.Reader, string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "CONNECT /console?%s&session_id=%s HTTP/%s\r\n\r\n", query, r.session, version); err != nil {
		r.t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	status, err := reader.ReadString('\n')
	if err != nil {
		r.t.Fatal(err)
	}
	for line := ""; line != "\r\n"; {
		if line, err = reader.ReadString('\n'); err != nil {
			r.t.Fatal(err)
		}
	}
	return conn, reader, strings.TrimSpace(status)
}

func (r *rig) greeted(reader io.Reader) {
	r.t.Helper()
	greeting := make([]byte, 12)
	if _, err := io.ReadFull(reader, greeting); err != nil || string(greeting) != "RFB 003.008\n" {
		r.t.Errorf("greeting %q (%v)", greeting, err)
	}
}

func TestConsoleIsFoundByEveryName(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm := r.running("web")
	console := r.console(vm, "rfb")
	ref := r.ref("console.get_by_uuid", console)
	uuid, _ := r.field("VM", vm, "uuid").(string)
	for _, query := range []string{"uuid=" + console, "ref=" + ref, "uuid=" + uuid, "ref=" + vm} {
		_, reader, status := r.connect("1.0", query)
		if status != "HTTP/1.1 200 OK" {
			t.Errorf("%s: %s", query, status)
			continue
		}
		r.greeted(reader)
	}
}

func TestConsoleEndsWithTheVM(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm := r.running("web")
	console := r.console(vm, "rfb")
	_, reader, _ := r.connect("1.1", "uuid="+console)
	r.greeted(reader)
	r.call("VM.hard_shutdown", vm)
	if rest, err := io.ReadAll(reader); err != nil || len(rest) != 0 {
		t.Errorf("%q and %v after the VM stopped", rest, err)
	}
	if _, _, status := r.connect("1.0", "uuid="+console); status != "HTTP/1.0 500 Internal Error" {
		t.Errorf("the console of a halted VM: %s", status)
	}
}

func TestConsoleIsOnTheVMsHost(t *testing.T) {
	r := newRig(t, Options{Hosts: 2})
	vm := r.running("web")
	hosts := r.Records("host")
	here := r.field("VM", vm, "resident_on")
	for ref, host := range hosts {
		conn, err := net.Dial("tcp", fmt.Sprintf("%v:%d", host["address"], r.Port()))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "CONNECT /console?ref=%s&session_id=%s HTTP/1.0\r\n\r\n", vm, r.session)
		line, err := bufio.NewReader(conn).ReadString('\n')
		_ = conn.Close()
		if answered := strings.Contains(line, "200"); err != nil || answered != (ref == here) {
			t.Errorf("host %v, where the VM is: %v, answers %q (%v)", host["name_label"], ref == here, line, err)
		}
	}
}

func TestTextConsole(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm := r.running("web")
	conn, reader, _ := r.connect("1.0", "uuid="+r.console(vm, "vt100"))
	if _, err := io.WriteString(conn, "uptime"); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	for !strings.Contains(seen.String(), "> uptime") || !strings.Contains(seen.String(), "web root") {
		b, err := reader.ReadByte()
		if err != nil {
			t.Fatalf("%v; seen %q", err, seen.String())
		}
		seen.WriteByte(b)
	}
}

// TestARealViewerSeesTheConsole puts gvnccapture in front of /console, as a gateway would.
func TestARealViewerSeesTheConsole(t *testing.T) {
	viewer, err := exec.LookPath("gvnccapture")
	if err != nil {
		t.Fatal("gvnccapture is needed as a VNC client: apt-get install gvncviewer")
	}
	r := newRig(t, Options{Hosts: 1})
	vm := r.running("web")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	console, fromConsole, _ := r.connect("1.1", "ref="+vm)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(console, conn) }()
		_, _ = io.Copy(conn, fromConsole)
		_ = conn.Close()
	}()
	path := filepath.Join(t.TempDir(), "console.png")
	display := listener.Addr().(*net.TCPAddr).Port - 5900
	if out, err := exec.CommandContext(t.Context(), viewer, fmt.Sprintf("127.0.0.1:%d", display), path).CombinedOutput(); err != nil {
		t.Fatalf("gvnccapture: %v\n%s", err, out)
	}
	if keep := os.Getenv("KEEP_CONSOLE_PICTURE"); keep != "" {
		if content, err := os.ReadFile(path); err != nil || os.WriteFile(keep, content, 0o600) != nil {
			t.Errorf("keep the picture: %v", err)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	picture, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	// Something is written in every line that there should be, and nothing between them.
	for line, written := range map[int]bool{0: true, 1: false, 2: true, 3: true, 4: true, 5: true, 6: false} {
		if got := hasText(picture, line); got != written {
			t.Errorf("text in line %d: %v, want %v", line, got, written)
		}
	}
}

// hasText tells whether a line of the picture, of 13 pixels, has more than one colour.
func hasText(picture image.Image, line int) bool {
	first := picture.At(0, line*13)
	for y := line * 13; y < (line+1)*13; y++ {
		for x := range picture.Bounds().Dx() {
			if picture.At(x, y) != first {
				return true
			}
		}
	}
	return false
}

func TestSnapshotOfTheScreen(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := r.get("/vncsnapshot", "ref", r.running("web")).good(t)
	picture, kind, err := image.Decode(strings.NewReader(string(content)))
	if err != nil || kind != "jpeg" || picture.Bounds().Dx() < 320 {
		t.Errorf("%s of %d bytes (%v)", kind, len(content), err)
	}
}

func TestAnotherServerIsShown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = io.WriteString(conn, "RFB 003.003\n")
			_ = conn.Close()
		}
	}()
	r := newRig(t, Options{Hosts: 1, VNC: listener.Addr().String()})
	_, reader, _ := r.connect("1.1", "ref="+r.running("web"))
	if got, err := io.ReadAll(reader); err != nil || string(got) != "RFB 003.003\n" {
		t.Errorf("%q (%v)", got, err)
	}
}

func (r *rig) webSocket(vm string) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	target := strings.Replace(r.base, "http://", "ws://", 1) + "/console?ref=" + vm + "&session_id=" + r.session
	return websocket.Dial(ctx, target, &websocket.DialOptions{Subprotocols: []string{"binary"}})
}

func TestWebSocketConsole(t *testing.T) {
	r := newRig(t, Options{Hosts: 1, Profile: "26.17"})
	vm := r.running("web")
	socket, _, err := r.webSocket(vm)
	if err != nil {
		t.Fatal(err)
	}
	if socket.Subprotocol() != "binary" {
		t.Errorf("sub-protocol %q", socket.Subprotocol())
	}
	conn := websocket.NetConn(t.Context(), socket, websocket.MessageBinary)
	r.greeted(conn)
	if _, err := io.WriteString(conn, "RFB 003.003\n"); err != nil {
		t.Fatal(err)
	}
	none := make([]byte, 4)
	if _, err := io.ReadFull(conn, none); err != nil || none[3] != 1 {
		t.Errorf("security %v (%v)", none, err)
	}
	r.call("VM.hard_shutdown", vm)
	if _, err := io.ReadAll(conn); err != nil && r.t.Context().Err() == nil && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("after the VM stopped: %v", err)
	}
}

func TestNoWebSocketWithoutAProxy(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	_, answer, err := r.webSocket(r.running("web"))
	if err == nil || answer == nil || answer.StatusCode != http.StatusNotImplemented {
		t.Errorf("%v (%v), want 501", answer, err)
	}
}

// TestConsoleSessionLimit shows what a pool does that lets one user at a time look at a console: the second gets 503 with
// the name of the first, and WebSockets get 503 altogether.
func TestConsoleSessionLimit(t *testing.T) {
	r := newRig(t, Options{Hosts: 1, Profile: "26.17"})
	vm := r.running("web")
	if err := r.Update("pool", r.ref("pool.get_by_uuid", r.poolUUID()), map[string]any{"limit_console_sessions": true}); err != nil {
		t.Fatal(err)
	}
	first, reader, _ := r.connect("1.1", "ref="+vm)
	r.greeted(reader)
	if _, _, status := r.connect("1.1", "ref="+vm); status != "HTTP/1.1 503 Connection Limit Exceeded" {
		t.Errorf("the second: %s", status)
	}
	if _, answer, err := r.webSocket(vm); err == nil || answer == nil || answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a WebSocket: %v (%v)", answer, err)
	}
	_ = first.Close()
	deadline := time.Now().Add(20 * time.Second)
	for status := ""; status != "HTTP/1.1 200 OK"; {
		if _, _, status = r.connect("1.1", "ref="+vm); time.Now().After(deadline) {
			t.Fatalf("after the first left: %s", status)
		}
	}
}

func (r *rig) poolUUID() string {
	for _, pool := range r.Records("pool") {
		uuid, _ := pool["uuid"].(string)
		return uuid
	}
	return ""
}

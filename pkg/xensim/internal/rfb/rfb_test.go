package rfb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/rfb"
)

var shown = rfb.Text{
	Title: "web-1",
	Lines: []string{"Power state  Running", "Boot disk    xvda  web-1 root  50.0 GiB"},
}

// client is the least that an RFB viewer needs.
type client struct {
	t      *testing.T
	conn   net.Conn
	width  int
	height int
	bytes  int // per pixel
	pixels map[image.Point]string
}

// serve lets a server loose on one end of a pipe.
func serve(t *testing.T, server func(ctx context.Context, conn io.ReadWriteCloser) error) net.Conn {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	near, far := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- server(ctx, far) }()
	t.Cleanup(func() {
		cancel()
		_ = near.Close()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	if err := near.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return near
}

func look(t *testing.T, screen *rfb.Screen, version string) *client {
	t.Helper()
	conn := serve(t, func(ctx context.Context, conn io.ReadWriteCloser) error { return rfb.Serve(ctx, conn, screen, "web-1") })
	c := &client{t: t, conn: conn, bytes: 4, pixels: map[image.Point]string{}}
	if greeting := c.take(12); string(greeting) != "RFB 003.008\n" {
		t.Fatalf("greeting %q", greeting)
	}
	c.send([]byte(version))
	switch version {
	case "RFB 003.003\n":
		c.expect(0, 0, 0, 1)
	default:
		c.expect(1, 1)
		c.send([]byte{1})
		if version != "RFB 003.007\n" {
			c.expect(0, 0, 0, 0)
		}
	}
	c.send([]byte{1})
	hello := c.take(24)
	c.width, c.height = int(binary.BigEndian.Uint16(hello)), int(binary.BigEndian.Uint16(hello[2:]))
	if name := c.take(int(binary.BigEndian.Uint32(hello[20:]))); string(name) != "web-1" {
		t.Fatalf("name %q", name)
	}
	return c
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *client) expect(want ...byte) {
	c.t.Helper()
	if got := c.take(len(want)); !bytes.Equal(got, want) {
		c.t.Fatalf("got %v, want %v", got, want)
	}
}

// request asks for the whole screen and returns the rectangles that came, by their encoding.
func (c *client) request(incremental byte) map[uint32]int {
	c.t.Helper()
	message := []byte{3, incremental, 0, 0, 0, 0}
	message = binary.BigEndian.AppendUint16(message, uint16(c.width))
	c.send(binary.BigEndian.AppendUint16(message, uint16(c.height)))
	head := c.take(4)
	if head[0] != 0 {
		c.t.Fatalf("message %d in place of an update", head[0])
	}
	encodings := map[uint32]int{}
	for range binary.BigEndian.Uint16(head[2:]) {
		r := c.take(12)
		at := func(i int) int { return int(binary.BigEndian.Uint16(r[i:])) }
		area := image.Rect(at(0), at(2), at(0)+at(4), at(2)+at(6))
		encoding := binary.BigEndian.Uint32(r[8:])
		encodings[encoding]++
		if encoding == 0 {
			c.readRaw(area)
		} else {
			c.readRRE(area)
		}
	}
	return encodings
}

func (c *client) readRaw(area image.Rectangle) {
	body := c.take(area.Dx() * area.Dy() * c.bytes)
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			c.pixels[image.Pt(x, y)], body = string(body[:c.bytes]), body[c.bytes:]
		}
	}
}

func (c *client) readRRE(area image.Rectangle) {
	count := binary.BigEndian.Uint32(c.take(4))
	c.fill(area, string(c.take(c.bytes)))
	for range count {
		pixel := string(c.take(c.bytes))
		r := c.take(8)
		at := func(i int) int { return int(binary.BigEndian.Uint16(r[i:])) }
		c.fill(image.Rect(at(0), at(2), at(0)+at(4), at(2)+at(6)).Add(area.Min), pixel)
	}
}

func (c *client) fill(area image.Rectangle, pixel string) {
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			c.pixels[image.Pt(x, y)] = pixel
		}
	}
}

func (c *client) same(other *client) bool {
	for at, pixel := range c.pixels {
		if other.pixels[at] != pixel {
			return false
		}
	}
	return len(c.pixels) == len(other.pixels) && len(c.pixels) == c.width*c.height
}

func (c *client) key(keysym uint32) {
	c.t.Helper()
	for _, down := range []byte{1, 0} {
		c.send(binary.BigEndian.AppendUint32([]byte{4, down, 0, 0}, keysym))
	}
}

func TestAllVersionsShowTheSame(t *testing.T) {
	screen := rfb.NewScreen(shown)
	var first *client
	for _, version := range []string{"RFB 003.003\n", "RFB 003.007\n", "RFB 003.008\n", "RFB 003.889\n"} {
		c := look(t, screen, version)
		c.request(0)
		if first == nil {
			first = c
		}
		if !c.same(first) {
			t.Errorf("%q shows another picture", version)
		}
	}
}

func TestRREShowsWhatRawShows(t *testing.T) {
	screen := rfb.NewScreen(shown)
	raw, rre := look(t, screen, "RFB 003.008\n"), look(t, screen, "RFB 003.008\n")
	rre.send([]byte{2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2})
	if got := raw.request(0); got[0] != 1 {
		t.Errorf("encodings %v without asking for one", got)
	}
	if got := rre.request(0); got[2] != 1 {
		t.Errorf("encodings %v when RRE is wanted", got)
	}
	if !raw.same(rre) {
		t.Error("the pictures differ")
	}
}

func TestTypingReachesEveryViewer(t *testing.T) {
	screen := rfb.NewScreen(shown)
	typist, onlooker := look(t, screen, "RFB 003.008\n"), look(t, screen, "RFB 003.003\n")
	typist.request(0)
	onlooker.request(0)
	typist.send([]byte{6, 0, 0, 0, 0, 0, 0, 3, 'a', 'b', 'c'}) // a clipboard, of which nothing comes
	typist.send([]byte{5, 0, 0, 1, 0, 1})                      // the pointer likewise
	for _, keysym := range []uint32{'h', 'i', 'x', 0xFF08, 0xFF0D, 0x010003B1} {
		typist.key(keysym)
	}
	for !typed(screen, "> hi", "> α_") {
		onlooker.request(1)
	}
	whole := look(t, screen, "RFB 003.008\n")
	whole.request(0)
	for !onlooker.same(whole) {
		onlooker.request(1)
	}
}

// typed tells whether the rows follow each other on the screen.
func typed(screen *rfb.Screen, want ...string) bool {
	rows, _ := screen.Contents()
	return strings.Contains(strings.Join(rows[:], "\n"), strings.Join(want, "\n"))
}

func TestPixelFormats(t *testing.T) {
	screen := rfb.NewScreen(shown)
	reference := look(t, screen, "RFB 003.008\n")
	reference.request(0)
	formats := map[string]struct {
		format []byte
		pixel  string // of the background, 0x101820
	}{
		"RGB565, little-endian": {[]byte{16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0}, "\xc4\x10"},
		"RGB565, big-endian":    {[]byte{16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0}, "\x10\xc4"},
		"BGR888 in 32 bits":     {[]byte{32, 24, 1, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16}, "\x00\x20\x18\x10"},
		"colour map":            {[]byte{8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "\x00"},
	}
	for name, format := range formats {
		t.Run(name, func(t *testing.T) {
			c := look(t, screen, "RFB 003.008\n")
			c.send(append(append([]byte{0, 0, 0, 0}, format.format...), 0, 0, 0))
			if format.format[3] == 0 {
				c.expect(1, 0, 0, 0, 0, 4)
				c.take(4 * 6)
			}
			c.bytes = len(format.pixel)
			c.request(0)
			background := reference.pixels[image.Pt(1, c.height-1)]
			for at, pixel := range c.pixels {
				if (pixel == format.pixel) != (reference.pixels[at] == background) {
					t.Fatalf("pixel %q at %v, where the reference has %q", pixel, at, reference.pixels[at])
				}
			}
		})
	}
}

func TestBadViewersAreTurnedAway(t *testing.T) {
	for name, bytesSent := range map[string]string{
		"no version":       "HTTP/1.1 200",
		"unknown message":  "RFB 003.003\n\x01\x63",
		"huge clipboard":   "RFB 003.003\n\x01\x06\x00\x00\x00\xff\xff\xff\xff",
		"24 bits a pixel":  "RFB 003.003\n\x01\x00\x00\x00\x00\x18\x18\x00\x01\x00\xff\x00\xff\x00\xff\x10\x08\x00\x00\x00\x00",
		"another security": "RFB 003.008\n\x02",
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				go func() { _, _ = io.Copy(io.Discard, near) }()
				_, _ = near.Write([]byte(bytesSent))
			}()
			if err := rfb.Serve(t.Context(), far, rfb.NewScreen(shown), ""); err == nil {
				t.Error("it was served to the end")
			}
		})
	}
}

func TestTerminal(t *testing.T) {
	screen := rfb.NewScreen(shown)
	conn := serve(t, func(ctx context.Context, conn io.ReadWriteCloser) error { return rfb.ServeVT100(ctx, conn, screen) })
	var seen []byte
	await := func(want string) {
		t.Helper()
		buffer := make([]byte, 4096)
		for !bytes.Contains(seen, []byte(want)) {
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("%v; seen %q, want %q", err, seen, want)
			}
			seen = append(seen, buffer[:n]...)
		}
	}
	await("Power state  Running")
	if _, err := conn.Write([]byte("uname\r")); err != nil {
		t.Fatal(err)
	}
	await("> uname")
}

func TestRelay(t *testing.T) {
	for name, prefix := range map[string]string{"tcp": "", "unix": "unix:", "unix, bare path": ""} {
		t.Run(name, func(t *testing.T) {
			network, _, _ := strings.Cut(name, ",")
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "vnc")
			}
			listener, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = listener.Close() }()
			go func() {
				conn, err := listener.Accept()
				if err == nil {
					_, _ = io.WriteString(conn, "RFB 003.008\n")
					_, _ = io.Copy(conn, conn)
				}
			}()
			target := listener.Addr().String()
			if network == "unix" {
				target = prefix + address
			}
			conn := serve(t, func(ctx context.Context, conn io.ReadWriteCloser) error { return rfb.Relay(ctx, conn, target) })
			c := &client{t: t, conn: conn}
			c.take(12)
			c.send([]byte("echo"))
			c.expect([]byte("echo")...)
		})
	}
}

// TestGvnccaptureShowsTheScreen lets a VNC client that nobody here wrote take a picture of the console.
func TestGvnccaptureShowsTheScreen(t *testing.T) {
	path, err := exec.LookPath("gvnccapture")
	if err != nil {
		t.Fatal("gvnccapture is needed as a VNC client: apt-get install gvncviewer")
	}
	screen := rfb.NewScreen(shown)
	screen.Type("hello from the console")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = rfb.Serve(context.Background(), conn, screen, "web-1")
		}
		served <- err
	}()
	target := filepath.Join(t.TempDir(), "console.png")
	display := listener.Addr().(*net.TCPAddr).Port - 5900
	if out, err := exec.CommandContext(t.Context(), path, fmt.Sprintf("127.0.0.1:%d", display), target).CombinedOutput(); err != nil {
		t.Fatalf("gvnccapture: %v\n%s", err, out)
	}
	if err := <-served; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if keep := os.Getenv("KEEP_CONSOLE_PICTURE"); keep != "" {
		content, err := os.ReadFile(target)
		if err == nil {
			err = os.WriteFile(keep, content, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
	compareWithCapture(t, target, screen)
}

// compareWithCapture holds the captured picture against what a raw viewer sees, pixel by pixel.
func compareWithCapture(t *testing.T, path string, screen *rfb.Screen) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	captured, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	c := look(t, screen, "RFB 003.008\n")
	c.request(0)
	if captured.Bounds() != image.Rect(0, 0, c.width, c.height) {
		t.Fatalf("captured %v, want %d×%d", captured.Bounds(), c.width, c.height)
	}
	for at, pixel := range c.pixels {
		want := color.RGBA{pixel[2], pixel[1], pixel[0], 0xFF}
		if got := color.RGBAModel.Convert(captured.At(at.X, at.Y)); got != want {
			t.Fatalf("captured %v at %v, want %v", got, at, want)
		}
	}
}

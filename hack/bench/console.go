package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"golang.org/x/sync/errgroup"
)

// console compares the gateway with Debian's websockify: each a process of its own on loopback, between one client and one guest.
var console = group{
	name:  "console",
	about: "bytes between a browser and a guest: the gateway and websockify in turn",
	run:   runConsole,
}

const (
	streamBytes = 256 << 20
	echoes      = 3000
	idlers      = 1000
	watchers    = 200
)

func runConsole(ctx context.Context, r *report) error {
	guest, err := newGuest()
	if err != nil {
		return err
	}
	defer guest.Close() //nolint:errcheck // the program ends
	ours, err := startRelay(ctx, guest, gatewayProcess)
	if err != nil {
		return err
	}
	defer ours.stop()
	theirs, err := startRelay(ctx, guest, websockifyProcess)
	if err != nil {
		return err
	}
	defer theirs.stop()
	if err := consoleThroughput(ctx, r, ours, theirs); err != nil {
		return err
	}
	if err := consoleLatency(ctx, r, guest, ours, theirs); err != nil {
		return err
	}
	return consoleMemory(ctx, r, guest)
}

func consoleThroughput(ctx context.Context, r *report, ours, theirs *relay) error {
	a, b, err := compare(min(r.rounds, 5), side{"gateway", func() error { return ours.stream(ctx) }}, side{"websockify", func() error { return theirs.stream(ctx) }})
	if err != nil {
		return err
	}
	rate := func(c cost) float64 { return streamBytes / (1 << 20) / (c.milliseconds / 1000) }
	r.add(row{
		Name: "console.throughput", Value: rate(a), Unit: "MiB/s", Against: rate(b), Ratio: rate(a) / rate(b), N: min(r.rounds, 5),
		Note: "from the guest to the browser", goal: atLeast(3),
	})
	return nil
}

// consoleLatency takes what a byte's way there and back costs more than on a bare connection.
func consoleLatency(ctx context.Context, r *report, guest *guest, ours, theirs *relay) error {
	bare, err := guest.echo(ctx)
	if err != nil {
		return err
	}
	a, err := ours.echo(ctx)
	if err != nil {
		return err
	}
	b, err := theirs.echo(ctx)
	if err != nil {
		return err
	}
	for _, at := range []struct {
		name string
		p    float64
		goal goal
	}{{"console.latency.p50", 0.5, goal{}}, {"console.latency.p99", 0.99, atMost(0.5)}} {
		added, theirsAdded := percentile(a, at.p)-percentile(bare, at.p), percentile(b, at.p)-percentile(bare, at.p)
		r.add(row{
			Name: at.name, Value: added, Unit: "µs", Against: theirsAdded, Ratio: added / theirsAdded, N: echoes,
			Note: "added to a round trip of 64 bytes", goal: at.goal,
		})
	}
	return nil
}

// consoleMemory holds many sessions open at a gateway of its own, some of them busy.
func consoleMemory(ctx context.Context, r *report, guest *guest) error {
	gateway, err := startRelay(ctx, guest, gatewayProcess)
	if err != nil {
		return err
	}
	defer gateway.stop()
	ctx, done := context.WithCancel(ctx)
	defer done()
	var sessions errgroup.Group
	open := func(kind byte) error {
		ws, err := gateway.dial(ctx)
		if err != nil {
			return err
		}
		if err := ws.Write(ctx, websocket.MessageBinary, []byte{kind}); err != nil {
			return err
		}
		sessions.Go(func() error {
			for {
				if _, _, err := ws.Read(ctx); err != nil {
					return nil
				}
			}
		})
		return nil
	}
	for range idlers {
		if err := open(guestEcho); err != nil {
			return err
		}
	}
	for range watchers {
		if err := open(guestPicture); err != nil {
			return err
		}
	}
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	peak, err := gateway.peakMemory()
	if err != nil {
		return err
	}
	done()
	r.add(row{
		Name: "console.memory", Value: peak, Unit: "MiB", N: 1, goal: atMost(300),
		Note: fmt.Sprintf("peak of the process with %d idle and %d busy sessions (16 KiB thirty times a second each)", idlers, watchers),
	})
	return sessions.Wait()
}

// What a guest does is said by the first byte that it reads.
const (
	guestStream  = 's' // streamBytes as fast as they go
	guestEcho    = 'e' // what it reads
	guestPicture = 'p' // 16 KiB thirty times a second
)

// guest is the far end of all consoles.
type guest struct{ net.Listener }

func newGuest() (*guest, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &guest{listener}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // nothing is lost
				_ = serveGuest(conn)
			}()
		}
	}()
	return g, nil
}

func serveGuest(conn net.Conn) error {
	var kind [1]byte
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		return err
	}
	switch kind[0] {
	case guestStream:
		block := make([]byte, 64<<10)
		for range streamBytes / len(block) {
			if _, err := conn.Write(block); err != nil {
				return err
			}
		}
		_, err := io.Copy(io.Discard, conn) // until the client has seen it all
		return err
	case guestPicture:
		picture := make([]byte, 16<<10)
		for tick := time.NewTicker(time.Second / 30); ; <-tick.C {
			if _, err := conn.Write(picture); err != nil {
				return err
			}
		}
	default:
		_, err := io.Copy(conn, conn)
		return err
	}
}

// echo measures round trips on a bare connection, in microseconds.
func (g *guest) echo(ctx context.Context) ([]float64, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", g.Addr().String())
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	if _, err := conn.Write([]byte{guestEcho}); err != nil {
		return nil, err
	}
	answer := make([]byte, 64)
	return roundTrips(func(message []byte) error {
		if _, err := conn.Write(message); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, answer)
		return err
	})
}

func roundTrips(trip func([]byte) error) ([]float64, error) {
	message := make([]byte, 64)
	times := make([]float64, 0, echoes)
	for range echoes {
		began := time.Now()
		if err := trip(message); err != nil {
			return nil, err
		}
		times = append(times, float64(time.Since(began))/float64(time.Microsecond))
	}
	slices.Sort(times)
	return times, nil
}

// percentile of sorted values.
func percentile(values []float64, p float64) float64 {
	return values[min(len(values)-1, int(p*float64(len(values))))]
}

// relay is a process that brings WebSockets to the guest.
type relay struct {
	command *exec.Cmd
	url     string
	ours    bool
}

// gatewayProcess is this program again, as a gateway; see consolegateway.go.
func gatewayProcess(address, target string) (*exec.Cmd, string, bool) {
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), gatewayEnv+"="+address+" "+target)
	return command, "ws://" + address + "/console/socket", true
}

func websockifyProcess(address, target string) (*exec.Cmd, string, bool) {
	return exec.Command("websockify", address, target), "ws://" + address + "/websockify", false
}

func startRelay(ctx context.Context, guest *guest, process func(address, target string) (*exec.Cmd, string, bool)) (*relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, err
	}
	one := &relay{}
	one.command, one.url, one.ours = process(address, guest.Addr().String())
	if err := one.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w (Debian's package is of that name)", one.command.Args[0], err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return one, conn.Close()
		}
		<-time.After(20 * time.Millisecond)
	}
	one.stop()
	return nil, fmt.Errorf("%s does not listen", one.command.Args[0])
}

func (l *relay) stop() {
	_ = l.command.Process.Kill()
	_ = l.command.Wait()
}

// dial opens a session up to the point where bytes flow.
func (l *relay) dial(ctx context.Context) (*websocket.Conn, error) {
	ws, _, err := websocket.Dial(ctx, l.url, &websocket.DialOptions{Subprotocols: []string{"binary"}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	if !l.ours {
		return ws, nil
	}
	if err := wsjson.Write(ctx, ws, map[string]string{"token": benchToken}); err != nil {
		return nil, err
	}
	for {
		var said struct {
			State  string `json:"state"`
			Stream int    `json:"stream"`
		}
		if err := wsjson.Read(ctx, ws, &said); err != nil {
			return nil, err
		}
		if said.State == "Connected" {
			return ws, wsjson.Write(ctx, ws, map[string]int{"stream": said.Stream})
		}
	}
}

// stream takes streamBytes from the guest.
func (l *relay) stream(ctx context.Context) error {
	ws, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer ws.CloseNow() //nolint:errcheck // nothing is lost
	if err := ws.Write(ctx, websocket.MessageBinary, []byte{guestStream}); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for left := int64(streamBytes); left > 0; {
		_, message, err := ws.Reader(ctx)
		if err != nil {
			return err
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, message, buffer)
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// echo measures round trips through the relay, in microseconds.
func (l *relay) echo(ctx context.Context) ([]float64, error) {
	ws, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer ws.CloseNow() //nolint:errcheck // nothing is lost
	if err := ws.Write(ctx, websocket.MessageBinary, []byte{guestEcho}); err != nil {
		return nil, err
	}
	return roundTrips(func(message []byte) error {
		if err := ws.Write(ctx, websocket.MessageBinary, message); err != nil {
			return err
		}
		for left := len(message); left > 0; {
			_, answer, err := ws.Read(ctx)
			if err != nil {
				return err
			}
			left -= len(answer)
		}
		return nil
	})
}

// peakMemory is the most that the process had in memory, in MiB.
func (l *relay) peakMemory() (float64, error) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", l.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer status.Close() //nolint:errcheck // it was only read
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("the kernel does not say how much memory the process has")
}

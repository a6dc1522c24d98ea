package main

import (
	"bufio"
	"context"
	"encoding/json"
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

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
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
	echoes      = 1000
	idlers      = 1000
	watchers    = 200
)

func runConsole(ctx context.Context, r *report) error {
	guest, err := newGuest()
	if err != nil {
		return err
	}
	defer guest.Close() // the program ends
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

// latencyRounds is how often the three ways are measured in turn.
const latencyRounds = 9

// consoleLatency takes what a round trip costs more than on a bare connection: the three in turn, medians of the percentiles.
func consoleLatency(ctx context.Context, r *report, guest *guest, ours, theirs *relay) error {
	marks := []struct {
		name string
		p    float64
		goal goal
	}{{"console.latency.p50", 0.5, goal{}}, {"console.latency.p99", 0.99, atMost(0.5)}}
	added, theirsAdded := make([][]float64, len(marks)), make([][]float64, len(marks))
	for range latencyRounds {
		var times [3][]float64
		for i, way := range []func(context.Context) ([]float64, error){guest.echo, ours.echo, theirs.echo} {
			var err error
			if times[i], err = way(ctx); err != nil {
				return err
			}
		}
		for i, mark := range marks {
			bare := percentile(times[0], mark.p)
			added[i] = append(added[i], percentile(times[1], mark.p)-bare)
			theirsAdded[i] = append(theirsAdded[i], percentile(times[2], mark.p)-bare)
		}
	}
	for i, mark := range marks {
		a, b := median(added[i]), median(theirsAdded[i])
		r.add(row{
			Name: mark.name, Value: a, Unit: "µs", Against: b, Ratio: a / b, N: latencyRounds * echoes,
			Note: "added to a round trip of 64 bytes", goal: mark.goal,
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
		conn, err := gateway.dial(ctx)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		sessions.Go(func() error {
			_, _ = io.Copy(io.Discard, conn) // until the end of the measurement
			return nil
		})
		return wsutil.WriteClientBinary(conn, []byte{kind})
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
				defer conn.Close() // nothing is lost
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
	defer conn.Close() // nothing is lost
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

// dial opens a session up to the point where bytes flow. The client is as thin as one can be, so that the relay is what is measured.
func (l *relay) dial(ctx context.Context) (net.Conn, error) {
	conn, ahead, _, err := ws.Dialer{Protocols: []string{"binary"}}.Dial(ctx, l.url)
	if err != nil {
		return nil, err
	}
	reader := bufio.NewReader(conn)
	if ahead != nil {
		reader = ahead
	}
	stream := &session{Conn: conn, reader: reader}
	if !l.ours {
		return stream, nil
	}
	if err := wsutil.WriteClientText(conn, []byte(`{"token":"`+benchToken+`"}`)); err != nil {
		return nil, err
	}
	for {
		text, err := wsutil.ReadServerText(stream)
		if err != nil {
			return nil, err
		}
		var said struct {
			State  string `json:"state"`
			Stream int    `json:"stream"`
		}
		if err := json.Unmarshal(text, &said); err != nil {
			return nil, err
		}
		if said.State == "Connected" {
			return stream, wsutil.WriteClientText(conn, fmt.Appendf(nil, `{"stream":%d}`, said.Stream))
		}
	}
}

// session is a WebSocket's connection, after what the handshake read ahead.
type session struct {
	net.Conn
	reader *bufio.Reader
}

func (s *session) Read(p []byte) (int, error) { return s.reader.Read(p) }

// stream takes streamBytes from the guest, frames' heads included, which are some hundredths of a per cent.
func (l *relay) stream(ctx context.Context) error {
	conn, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // nothing is lost
	if err := wsutil.WriteClientBinary(conn, []byte{guestStream}); err != nil {
		return err
	}
	buffer := make([]byte, 1<<20)
	for left := streamBytes; left > 0; {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// echo measures round trips through the relay, in microseconds.
func (l *relay) echo(ctx context.Context) ([]float64, error) {
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // nothing is lost
	if err := wsutil.WriteClientBinary(conn, []byte{guestEcho}); err != nil {
		return nil, err
	}
	return roundTrips(func(message []byte) error {
		if err := wsutil.WriteClientBinary(conn, message); err != nil {
			return err
		}
		for left := len(message); left > 0; {
			answer, err := wsutil.ReadServerBinary(conn)
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
	defer status.Close() // it was only read
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("the kernel does not say how much memory the process has")
}

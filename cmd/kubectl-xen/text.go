package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// escape ends a text console: Ctrl-], as telnet and virsh have it.
const escape = 0x1d

func newTextCommand(c *cluster) *cobra.Command {
	r := request{kind: v1alpha1.ConsoleText, client: v1alpha1.ConsoleClientBrowser}
	var t trust
	command := &cobra.Command{
		Use:   "text INSTANCE",
		Short: "Use an instance's serial line in this terminal; Ctrl-] ends it",
		Args:  oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			console, err := r.connect(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
				state, err := term.MakeRaw(int(in.Fd()))
				if err != nil {
					return fmt.Errorf("prepare the terminal: %w", err)
				}
				defer func() { _ = term.Restore(int(in.Fd()), state) }()
			}
			return serveText(cmd.Context(), &t, console, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	r.register(command.Flags())
	t.register(command.Flags())
	return command
}

// control is what the gateway says in text frames; see the gateway's own description of them.
type control struct {
	State   string `json:"state,omitempty"`
	Message string `json:"message,omitempty"`
	Cause   string `json:"cause,omitempty"`
	Stream  int    `json:"stream,omitempty"`
	Token   string `json:"token,omitempty"`
}

// serveText joins a terminal and a serial line until the user leaves or the session ends.
func serveText(ctx context.Context, t *trust, console opened, in io.Reader, out, say io.Writer) error {
	config, err := t.config()
	if err != nil {
		return err
	}
	gateway, err := console.gateway()
	if err != nil {
		return err
	}
	gateway.Path = strings.TrimSuffix(gateway.Path, "/") + "/socket"
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	ws, _, err := websocket.Dial(ctx, gateway.String(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}}) //nolint:bodyclose // the body is the connection
	if err != nil {
		return fmt.Errorf("reach the console gateway: %w", err)
	}
	defer ws.CloseNow() //nolint:errcheck // the visit is over
	ws.SetReadLimit(1 << 20)
	if err := wsjson.Write(ctx, ws, control{Token: console.token}); err != nil {
		return fmt.Errorf("show the token: %w", err)
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	go func() {
		if err := keys(ctx, ws, in); err != nil {
			leave(err)
		}
	}()
	err = show(ctx, ws, out, say)
	if errors.Is(context.Cause(ctx), errLeft) {
		return ws.Close(websocket.StatusNormalClosure, "")
	}
	return err
}

// errLeft is the user's Ctrl-].
var errLeft = errors.New("left")

// keys sends what the user types. A script whose input ends goes on reading.
func keys(ctx context.Context, ws *websocket.Conn, in io.Reader) error {
	buffer := make([]byte, 1024)
	for {
		n, err := in.Read(buffer)
		at := bytes.IndexByte(buffer[:n], escape)
		if at >= 0 {
			n, err = at, errLeft
		}
		if n > 0 {
			if err := ws.Write(ctx, websocket.MessageBinary, buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// show prints what the guest says, and tells of its comings and goings.
func show(ctx context.Context, ws *websocket.Conn, out, say io.Writer) error {
	for {
		kind, body, err := ws.Read(ctx)
		if err != nil {
			return fmt.Errorf("the gateway closed the connection: %w", err)
		}
		if kind == websocket.MessageBinary {
			if _, err := out.Write(body); err != nil {
				return err
			}
			continue
		}
		var m control
		if err := json.Unmarshal(body, &m); err != nil {
			return fmt.Errorf("the gateway does not speak as expected: %w", err)
		}
		switch m.State {
		case "Connected":
			_, _ = fmt.Fprint(say, "[connected; Ctrl-] ends]\r\n")
			if err := wsjson.Write(ctx, ws, control{Stream: m.Stream}); err != nil {
				return err
			}
		case "Waiting":
			_, _ = fmt.Fprintf(say, "[waiting: %s]\r\n", m.Message)
		case "Detached":
			_, _ = fmt.Fprint(say, "\r\n[the guest restarts]\r\n")
		case "Ended":
			return errors.New(m.Message)
		}
	}
}

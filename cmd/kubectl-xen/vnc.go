package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/spf13/cobra"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

func newVNCCommand(c *cluster) *cobra.Command {
	r := request{kind: v1alpha1.ConsoleGraphical, client: v1alpha1.ConsoleClientVNC}
	var t trust
	var listen string
	command := &cobra.Command{
		Use:   "vnc INSTANCE",
		Short: "Open a local port for any VNC viewer",
		Long:  "Open a port on this machine; a VNC viewer that connects to it sees the instance's screen, by way of the console gateway. It ends with Ctrl-C.",
		Args:  oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			console, err := r.connect(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			listener, err := new(net.ListenConfig).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return fmt.Errorf("--listen: %w", err)
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "vnc://%s\n", listener.Addr()); err != nil {
				return err
			}
			renew := func(ctx context.Context) (opened, error) { return r.connect(ctx, c, args[0]) }
			return serveVNC(cmd.Context(), listener, (&vncConsole{trust: &t, console: console, renew: renew}).dial, cmd.ErrOrStderr())
		},
	}
	r.register(command.Flags())
	t.register(command.Flags())
	command.Flags().BoolVar(&r.viewOnly, "view-only", false, "only look: no key, pointer or clipboard reaches the guest")
	command.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address of the local port")
	return command
}

// vncConsole is a console that viewers come to again, also after the time to connect.
type vncConsole struct {
	trust *trust
	renew func(context.Context) (opened, error)

	mu      sync.Mutex
	console opened
}

// dial opens the console, with a new token where the one that we have is over.
func (v *vncConsole) dial(ctx context.Context) (net.Conn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	conn, err := v.trust.dialConsole(ctx, v.console)
	if !errors.Is(err, errTokenOver) {
		return conn, err
	}
	console, err := v.renew(ctx)
	if err != nil {
		return nil, err
	}
	v.console = console
	return v.trust.dialConsole(ctx, v.console)
}

// serveVNC gives each viewer a console of its own until ctx ends.
func serveVNC(ctx context.Context, listener net.Listener, dial func(context.Context) (net.Conn, error), say io.Writer) error {
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var viewers sync.WaitGroup
	defer viewers.Wait()
	for {
		viewer, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		viewers.Go(func() {
			if err := join(ctx, viewer, dial); err != nil && ctx.Err() == nil {
				_, _ = fmt.Fprintln(say, "kubectl xen:", err)
			}
		})
	}
}

// join carries bytes between a viewer and a console until either closes.
func join(ctx context.Context, viewer net.Conn, dial func(context.Context) (net.Conn, error)) error {
	defer viewer.Close()
	console, err := dial(ctx)
	if err != nil {
		return err
	}
	shut := func() { _ = viewer.Close(); _ = console.Close() }
	defer shut()
	defer context.AfterFunc(ctx, shut)()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{viewer, console}, {console, viewer}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			shut()
		})
	}
	both.Wait()
	return nil
}

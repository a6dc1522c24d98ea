package rfb

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// ServeVT100 shows the screen on one terminal and types what it types, until the terminal leaves or the context ends. It
// closes the connection.
func ServeVT100(ctx context.Context, conn io.ReadWriteCloser, screen *Screen) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	left := make(chan error, 1)
	go func() { left <- typeFrom(conn, screen) }()
	for {
		rows, changed := screen.Contents()
		if _, err := io.WriteString(conn, terminalText(rows)); err != nil {
			return hangUp(ctx, err)
		}
		select {
		case err := <-left:
			return hangUp(ctx, err)
		case <-changed:
		}
	}
}

// typeFrom types every byte that comes from the terminal.
func typeFrom(conn io.Reader, screen *Screen) error {
	buffer := make([]byte, 256)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			screen.Type(string(buffer[:n]))
		}
		if err != nil {
			return err
		}
	}
}

// terminalText clears the terminal, writes the rows, the bar in reverse, and leaves the cursor where typing goes on.
func terminalText(rows [Rows]string) string {
	var out strings.Builder
	out.WriteString("\x1b[2J\x1b[H")
	last := 0
	for i, row := range rows {
		if row == "" {
			continue
		}
		last = i
		if i == 0 {
			row = "\x1b[7m" + row + "\x1b[0m"
		}
		fmt.Fprintf(&out, "\x1b[%d;1H%s", i+1, strings.TrimSuffix(row, string(cursor)))
	}
	fmt.Fprintf(&out, "\x1b[%d;%dH", last+1, len([]rune(rows[last])))
	return out.String()
}

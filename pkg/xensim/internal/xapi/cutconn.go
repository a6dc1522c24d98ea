package xapi

import (
	"bytes"
	"io"
	"net"
)

// cutConn is a connection that breaks after so many bytes of the answer's body.
type cutConn struct {
	net.Conn
	left   int
	inBody bool
}

func (c *cutConn) Write(b []byte) (int, error) {
	if !c.inBody {
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			return c.Conn.Write(b)
		}
		c.inBody = true
		head := end + 4
		n, err := c.Conn.Write(b[:head])
		if err != nil || head == len(b) {
			return n, err
		}
		m, err := c.Write(b[head:])
		return n + m, err
	}
	if len(b) <= c.left {
		c.left -= len(b)
		return c.Conn.Write(b)
	}
	n, _ := c.Conn.Write(b[:c.left])
	c.left = 0
	_ = c.Conn.Close()
	return n, io.ErrClosedPipe
}

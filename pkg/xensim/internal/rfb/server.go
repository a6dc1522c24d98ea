package rfb

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
)

// ErrProtocol says that a viewer did not keep to the protocol.
var ErrProtocol = errors.New("RFB protocol error")

const (
	// versionOffered is what a XenServer's console greets with (recording 2098).
	versionOffered = "RFB 003.008\n"
	securityNone   = 1

	// maxCutText bounds what a viewer can make the server read as one clipboard, in bytes.
	maxCutText = 1 << 20
)

// viewer is one connection that looks at a screen.
type viewer struct {
	conn   io.ReadWriter
	in     *bufio.Reader
	screen *Screen
	name   string

	format pixelFormat
	rre    bool
	// requested is the area that the viewer waits for an update of; empty when it waits for none.
	requested image.Rectangle
	// whole says that the request wants the area however old the viewer's picture of it is.
	whole bool
	// shown is the viewer's picture as far as it has been sent; the rest is of no colour.
	shown *image.Paletted
}

// Serve shows the screen to one viewer and types what it types, until the viewer leaves or the context ends. The name is
// what viewers put on their window. Serve closes the connection; a viewer that leaves is no error.
func Serve(ctx context.Context, conn io.ReadWriteCloser, screen *Screen, name string) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	v := &viewer{conn: conn, in: bufio.NewReader(conn), screen: screen, name: name, format: nativeFormat, shown: nothing()}
	err := v.handshake()
	if err == nil {
		err = v.run()
	}
	return hangUp(ctx, err)
}

// hangUp tells a connection that ended from one that failed.
func hangUp(ctx context.Context, err error) error {
	left := ctx.Err() != nil || errors.Is(err, io.EOF)
	if left {
		err = nil
	}
	return err
}

func (v *viewer) write(b []byte) error {
	_, err := v.conn.Write(b)
	return err
}

func (v *viewer) take(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(v.in, b)
	return b, err
}

// handshake agrees on a version and on no security, and tells the viewer the screen's size.
func (v *viewer) handshake() error {
	if err := v.write([]byte(versionOffered)); err != nil {
		return err
	}
	answer, err := v.take(len(versionOffered))
	if err != nil {
		return err
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(answer), "RFB %03d.%03d\n", &major, &minor); err != nil {
		return fmt.Errorf("%w: version %q", ErrProtocol, answer)
	}
	if err := v.agreeOnSecurity(major > 3 || minor >= 7, major > 3 || minor >= 8); err != nil {
		return err
	}
	if _, err := v.take(1); err != nil { // shared or not: this screen is always shared
		return err
	}
	hello := binary.BigEndian.AppendUint16(nil, uint16(Width))
	hello = binary.BigEndian.AppendUint16(hello, uint16(Height))
	hello = append(hello, nativeFormat.encode()...)
	hello = binary.BigEndian.AppendUint32(hello, uint32(len(v.name)))
	return v.write(append(hello, v.name...))
}

// agreeOnSecurity offers none. Viewers before 3.7 are told, later ones choose, and those from 3.8 on want a result.
func (v *viewer) agreeOnSecurity(chooses, wantsResult bool) error {
	if !chooses {
		return v.write(binary.BigEndian.AppendUint32(nil, securityNone))
	}
	if err := v.write([]byte{1, securityNone}); err != nil {
		return err
	}
	choice, err := v.take(1)
	if err != nil {
		return err
	}
	if choice[0] != securityNone {
		return fmt.Errorf("%w: security type %d was not offered", ErrProtocol, choice[0])
	}
	if wantsResult {
		return v.write(make([]byte, 4))
	}
	return nil
}

// run answers messages and sends updates as the screen changes.
func (v *viewer) run() error {
	kinds := make(chan byte)
	next := make(chan struct{})
	failed := make(chan error, 1)
	done := make(chan struct{})
	defer close(done)
	go v.readKinds(kinds, next, failed, done)
	for {
		_, changed := v.screen.Contents()
		if err := v.update(); err != nil {
			return err
		}
		select {
		case kind := <-kinds:
			if err := v.answer(kind); err != nil {
				return err
			}
			next <- struct{}{}
		case <-changed:
		case err := <-failed:
			return err
		}
	}
}

// readKinds reads the first byte of each message; the rest is read by run, which then says that it is done with it.
func (v *viewer) readKinds(kinds chan<- byte, next <-chan struct{}, failed chan<- error, done <-chan struct{}) {
	for {
		kind, err := v.in.ReadByte()
		if err != nil {
			failed <- err
			return
		}
		select {
		case kinds <- kind:
		case <-done:
			return
		}
		select {
		case <-next:
		case <-done:
			return
		}
	}
}

// answer reads the rest of a message of the given kind and does what it asks (RFC 6143, 7.5).
func (v *viewer) answer(kind byte) error {
	switch kind {
	case 0:
		return v.setPixelFormat()
	case 2:
		return v.setEncodings()
	case 3:
		return v.updateRequest()
	case 4:
		return v.keyEvent()
	case 5:
		_, err := v.take(5) // the pointer: this screen has none
		return err
	case 6:
		return v.cutText()
	}
	return fmt.Errorf("%w: message type %d", ErrProtocol, kind)
}

func (v *viewer) setPixelFormat() error {
	b, err := v.take(3 + pixelFormatSize)
	if err != nil {
		return err
	}
	if v.format, err = decodePixelFormat(b[3:]); err != nil || v.format.trueColor {
		return err
	}
	colours := []byte{1, 0, 0, 0, 0, byte(len(palette))} // SetColourMapEntries from the first on
	for _, c := range palette {
		r, g, b, _ := c.RGBA()
		for _, level := range []uint32{r, g, b} {
			colours = binary.BigEndian.AppendUint16(colours, uint16(level))
		}
	}
	return v.write(colours)
}

func (v *viewer) setEncodings() error {
	b, err := v.take(3)
	if err != nil {
		return err
	}
	list, err := v.take(4 * int(binary.BigEndian.Uint16(b[1:])))
	if err != nil {
		return err
	}
	v.rre = false
	for ; len(list) > 0; list = list[4:] {
		v.rre = v.rre || binary.BigEndian.Uint32(list) == encodingRRE
	}
	return nil
}

func (v *viewer) updateRequest() error {
	b, err := v.take(9)
	if err != nil {
		return err
	}
	x, y := int(binary.BigEndian.Uint16(b[1:])), int(binary.BigEndian.Uint16(b[3:]))
	width, height := int(binary.BigEndian.Uint16(b[5:])), int(binary.BigEndian.Uint16(b[7:]))
	v.requested = image.Rect(x, y, x+width, y+height).Intersect(image.Rect(0, 0, Width, Height))
	v.whole = b[0] == 0
	return nil
}

func (v *viewer) keyEvent() error {
	b, err := v.take(7)
	if err != nil {
		return err
	}
	if down := b[0] != 0; down {
		v.screen.Type(keyText(binary.BigEndian.Uint32(b[3:])))
	}
	return nil
}

func (v *viewer) cutText() error {
	b, err := v.take(7)
	if err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(b[3:])
	if n > maxCutText {
		return fmt.Errorf("%w: a clipboard of %d bytes", ErrProtocol, n)
	}
	_, err = io.CopyN(io.Discard, v.in, int64(n)) // this guest has no clipboard
	return err
}

// keyText is what a key types, by its X11 keysym.
func keyText(keysym uint32) string {
	switch {
	case keysym >= 0x20 && keysym <= 0x7E, keysym >= 0xA0 && keysym <= 0xFF:
		return string(rune(keysym))
	case keysym >= 0x01000100 && keysym <= 0x0110FFFF:
		return string(rune(keysym - 0x01000000))
	case keysym >= 0xFFB0 && keysym <= 0xFFB9: // the keypad's digits
		return string(rune('0' + keysym - 0xFFB0))
	}
	switch keysym {
	case 0xFF0D, 0xFF8D:
		return "\r"
	case 0xFF08:
		return "\b"
	case 0xFF09:
		return " "
	}
	return ""
}

// update sends what the viewer waits for, if there is something to send.
func (v *viewer) update() error {
	if v.requested.Empty() {
		return nil
	}
	rows, _ := v.screen.Contents()
	canvas := picture(rows)
	areas := v.stale(canvas)
	if len(areas) == 0 {
		return nil
	}
	pixels := v.format.pixels()
	out := []byte{0, 0}
	out = binary.BigEndian.AppendUint16(out, uint16(len(areas)))
	for _, area := range areas {
		out = appendRectangle(out, canvas, area, pixels, v.rre)
		copyArea(v.shown, canvas, area)
	}
	v.requested = image.Rectangle{}
	return v.write(out)
}

// stale are the parts of the requested area that the viewer does not have, by rows.
func (v *viewer) stale(canvas *image.Paletted) []image.Rectangle {
	if v.whole {
		return []image.Rectangle{v.requested}
	}
	var areas []image.Rectangle
	for row := range Rows {
		if area := rowArea(row).Intersect(v.requested); !area.Empty() && differ(canvas, v.shown, area) {
			areas = append(areas, area)
		}
	}
	return areas
}

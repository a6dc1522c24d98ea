package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errRFB is wrapped by every refusal of what a client sends.
var errRFB = errors.New("not the RFB protocol")

// viewOnly passes a client's RFB stream to the guest without its keys, pointer and clipboard. It follows the message boundaries of
// RFC 6143 and the extensions that viewers use, and refuses what it cannot follow: a message that is not understood might be input.
// Encodings that would change the shape of client messages are struck from SetEncodings, so that a server never offers them.
type viewOnly struct {
	guest io.Writer

	step    viewOnlyStep
	pending []byte // the start of a message, until its length is known
	pass    int    // bytes of the current message still to be passed on
	drop    int    // bytes of the current message still to be dropped
	struck  int    // bytes of a SetEncodings list still to be read
	kept    []byte // what stays of it
}

// viewOnlyStep is where in a client's stream the filter stands.
type viewOnlyStep int

const (
	stepVersion viewOnlyStep = iota
	stepSecurity
	stepInit
	stepMessages
)

// Client messages (RFC 6143 section 7.5, and the community's register of extensions).
const (
	msgSetPixelFormat    = 0
	msgSetEncodings      = 2
	msgUpdateRequest     = 3
	msgKeyEvent          = 4
	msgPointerEvent      = 5
	msgClientCutText     = 6
	msgContinuousUpdates = 150
	msgFence             = 248
	msgXVP               = 250
	msgSetDesktopSize    = 251
	msgQEMU              = 255

	encExtendedClipboard    = -0x3f5e1a32 // 0xc0a1e5ce as a signed number
	encExtendedMouseButtons = -316
)

// maxEncodings bounds a SetEncodings list; viewers name some thirty.
const maxEncodings = 1024

func newViewOnly(guest io.Writer) *viewOnly { return &viewOnly{guest: guest} }

// Write takes bytes of the client and writes those that may pass.
func (f *viewOnly) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n, err := f.consume(p)
		if err != nil {
			return total - len(p), err
		}
		p = p[n:]
	}
	return total, nil
}

// consume takes at least one byte of p.
func (f *viewOnly) consume(p []byte) (int, error) {
	switch {
	case f.pass > 0:
		n := min(f.pass, len(p))
		f.pass -= n
		_, err := f.guest.Write(p[:n])
		return n, err
	case f.drop > 0:
		n := min(f.drop, len(p))
		f.drop -= n
		return n, nil
	case f.struck > 0:
		return f.strike(p)
	default:
		f.pending = append(f.pending, p[0])
		return 1, f.decide()
	}
}

// decide looks at the start of what the client says next and settles what happens to the rest of it.
func (f *viewOnly) decide() error {
	switch f.step {
	case stepVersion:
		if len(f.pending) < 12 {
			return nil
		}
		return f.version()
	case stepSecurity:
		if f.pending[0] != 1 {
			return fmt.Errorf("%w: a view-only console takes security type None (1), the client chose %d", errRFB, f.pending[0])
		}
		f.step = stepInit
		return f.forward(0)
	case stepInit:
		f.step = stepMessages
		f.pending[0] = 1 // shared: to ask for the screen alone would put the others out
		return f.forward(0)
	default:
		return f.message()
	}
}

func (f *viewOnly) version() error {
	switch string(f.pending) {
	case "RFB 003.003\n":
		f.step = stepInit // the server chooses the security type
	case "RFB 003.007\n", "RFB 003.008\n":
		f.step = stepSecurity
	default:
		return fmt.Errorf("%w: wanted a version line RFB 003.003, 003.007 or 003.008, found %q", errRFB, f.pending)
	}
	return f.forward(0)
}

// forward writes the pending bytes and lets more bytes of the same message pass.
func (f *viewOnly) forward(more int) error {
	_, err := f.guest.Write(f.pending)
	f.pending, f.pass = f.pending[:0], more
	return err
}

// discard forgets the pending bytes and more bytes of the same message.
func (f *viewOnly) discard(more int) error {
	f.pending, f.drop = f.pending[:0], more
	return nil
}

// fixedMessages are those of one length: how many bytes follow the first, and whether they pass. Those that do not are input, or acts
// (XVP's shutdown, reboot and reset).
var fixedMessages = map[byte]struct {
	more int
	pass bool
}{
	msgSetPixelFormat: {19, true}, msgUpdateRequest: {9, true}, msgContinuousUpdates: {9, true},
	msgKeyEvent: {7, false}, msgPointerEvent: {5, false}, msgXVP: {3, false},
}

// message handles the start of a client message; it returns without an effect while more of it is needed.
func (f *viewOnly) message() error {
	kind, have := f.pending[0], len(f.pending)
	if fixed, ok := fixedMessages[kind]; ok {
		if fixed.pass {
			return f.forward(fixed.more)
		}
		return f.discard(fixed.more)
	}
	switch kind {
	case msgSetEncodings:
		if have < 4 {
			return nil
		}
		return f.beginEncodings(int(binary.BigEndian.Uint16(f.pending[2:])))
	case msgClientCutText:
		if have < 8 {
			return nil
		}
		return f.discardSized(int64(binary.BigEndian.Uint32(f.pending[4:])))
	case msgFence:
		if have < 9 {
			return nil
		}
		return f.forward(int(f.pending[8]))
	case msgSetDesktopSize:
		if have < 8 {
			return nil
		}
		return f.discard(16 * int(f.pending[6]))
	case msgQEMU:
		return f.qemu()
	default:
		return fmt.Errorf("%w: client message %d is not known, so a view-only console cannot tell whether it is input", errRFB, kind)
	}
}

// beginEncodings makes ready to read a list of encodings.
func (f *viewOnly) beginEncodings(count int) error {
	if count > maxEncodings {
		return fmt.Errorf("%w: SetEncodings names %d encodings, at most %d are taken", errRFB, count, maxEncodings)
	}
	f.pending, f.struck, f.kept = f.pending[:0], 4*count, f.kept[:0]
	if count == 0 {
		return f.sendEncodings()
	}
	return nil
}

// discardSized drops a body whose length the client states; one too large to be real is refused.
func (f *viewOnly) discardSized(length int64) error {
	const most = 16 << 20
	if length > most {
		return fmt.Errorf("%w: a clipboard of %d bytes, at most %d are read", errRFB, length, most)
	}
	return f.discard(int(length))
}

func (f *viewOnly) qemu() error {
	if len(f.pending) < 2 {
		return nil
	}
	switch f.pending[1] {
	case 0: // extended key event
		return f.discard(10)
	default:
		return fmt.Errorf("%w: QEMU client message %d is not known", errRFB, f.pending[1])
	}
}

// strike reads on in a list of encodings and keeps those that leave the shape of input messages as it is.
func (f *viewOnly) strike(p []byte) (int, error) {
	n := min(f.struck, len(p))
	f.kept = append(f.kept, p[:n]...)
	f.struck -= n
	if f.struck > 0 {
		return n, nil
	}
	return n, f.sendEncodings()
}

func (f *viewOnly) sendEncodings() error {
	out := []byte{msgSetEncodings, 0, 0, 0}
	for i := 0; i+4 <= len(f.kept); i += 4 {
		switch int32(binary.BigEndian.Uint32(f.kept[i:])) {
		case encExtendedClipboard, encExtendedMouseButtons:
		default:
			out = append(out, f.kept[i:i+4]...)
		}
	}
	binary.BigEndian.PutUint16(out[2:], uint16((len(out)-4)/4))
	_, err := f.guest.Write(out)
	return err
}

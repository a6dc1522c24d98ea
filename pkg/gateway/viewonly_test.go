package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

const handshake = "RFB 003.008\n\x01\x01"

func encodings(list ...int32) string {
	out := []byte{msgSetEncodings, 0, 0, byte(len(list))}
	for _, e := range list {
		out = binary.BigEndian.AppendUint32(out, uint32(e))
	}
	return string(out)
}

func TestViewOnlyPassesLooksAndDropsInput(t *testing.T) {
	update := "\x03\x01\x00\x00\x00\x00\x01\x00\x01\x00"
	pixels := "\x00\x00\x00\x00" + strings.Repeat("p", 16)
	cases := map[string]struct{ in, out string }{
		"version 3.3":         {"RFB 003.003\n\x01" + update, "RFB 003.003\n\x01" + update},
		"asks to be alone":    {"RFB 003.008\n\x01\x00" + update, handshake + update},
		"looks":               {handshake + pixels + update, handshake + pixels + update},
		"a key":               {handshake + "\x04\x01\x00\x00\x00\x00\xff\x0d" + update, handshake + update},
		"a pointer":           {handshake + "\x05\x01\x00\x10\x00\x10" + update, handshake + update},
		"a clipboard":         {handshake + "\x06\x00\x00\x00\x00\x00\x00\x05hello" + update, handshake + update},
		"a QEMU key":          {handshake + "\xff\x00\x00\x01\x00\x00\x00a\x00\x00\x00\x1e" + update, handshake + update},
		"a power button":      {handshake + "\xfa\x00\x01\x02" + update, handshake + update},
		"a resize":            {handshake + "\xfb\x00\x00\x10\x00\x10\x01\x00" + strings.Repeat("s", 16) + update, handshake + update},
		"a fence":             {handshake + "\xf8\x00\x00\x00\x00\x00\x00\x00\x03abc" + update, handshake + "\xf8\x00\x00\x00\x00\x00\x00\x00\x03abc" + update},
		"encodings":           {handshake + encodings(0, 1, -223) + update, handshake + encodings(0, 1, -223) + update},
		"encodings struck":    {handshake + encodings(0, encExtendedMouseButtons, encExtendedClipboard, 7), handshake + encodings(0, 7)},
		"an empty list":       {handshake + encodings() + update, handshake + encodings() + update},
		"continuous updates":  {handshake + "\x96\x01\x00\x00\x00\x00\x00\x10\x00\x10" + update, handshake + "\x96\x01\x00\x00\x00\x00\x00\x10\x00\x10" + update},
		"half a message":      {handshake + update[:4], handshake + update[:4]},
		"half a key, no more": {handshake + "\x04\x01\x00", handshake},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, chunk := range []int{1, 3, len(c.in)} {
				var guest bytes.Buffer
				filter := newViewOnly(&guest)
				for part := range slices.Chunk([]byte(c.in), chunk) {
					if n, err := filter.Write(part); err != nil || n != len(part) {
						t.Fatalf("write: %d of %d, %v", n, len(part), err)
					}
				}
				if guest.String() != c.out {
					t.Fatalf("in chunks of %d\nwanted %q\n found %q", chunk, c.out, guest.String())
				}
			}
		})
	}
}

func TestViewOnlyRefusesWhatItCannotFollow(t *testing.T) {
	for name, in := range map[string]string{
		"not RFB":              "GET / HTTP/1.1\r\n",
		"an unknown version":   "RFB 004.001\n",
		"VNC authentication":   "RFB 003.008\n\x02",
		"an unknown message":   handshake + "\x7f",
		"an unknown QEMU kind": handshake + "\xff\x07",
		"a huge clipboard":     handshake + "\x06\x00\x00\x00\xff\xff\xff\xff",
		"too many encodings":   handshake + "\x02\x00\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newViewOnly(&bytes.Buffer{}).Write([]byte(in)); !errors.Is(err, errRFB) {
				t.Fatalf("wanted a refusal, found %v", err)
			}
		})
	}
}

// FuzzViewOnly holds that no input gets past the filter however the stream is cut, and that how it is cut changes nothing.
func FuzzViewOnly(f *testing.F) {
	f.Add([]byte(handshake+"\x04\x01\x00\x00\x00\x00\xff\x0d"), 1)
	f.Add([]byte(handshake+encodings(0, -316)+"\x05\x01\x00\x10\x00\x10\x03\x01\x00\x00\x00\x00\x01\x00\x01\x00"), 5)
	f.Add([]byte("RFB 003.003\n\x01\x06\x00\x00\x00\x00\x00\x00\x02hi"), 7)
	f.Fuzz(func(t *testing.T, in []byte, chunk int) {
		var whole, cut bytes.Buffer
		_, wholeErr := newViewOnly(&whole).Write(in)
		filter := newViewOnly(&cut)
		var cutErr error
		for part := range slices.Chunk(in, 1+abs(chunk)%64) {
			if _, cutErr = filter.Write(part); cutErr != nil {
				break
			}
		}
		if !bytes.Equal(whole.Bytes(), cut.Bytes()) || (wholeErr == nil) != (cutErr == nil) {
			t.Fatalf("the cut matters: %q (%v) and %q (%v)", whole.Bytes(), wholeErr, cut.Bytes(), cutErr)
		}
		again, err := bytes.Buffer{}, error(nil)
		if wholeErr == nil {
			if _, err = newViewOnly(&again).Write(whole.Bytes()); err != nil || !bytes.Equal(again.Bytes(), whole.Bytes()) {
				t.Fatalf("what passed once does not pass unchanged again: %q, then %q (%v)", whole.Bytes(), again.Bytes(), err)
			}
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}

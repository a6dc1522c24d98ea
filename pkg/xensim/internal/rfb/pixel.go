package rfb

import (
	"encoding/binary"
	"fmt"
	"image"
)

// The encodings of rectangles that this server speaks.
const (
	encodingRaw = 0
	encodingRRE = 2
)

// pixelFormat is how a viewer wants pixels (RFC 6143, 7.4).
type pixelFormat struct {
	bitsPerPixel, depth  uint8
	bigEndian, trueColor bool
	max                  [3]uint16
	shift                [3]uint8
}

// nativeFormat is what the server offers.
var nativeFormat = pixelFormat{bitsPerPixel: 32, depth: 24, trueColor: true, max: [3]uint16{255, 255, 255}, shift: [3]uint8{16, 8, 0}}

const pixelFormatSize = 16

func (f pixelFormat) encode() []byte {
	b := []byte{f.bitsPerPixel, f.depth, boolByte(f.bigEndian), boolByte(f.trueColor)}
	for _, m := range f.max {
		b = binary.BigEndian.AppendUint16(b, m)
	}
	b = append(b, f.shift[:]...)
	return append(b, 0, 0, 0)
}

func decodePixelFormat(b []byte) (pixelFormat, error) {
	f := pixelFormat{bitsPerPixel: b[0], depth: b[1], bigEndian: b[2] != 0, trueColor: b[3] != 0}
	for i := range f.max {
		f.max[i] = binary.BigEndian.Uint16(b[4+2*i:])
		f.shift[i] = b[10+i]
	}
	switch {
	case f.bitsPerPixel != 8 && f.bitsPerPixel != 16 && f.bitsPerPixel != 32:
		return f, fmt.Errorf("%w: %d bits per pixel", ErrProtocol, f.bitsPerPixel)
	case f.shift[0] > 31 || f.shift[1] > 31 || f.shift[2] > 31:
		return f, fmt.Errorf("%w: colour shifts %v", ErrProtocol, f.shift)
	}
	return f, nil
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// pixels are the palette's colours as the viewer wants them.
func (f pixelFormat) pixels() [][]byte {
	pixels := make([][]byte, len(palette))
	for i, c := range palette {
		value := uint32(i)
		if f.trueColor {
			r, g, b, _ := c.RGBA()
			value = 0
			for channel, level := range [3]uint32{r, g, b} {
				value |= ((level*uint32(f.max[channel]) + 0x7FFF) / 0xFFFF) << f.shift[channel]
			}
		}
		pixels[i] = f.pixel(value)
	}
	return pixels
}

func (f pixelFormat) pixel(value uint32) []byte {
	n := f.bitsPerPixel / 8
	if f.bigEndian {
		return binary.BigEndian.AppendUint32(nil, value)[4-n:]
	}
	return binary.LittleEndian.AppendUint32(nil, value)[:n]
}

// appendRectangle appends one rectangle of an update, in RRE if the viewer takes it and it is shorter.
func appendRectangle(out []byte, canvas *image.Paletted, area image.Rectangle, pixels [][]byte, rre bool) []byte {
	for _, n := range []int{area.Min.X, area.Min.Y, area.Dx(), area.Dy()} {
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	}
	if rre {
		body := encodeRRE(canvas, area, pixels)
		if len(body) < area.Dx()*area.Dy()*len(pixels[0]) {
			out = binary.BigEndian.AppendUint32(out, encodingRRE)
			return append(out, body...)
		}
	}
	out = binary.BigEndian.AppendUint32(out, encodingRaw)
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			out = append(out, pixels[canvas.ColorIndexAt(x, y)]...)
		}
	}
	return out
}

// encodeRRE paints the rectangle in the colour of its first pixel and then every horizontal run of another colour.
func encodeRRE(canvas *image.Paletted, area image.Rectangle, pixels [][]byte) []byte {
	background := canvas.ColorIndexAt(area.Min.X, area.Min.Y)
	var count uint32
	var runs []byte
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; {
			ink, from := canvas.ColorIndexAt(x, y), x
			for x < area.Max.X && canvas.ColorIndexAt(x, y) == ink {
				x++
			}
			if ink == background {
				continue
			}
			count++
			runs = append(runs, pixels[ink]...)
			for _, n := range []int{from - area.Min.X, y - area.Min.Y, x - from, 1} {
				runs = binary.BigEndian.AppendUint16(runs, uint16(n))
			}
		}
	}
	body := binary.BigEndian.AppendUint32(nil, count)
	body = append(body, pixels[background]...)
	return append(body, runs...)
}

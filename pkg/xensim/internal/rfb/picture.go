package rfb

import (
	"bytes"
	"image"
	"image/color"

	"golang.org/x/image/font/basicfont"
)

// The screen's size in pixels.
var (
	Width  = Columns * basicfont.Face7x13.Advance
	Height = Rows * basicfont.Face7x13.Height
)

// palette are the screen's colours: background, text, bar and the bar's text.
var palette = color.Palette{
	color.RGBA{0x10, 0x18, 0x20, 0xFF},
	color.RGBA{0xD0, 0xD8, 0xD8, 0xFF},
	color.RGBA{0x18, 0x60, 0x90, 0xFF},
	color.RGBA{0xFF, 0xFF, 0xFF, 0xFF},
}

const (
	backgroundIndex = iota
	textIndex
	barIndex
	barTextIndex
)

// Picture is what the screen looks like now.
func (s *Screen) Picture() image.Image {
	rows, _ := s.Contents()
	return picture(rows)
}

// nothing is a picture that differs from every other in every pixel.
func nothing() *image.Paletted {
	canvas := image.NewPaletted(image.Rect(0, 0, Width, Height), palette)
	for i := range canvas.Pix {
		canvas.Pix[i] = uint8(len(palette))
	}
	return canvas
}

// differ tells whether two pictures differ somewhere in an area.
func differ(a, b *image.Paletted, area image.Rectangle) bool {
	for y := area.Min.Y; y < area.Max.Y; y++ {
		from, to := a.PixOffset(area.Min.X, y), a.PixOffset(area.Max.X, y)
		if !bytes.Equal(a.Pix[from:to], b.Pix[from:to]) {
			return true
		}
	}
	return false
}

func copyArea(to, from *image.Paletted, area image.Rectangle) {
	for y := area.Min.Y; y < area.Max.Y; y++ {
		start, end := to.PixOffset(area.Min.X, y), to.PixOffset(area.Max.X, y)
		copy(to.Pix[start:end], from.Pix[start:end])
	}
}

// picture draws the rows of a screen.
func picture(rows [Rows]string) *image.Paletted {
	canvas := image.NewPaletted(image.Rect(0, 0, Width, Height), palette)
	for row, line := range rows {
		drawRow(canvas, row, line)
	}
	return canvas
}

func drawRow(canvas *image.Paletted, row int, line string) {
	face := basicfont.Face7x13
	ink, paper := uint8(textIndex), uint8(backgroundIndex)
	if row == 0 {
		ink, paper = barTextIndex, barIndex
	}
	area := rowArea(row)
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := range Width {
			canvas.SetColorIndex(x, y, paper)
		}
	}
	column := 0
	for _, r := range line {
		drawGlyph(canvas, image.Pt(column*face.Advance, area.Min.Y), r, ink)
		column++
	}
}

func drawGlyph(canvas *image.Paletted, at image.Point, r rune, ink uint8) {
	face := basicfont.Face7x13
	if r < 0x20 || r > 0x7E {
		r = '?' // the font has nothing else
	}
	top := (int(r) - 0x20) * (face.Ascent + face.Descent)
	for y := range face.Ascent + face.Descent {
		for x := range face.Width {
			if _, _, _, alpha := face.Mask.At(x, top+y).RGBA(); alpha != 0 {
				canvas.SetColorIndex(at.X+x, at.Y+y, ink)
			}
		}
	}
}

// rowArea is where a row of characters stands, in pixels.
func rowArea(row int) image.Rectangle {
	height := basicfont.Face7x13.Height
	return image.Rect(0, row*height, Width, (row+1)*height)
}

package rfb

import (
	"strings"
	"sync"
	"unicode"
)

const (
	// Columns is how many characters a row of the screen has.
	Columns = 80
	// Rows is how many rows the screen has.
	Rows = 25

	// typedRows are left for what is typed, below what the simulator shows.
	typedRows = 12
	prompt    = "> "
	cursor    = '_'
)

// Text is what the simulator shows of a VM, above what is typed.
type Text struct {
	// Title stands in a bar at the top.
	Title string
	// Lines stand below it.
	Lines []string
}

// Screen is a VM's text screen. It is safe for concurrent use.
type Screen struct {
	mu      sync.Mutex
	text    Text
	typed   []string
	changed chan struct{}
}

// NewScreen makes a screen that shows text.
func NewScreen(text Text) *Screen {
	return &Screen{text: text, typed: []string{""}, changed: make(chan struct{})}
}

// Show replaces what the simulator shows and keeps what was typed.
func (s *Screen) Show(text Text) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
	s.announce()
}

// Reset replaces what the simulator shows and forgets what was typed, as a boot does.
func (s *Screen) Reset(text Text) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text, s.typed = text, []string{""}
	s.announce()
}

// Type adds characters at the cursor. A carriage return begins a line, a backspace or delete takes one character back, and
// what cannot be printed is left out.
func (s *Screen) Type(characters string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.typed) - 1
	for _, r := range characters {
		line := []rune(s.typed[last])
		switch {
		case r == '\r' || r == '\n':
			s.typed = append(s.typed, "")
			last++
		case r == '\b' || r == 0x7F:
			s.typed[last] = string(line[:max(len(line)-1, 0)])
		case unicode.IsPrint(r) && len(line) < Columns-len(prompt)-1:
			s.typed[last] = string(append(line, r))
		}
	}
	if len(s.typed) > typedRows {
		s.typed = append([]string{}, s.typed[len(s.typed)-typedRows:]...)
	}
	s.announce()
}

// announce needs the lock.
func (s *Screen) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Contents are the rows of the screen, the bar first, and a channel that is closed when they change.
func (s *Screen) Contents() (rows [Rows]string, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows[0] = fit(" " + s.text.Title)
	shown := rows[2 : Rows-typedRows]
	for i := range min(len(s.text.Lines), len(shown)) {
		shown[i] = fit(" " + s.text.Lines[i])
	}
	below := rows[Rows-typedRows:]
	for i := range min(len(s.typed), len(below)) {
		below[i] = prompt + s.typed[i]
	}
	below[len(s.typed)-1] += string(cursor)
	return rows, s.changed
}

func fit(line string) string {
	line = strings.TrimRight(line, " ")
	if runes := []rune(line); len(runes) > Columns {
		return string(runes[:Columns])
	}
	return line
}

package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// story tells what happens, one line each, with the time since the start and who did it.
type story struct {
	mutex   sync.Mutex
	out     io.Writer
	started time.Time
}

func newStory(out io.Writer) *story { return &story{out: out, started: time.Now()} }

// tell writes one line of the story.
func (s *story) tell(who, format string, arguments ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, arguments...), "\n", " ")
	s.mutex.Lock()
	defer s.mutex.Unlock()
	fmt.Fprintf(s.out, "%6.1f s  %-10s  %s\n", time.Since(s.started).Seconds(), who, text)
}

// show writes a block as it is, with an empty line around it.
func (s *story) show(text string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	fmt.Fprintf(s.out, "\n%s\n", text)
}

// line writes one line that programs may wait for.
func (s *story) line(text string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	fmt.Fprintln(s.out, text)
}

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress is how far a change is.
type progress struct {
	// text says it to people; "" if nothing is known yet.
	text string
	// percent that is done, nil where nobody knows.
	percent *int32
	// done says that it is as asked, or that it waits for the user.
	done bool
}

// line is the progress as one line.
func (p progress) line() string {
	if p.percent == nil || p.text == "" {
		return p.text
	}
	return fmt.Sprintf("%s (%d %%)", p.text, *p.percent)
}

// display shows progress: a bar on a terminal, elsewhere a line for each thing that is new.
type display struct {
	out  io.Writer
	bar  *progressbar.ProgressBar // nil where lines are shown
	last string
}

func newDisplay(out io.Writer) *display {
	d := &display{out: out}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return d
	}
	d.bar = progressbar.NewOptions(100, progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(24),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false))
	return d
}

// show shows how far it is. What ends it stays on the screen, whatever shows the way there.
func (d *display) show(p progress) error {
	line := p.line()
	if line == "" || line == d.last {
		return nil
	}
	d.last = line
	if d.bar == nil {
		_, err := fmt.Fprintln(d.out, line)
		return err
	}
	if p.done {
		if err := d.bar.Clear(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(d.out, line)
		return err
	}
	d.bar.Describe(p.text)
	percent := 0
	if p.percent != nil {
		percent = int(*p.percent)
	}
	return d.bar.Set(percent)
}

// end leaves the screen as it is to be for what is printed next.
func (d *display) end() {
	if d.bar != nil {
		_ = d.bar.Clear()
	}
}

// Package contain keeps a panic in code that reads what strangers wrote from ending the process, and with it all that the process
// does for others: a disk or a store that brings our parser down would do so again after each restart. Code that only reads our
// own data does not belong behind it: there a panic should be loud.
package contain

import (
	"fmt"
	"io"
	"runtime/debug"
)

// Panic is a panic that was contained. It is a defect of ours, whatever was read.
type Panic struct {
	// Value is what was panicked with.
	Value any
	// Stack is that of the goroutine, for the log.
	Stack []byte
}

// Error implements error. The stack is not for users.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Call calls f; a panic becomes an error that wraps *Panic. What f has deferred is done by then.
func Call(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Panic{Value: value, Stack: debug.Stack()}
		}
	}()

	return f()
}

// Reader returns a reader that fails where reader panics: for whoever reads it in the middle of work that an error ends in order.
func Reader(reader io.Reader) io.Reader { return contained{reader} }

type contained struct{ io.Reader }

// Read implements io.Reader.
func (c contained) Read(p []byte) (n int, err error) {
	err = Call(func() (err error) {
		n, err = c.Reader.Read(p)
		return err
	})

	return n, err
}

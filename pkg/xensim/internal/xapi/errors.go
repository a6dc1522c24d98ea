package xapi

import (
	"fmt"
	"strings"
)

// Error is a failure that a client sees: a XenAPI error code with its parameters.
type Error struct {
	Code   string
	Params []string
}

func (e *Error) Error() string { return e.Code + "(" + strings.Join(e.Params, ", ") + ")" }

// Fail makes the error with the given code and parameters.
func Fail(code string, params ...string) *Error {
	return &Error{Code: code, Params: append([]string{}, params...)}
}

// HandleInvalid is the error for a reference that is none of the class.
func HandleInvalid(class, ref string) *Error { return Fail("HANDLE_INVALID", class, ref) }

// internal is the error for what the real server reports as an OCaml exception.
func internal(format string, args ...any) *Error {
	return Fail("INTERNAL_ERROR", fmt.Sprintf(format, args...))
}

// failure is the error for an OCaml Failure with the text.
func failure(format string, args ...any) *Error {
	return internal("Failure(%s)", ocamlString(fmt.Sprintf(format, args...)))
}

func ocamlString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(text) + `"`
}

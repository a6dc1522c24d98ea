package xenapi

import (
	"errors"
	"fmt"
	"strings"
)

// ErrorCode is a XenAPI error code. The generated constants ErrHandleInvalid, ErrVMBadPowerState and so on are of this type and are errors
// themselves, so that errors.Is(err, xenapi.ErrHandleInvalid) asks for a code.
type ErrorCode string

// Error implements error.
func (c ErrorCode) Error() string { return string(c) }

// Codes that the data model does not declare. Storage drivers number their failures; ErrSRBackendFailure stands for all of them.
const (
	// ErrSRBackendNoSpace is what storage drivers answer when a repository is full.
	ErrSRBackendNoSpace ErrorCode = "SR_BACKEND_FAILURE_44"
	// ErrSRBackendSnapshotChainTooLong is what storage drivers answer when a chain of disks has 30 links (sm, vhdutil.py).
	ErrSRBackendSnapshotChainTooLong ErrorCode = "SR_BACKEND_FAILURE_109"
	// ErrNoAsync is literally the code of an Async. call to a message that has no such form.
	ErrNoAsync ErrorCode = "Fault"
)

// Error is a failure that the XenAPI itself reported: the call reached it and was refused or failed there.
type Error struct {
	// Code is the error code, such as VM_BAD_POWER_STATE.
	Code ErrorCode
	// Params are the code's parameters as the data model declares them. Session references and passwords in them are blacked out.
	Params []string
	// Method is the message that failed, such as VM.start; empty for a task's error.
	Method string
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Method != "" {
		b.WriteString(e.Method + ": ")
	}
	b.WriteString(string(e.Code))
	if len(e.Params) > 0 {
		b.WriteString(": " + strings.Join(e.Params, ", "))
	}
	return b.String()
}

// Is says whether target is this error's code. ErrSRBackendFailure also matches all of its numbered forms.
func (e *Error) Is(target error) bool {
	code, ok := target.(ErrorCode)
	if !ok {
		return false
	}
	return e.Code == code || code == ErrSRBackendFailure && strings.HasPrefix(string(e.Code), string(ErrSRBackendFailure)+"_")
}

// Param returns the i-th parameter, or the empty string if there are fewer.
func (e *Error) Param(i int) string {
	if i < 0 || i >= len(e.Params) {
		return ""
	}
	return e.Params[i]
}

// CodeOf returns the XenAPI error code in err's chain, or the empty code.
func CodeOf(err error) ErrorCode {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// newError makes an Error of an ErrorDescription.
func newError(method string, description []string) *Error {
	if len(description) == 0 {
		return &Error{Method: method, Code: ErrInternalError, Params: []string{"a failure without a description"}}
	}
	return &Error{Method: method, Code: ErrorCode(description[0]), Params: description[1:]}
}

var (
	// ErrOutcomeUnknown says that a call or task may or may not have had its effect: look at the objects before trying again.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrClosed says that the client has been closed.
	ErrClosed = errors.New("client is closed")
	// ErrTLSVerification says that a server's certificate is not the one that the configuration asks for.
	ErrTLSVerification = errors.New("server certificate not accepted")
	// ErrTooManyTasks says that Config.MaxTasks tasks of this client are unfinished. Nothing has been sent.
	ErrTooManyTasks = errors.New("too many unfinished tasks")
	// ErrNoCoordinator says that none of the pool's known addresses led to its coordinator; it wraps why for each.
	ErrNoCoordinator = errors.New("no coordinator found")
)

// Phase is how far a request got before its transport failed.
type Phase uint8

// The phases of a request.
const (
	// PhaseConnect: no connection was had, so nothing was sent.
	PhaseConnect Phase = iota
	// PhaseSend: the request was being sent or had been sent, and no answer had begun.
	PhaseSend
	// PhaseAnswer: the answer had begun.
	PhaseAnswer
)

var phaseNames = [...]string{"connect", "send", "answer"}

// String implements fmt.Stringer.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "unknown"
}

// TransportError is a failure below the XenAPI: no connection, no certificate, no answer in time, an answer that is not XML-RPC.
type TransportError struct {
	// Op is the message or handler that was addressed.
	Op string
	// Endpoint is host:port.
	Endpoint string
	// Phase is how far the request got.
	Phase Phase
	// Read says that the request could not have changed anything.
	Read bool
	// Err is the cause.
	Err error
}

// Error implements error.
func (e *TransportError) Error() string {
	return fmt.Sprintf("%s at %s: %v (%v)", e.Op, e.Endpoint, e.Err, e.Phase)
}

// Unwrap returns the cause, and ErrOutcomeUnknown where that is what the failure means.
func (e *TransportError) Unwrap() []error {
	if e.Phase > PhaseConnect && !e.Read {
		return []error{e.Err, ErrOutcomeUnknown}
	}
	return []error{e.Err}
}

// HTTPError is an answer with a status other than 200. A XenAPI reports its own errors with 200, so this is a refusal of the request as such.
type HTTPError struct {
	// Status is the HTTP status code.
	Status int
	// Detail is the beginning of the body as plain text, without secrets.
	Detail string
}

// Error implements error.
func (e *HTTPError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("HTTP status %d", e.Status)
	}
	return fmt.Sprintf("HTTP status %d: %s", e.Status, e.Detail)
}

// RetrySafe says that what failed surely had no effect and may be sent again as it is, after a pause.
func RetrySafe(err error) bool {
	if err == nil || errors.Is(err, ErrOutcomeUnknown) {
		return false
	}
	if errors.Is(err, ErrTLSVerification) || errors.Is(err, ErrBadArgument) || errors.Is(err, ErrClosed) {
		return false
	}
	if errors.Is(err, ErrTooManyTasks) || errors.Is(err, ErrNoCoordinator) {
		return true
	}
	switch CodeOf(err) {
	case ErrSessionInvalid, ErrHostIsSlave, ErrHostStillBooting, ErrHostInEmergencyMode, ErrTooBusy:
		return true
	default:
	}
	var transport *TransportError
	if !errors.As(err, &transport) {
		return false
	}
	return transport.Phase == PhaseConnect || transport.Read
}

// OutcomeUnknown says that what failed may have had its effect all the same. It is the opposite of neither RetrySafe nor success: a refusal is
// none of the three.
func OutcomeUnknown(err error) bool { return errors.Is(err, ErrOutcomeUnknown) }

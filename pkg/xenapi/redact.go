package xenapi

import (
	"regexp"
	"strings"
	"sync"
)

const redacted = "[redacted]"

// shortSecret is the length up to which a secret is only blacked out where it is a whole text: a two-letter password would garble everything.
const shortSecret = 3

// redactor blacks out this client's secrets in what leaves it as text: passwords and every session reference it ever had. Sessions are few (one
// a login), so they are kept for good: an old one may stand in an error that comes late.
type redactor struct {
	mu      sync.RWMutex
	secrets map[string]struct{}
}

func (r *redactor) add(secret string) {
	if secret == "" || secret == nullRef {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.secrets == nil {
		r.secrets = make(map[string]struct{})
	}
	r.secrets[secret] = struct{}{}
}

// text returns s without secrets.
func (r *redactor) text(s string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for secret := range r.secrets {
		if len(secret) > shortSecret {
			s = strings.ReplaceAll(s, secret, redacted)
		} else if s == secret {
			return redacted
		}
	}
	return sessionInURL.ReplaceAllString(s, "${1}"+redacted)
}

// sessionInURL finds session_id=… in addresses and cookies, whoever's it is.
var sessionInURL = regexp.MustCompile(`(session_id=)[^&;\s"']+`)

// String keeps session references out of whatever formats them: one is as good as the password.
func (r SessionRef) String() string { return redacted }

// error blacks out secrets in a XenAPI error. Errors about sessions name the session in their first parameter, also one that is not ours.
func (r *redactor) error(e *Error) *Error {
	for i, param := range e.Params {
		e.Params[i] = r.text(param)
	}
	switch {
	case e.Code == ErrSessionInvalid && len(e.Params) > 0:
		e.Params[0] = redacted
	case e.Code == ErrHandleInvalid && len(e.Params) > 1 && e.Params[0] == "session":
		e.Params[1] = redacted
	}
	return e
}

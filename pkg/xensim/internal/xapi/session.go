package xapi

import (
	"slices"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// Limits of sessions (xapi_globs.ml; the one of a user who is not root has nobody to apply to here). Above one of the
// numbers the session that was used least recently is dropped, to the surprise of its owner.
const (
	sessionIdle           = 24 * time.Hour
	sessionsPerOriginator = 500
	sessionsAnonymous     = 400

	// ownSessions is how many the toolstack holds itself, to be told of events for one. It shows in valid_ref_counts alone;
	// on the recorded server it was from three to six, mostly four.
	ownSessions = 4
)

// session is what the database does not hold about a session.
type session struct {
	used          time.Time // more exact than last_active
	subscriptions []string  // of event.register
	lastEvent     int64     // number of the next old event that it has not heard
}

func registerSessions(p *Pool) {
	p.Handle("session.login_with_password", login)
	p.Handle("session.slave_local_login_with_password", login)
	p.Handle("session.logout", func(c *Call) (any, error) {
		c.dropSession(c.Session)
		return nil, nil
	})
	p.Handle("session.local_logout", func(c *Call) (any, error) {
		c.dropSession(c.Session)
		return nil, nil
	})
	p.Handle("session.get_all_subject_identifiers", func(*Call) (any, error) { return []string{}, nil })
	p.Handle("session.logout_subject_identifier", func(*Call) (any, error) { return nil, nil })
	p.Handle("session.change_password", func(c *Call) (any, error) {
		if c.Str("old_pwd") != c.Password {
			return nil, Fail("CHANGE_PASSWORD_REJECTED", "Authentication failure")
		}
		c.Password = c.Str("new_pwd")
		return nil, nil
	})
}

func login(c *Call) (any, error) {
	if c.Host != c.Coordinator() && c.Message.Name == "login_with_password" {
		return nil, c.hostIsSlave()
	}
	user := c.Str("uname")
	if user != c.User || c.Str("pwd") != c.Password {
		if err := c.Wait(c.WrongPassword); err != nil {
			return nil, err
		}
		return nil, Fail("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
	}
	originator, _ := c.args["originator"].(string)
	ref := c.newSession(originator)
	c.trimSessions()
	return ref, nil
}

// hostIsSlave is the answer of a host that does not coordinate the pool.
func (p *Pool) hostIsSlave() *Error {
	return Fail("HOST_IS_SLAVE", p.db.Get("host", p.Coordinator()).Str("address"))
}

// newSession makes a session of the pool's one user, who is root.
func (p *Pool) newSession(originator string) string {
	now := p.Now()
	ref := p.Create("session", db.Fields{
		"this_host": p.Coordinator(), "this_user": db.NullRef, "last_active": now, "validation_time": now,
		"is_local_superuser": true, "auth_user_name": p.User, "originator": originator,
	})
	p.sessions[ref] = &session{used: p.Clock.Now()}
	return ref
}

// openOwnSessions forgets the sessions of before the start, and opens those that the toolstack holds itself. Nobody else
// can use them.
func (p *Pool) openOwnSessions() {
	for _, ref := range slices.Clone(p.db.Refs("session")) {
		p.dropSession(ref)
	}
	now := p.Now()
	for range ownSessions {
		p.Create("session", db.Fields{"this_host": p.Coordinator(), "this_user": db.NullRef, "last_active": now,
			"validation_time": now, "is_local_superuser": true, "pool": true})
	}
}

func (p *Pool) dropSession(ref string) {
	p.db.Delete("session", ref)
	delete(p.sessions, ref)
	p.wake() // event.from of this session must notice
}

// checkSession checks and touches a session. A host that is not the coordinator refuses every session but its own.
func (p *Pool) checkSession(ref string, m *datamodel.Message, host string) error {
	if host != "" && host != p.Coordinator() {
		return p.hostIsSlave()
	}
	s := p.sessions[ref]
	if s == nil {
		return Fail("SESSION_INVALID", ref)
	}
	now := p.Clock.Now()
	if now.Sub(s.used) > sessionIdle {
		p.dropSession(ref)
		return Fail("SESSION_INVALID", ref)
	}
	if m.PoolOnly {
		return internal("Internal API %q call attempted with non-pool (external) session", m.FullName())
	}
	if now.Sub(s.used) > time.Minute {
		p.Set("session", ref, db.Fields{"last_active": p.Now()})
	}
	s.used = now
	return nil
}

// Authenticate checks credentials for the HTTP handlers: a session reference, or else a name and password, for which
// a session is made. It gives the session, or "" when the credentials are no good. The pool must be locked.
func (p *Pool) Authenticate(sessionRef, user, password string, basic bool) string {
	if sessionRef != "" {
		if p.checkSession(sessionRef, &datamodel.Message{}, "") == nil {
			return sessionRef
		}
		return ""
	}
	if basic && user == p.User && password == p.Password {
		return p.newSession("")
	}
	return ""
}

// trimSessions keeps the numbers of sessions within the limits.
func (p *Pool) trimSessions() {
	groups := map[string][]string{}
	for ref := range p.sessions {
		originator := p.db.Get("session", ref).Str("originator")
		key := "anonymous"
		if originator != "" {
			key = "originator " + originator
		}
		groups[key] = append(groups[key], ref)
	}
	for key, refs := range groups {
		most := sessionsAnonymous
		if strings.HasPrefix(key, "originator ") {
			most = sessionsPerOriginator
		}
		for len(refs) > most {
			oldest := 0
			for i, ref := range refs {
				if p.sessions[ref].used.Before(p.sessions[refs[oldest]].used) {
					oldest = i
				}
			}
			p.dropSession(refs[oldest])
			refs = append(refs[:oldest], refs[oldest+1:]...)
		}
	}
}

// DropSessions ends all sessions at once, as a restart of the toolstack does.
func (p *Pool) DropSessions() {
	for ref := range p.sessions {
		p.dropSession(ref)
	}
}

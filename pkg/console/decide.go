package console

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// Facts are what a decision about a console looks at beside the console itself.
type Facts struct {
	Now time.Time
	// Instance that instanceRef names; nil when there is none.
	Instance *v1alpha1.XenInstance
	// Policy of the instance's pool; nil allows what the spec asks.
	Policy *v1alpha1.PoolConsole
	// GatewayURL is where gateways are reached; empty when the manager was not told.
	GatewayURL string
	// TokenKept tells whether the token and the URL are as the spec asks, where it asks. A Secret that somebody removed makes it false,
	// and so does another client, another public key or another address of the gateway.
	TokenKept bool
}

// Act is what is to be done about the token.
type Act int

// The acts.
const (
	// Keep leaves the token, or its absence, as it is.
	Keep Act = iota
	// Issue makes a new token; the old one, if any, opens nothing from then on.
	Issue
	// End takes the token away.
	End
	// Delete removes the object: its URL ended deleteAfterExpirySeconds ago.
	Delete
)

// Decision is what Decide came to.
type Decision struct {
	Act Act
	// Why is the reason of URLIssued=False and Expired=True; empty while a URL opens.
	Why string
	// KeepSessions lets the sessions that are open live on: nothing ended but the time to connect.
	KeepSessions bool
	// Outcome carries Ready and the next deadline.
	Outcome reconcile.Outcome
	// TTL and MaxSession apply to a token that is issued now.
	TTL, MaxSession time.Duration
	// VMUUID is the VM that a token which is issued now opens.
	VMUUID string
}

// Decide says what becomes of a console now, of its URL and then of the sessions that are open.
func Decide(c *v1alpha1.XenConsole, f Facts) Decision {
	d := decideURL(c, f)
	d.KeepSessions = sessionsGoOn(c, f, d)
	if d.Act == Keep && c.Status.Series != "" && !d.KeepSessions {
		d.Act = End // the URL ended before; now its sessions do
	}
	if silent, ok := untilSilent(c, f.Now); ok {
		d.Outcome = d.Outcome.After(silent)
	}
	return d
}

// decideURL asks, in this order: can there be a URL at all, does one live and may it go on, and if none lives, is a new one due.
func decideURL(c *v1alpha1.XenConsole, f Facts) Decision {
	if d, refused := impossible(c, f); refused {
		return d
	}
	if live(c) {
		return goOn(c, f)
	}
	return without(c, f, endedBecause(c))
}

// live tells whether a token stands that a gateway would take.
func live(c *v1alpha1.XenConsole) bool { return c.Status.TokenSHA256 != "" }

// sessionsGoOn tells whether sessions outlive what was decided: they outlive the time to connect, and nothing else that ends a URL.
func sessionsGoOn(c *v1alpha1.XenConsole, f Facts, d Decision) bool {
	switch {
	case c.Status.Series == "", d.Outcome.Kind() == reconcile.KindTerminal:
		return false
	case f.Instance == nil, !running(f.Instance), f.Instance.GuestUUID() != c.Status.VMUUID:
		return false
	case c.Spec.NotAfter != nil && !f.Now.Before(c.Spec.NotAfter.Time):
		return false
	case c.Spec.RenewToken != issuedFor(c), live(c) && !f.TokenKept:
		return false
	}
	return true
}

// untilSilent is when the first gateway that counts is no longer believed, unless it repeats what it said.
func untilSilent(c *v1alpha1.XenConsole, now time.Time) (time.Duration, bool) {
	var first time.Duration
	for _, s := range c.Status.Sessions {
		left := s.RenewedAt.Add(v1alpha1.ConsoleSessionsCountFor).Sub(now) + time.Second
		if left > 0 && (first == 0 || left < first) {
			first = left
		}
	}
	return first, first > 0
}

// impossible finds what no waiting mends. A token that lives is ended: what allowed it is gone.
func impossible(c *v1alpha1.XenConsole, f Facts) (Decision, bool) {
	stop := func(reason, message string) (Decision, bool) {
		return Decision{Act: endIf(live(c)), Why: reason, Outcome: reconcile.Terminal(reason, message)}, true
	}
	if f.GatewayURL == "" {
		return stop(v1alpha1.ReasonGatewayNotConfigured, "the manager does not know where the console gateway is reached: start it with --console-url")
	}
	if f.Policy != nil && len(f.Policy.AllowedAccess) > 0 && !slices.Contains(f.Policy.AllowedAccess, c.Spec.Access) {
		return stop(v1alpha1.ReasonAccessForbidden, fmt.Sprintf("access %s is asked for, but the pool allows %v only: change spec.access", c.Spec.Access, f.Policy.AllowedAccess))
	}
	if c.Spec.Access == v1alpha1.AccessEncryptedToken {
		if _, err := ParsePublicKey(c.Spec.PublicKey); err != nil {
			return stop(v1alpha1.ReasonInvalidPublicKey, err.Error())
		}
	}
	return Decision{}, false
}

// goOn looks at a token that stands.
func goOn(c *v1alpha1.XenConsole, f Facts) Decision {
	switch {
	case f.Instance == nil:
		return without(c, f, v1alpha1.ReasonInstanceNotFound)
	case !running(f.Instance), f.Instance.GuestUUID() != c.Status.VMUUID:
		return without(c, f, v1alpha1.ReasonRevoked)
	case c.Spec.NotAfter != nil && !f.Now.Before(c.Spec.NotAfter.Time):
		return without(c, f, v1alpha1.ReasonExpired)
	case c.Status.RenewToken != c.Spec.RenewToken, !f.TokenKept:
		return issue(c, f)
	case !f.Now.Before(expiry(c)):
		return without(c, f, v1alpha1.ReasonExpired)
	}
	outcome := reconcile.Done().Because(v1alpha1.ReasonIssued, "the URL opens until "+c.Status.ExpiresAt).After(expiry(c).Sub(f.Now))
	if busy := c.Status.LastBusy(f.Now); !busy.IsZero() {
		outcome = outcome.Because(v1alpha1.ReasonConsoleBusy, "somebody else looks at this console, and the pool lets one session at a time; the URL opens until "+c.Status.ExpiresAt).
			After(busy.Add(v1alpha1.ConsoleBusyFor).Sub(f.Now))
	}
	if c.Spec.NotAfter != nil {
		outcome = outcome.After(c.Spec.NotAfter.Sub(f.Now))
	}
	return Decision{Act: Keep, Outcome: outcome}
}

// without looks at a console that has no token, or loses it now for the reason why ("" if it never had one).
func without(c *v1alpha1.XenConsole, f Facts, why string) Decision {
	had := why != "" || everIssued(c)
	switch {
	case why != "" || !had:
	case c.Status.IssuedAt != nil:
		why = v1alpha1.ReasonRevoked // with the instance that was not there
	default:
		why = v1alpha1.ReasonRestoredWithoutRecord
	}
	asked := c.Spec.Renewal == v1alpha1.RenewalWhileRequested || !had || c.Spec.RenewToken != issuedFor(c)
	over := c.Spec.NotAfter != nil && !f.Now.Before(c.Spec.NotAfter.Time)
	switch {
	case over:
		return ended(c, f, v1alpha1.ReasonExpired, "notAfter is over, so no URL is issued any more")
	case f.Instance == nil:
		return Decision{Act: endIf(live(c)), Why: v1alpha1.ReasonInstanceNotFound, Outcome: reconcile.Wait(v1alpha1.ReasonInstanceNotFound,
			fmt.Sprintf("there is no XenInstance %s in namespace %s yet", c.Spec.InstanceRef.Name, c.Namespace))}
	case !asked && why != v1alpha1.ReasonInstanceNotFound:
		return ended(c, f, why, endMessages[why])
	case !running(f.Instance):
		return awaitGuest(c, f)
	}
	return issue(c, f)
}

var endMessages = map[string]string{
	v1alpha1.ReasonExpired:               "the time to connect is over; set spec.renewToken to a new value for a new URL",
	v1alpha1.ReasonRevoked:               "the guest was stopped or another VM took its place, which ended the URL; set spec.renewToken to a new value for a new one",
	v1alpha1.ReasonRestoredWithoutRecord: "this object had its URL before it was restored; set spec.renewToken to a new value for a new one",
}

// awaitGuest says that there is nothing to look at. A guest that is meant to be off is not waited for: that is its user's word.
func awaitGuest(c *v1alpha1.XenConsole, f Facts) Decision {
	d := Decision{Act: endIf(live(c)), Why: v1alpha1.ReasonInstanceNotRunning}
	message := fmt.Sprintf("XenInstance %s is %s; a URL is issued once it runs", f.Instance.Name, stateOf(f.Instance))
	if f.Instance.DeletionTimestamp.IsZero() && f.Instance.Spec.DesiredPowerState() == v1alpha1.PowerStateRunning {
		d.Outcome = reconcile.Wait(v1alpha1.ReasonInstanceNotRunning, message)
		return d
	}
	d.Outcome = reconcile.Done().Because(v1alpha1.ReasonInstanceNotRunning, message)
	return d
}

// ended is a console whose URL is over and that waits for its user.
func ended(c *v1alpha1.XenConsole, f Facts, why, message string) Decision {
	d := Decision{Act: endIf(live(c)), Why: why, Outcome: reconcile.Done().Because(why, message)}
	if c.Spec.DeleteAfterExpirySeconds == nil {
		return d
	}
	if c.Status.OpenSessions("", f.Now) > 0 {
		return d // deleting it would cut who is still there
	}
	due := endedAt(c, f).Add(time.Duration(*c.Spec.DeleteAfterExpirySeconds) * time.Second)
	if !f.Now.Before(due) {
		d.Act = Delete
		return d
	}
	d.Outcome = d.Outcome.After(due.Sub(f.Now))
	return d
}

// endedAt is when the URL ended: at its expiry, or earlier, when the condition says since when.
func endedAt(c *v1alpha1.XenConsole, f Facts) time.Time {
	for _, condition := range c.Status.Conditions {
		if condition.Type == v1alpha1.ConditionExpired && condition.Status == metav1.ConditionTrue && !condition.LastTransitionTime.IsZero() {
			return condition.LastTransitionTime.Time
		}
	}
	return f.Now
}

func issue(c *v1alpha1.XenConsole, f Facts) Decision {
	d := Decision{Act: Issue, TTL: seconds(c.Spec.TTLSeconds), MaxSession: seconds(c.Spec.MaxSessionSeconds), VMUUID: f.Instance.GuestUUID()}
	if f.Policy != nil {
		d.TTL, d.MaxSession = capped(d.TTL, f.Policy.MaxTTLSeconds), capped(d.MaxSession, f.Policy.MaxSessionSeconds)
	}
	if c.Spec.NotAfter != nil {
		d.TTL = min(d.TTL, c.Spec.NotAfter.Sub(f.Now))
	}
	d.Outcome = reconcile.Done().Because(v1alpha1.ReasonIssued, "the URL opens until "+f.Now.Add(d.TTL).UTC().Format(time.RFC3339)).After(d.TTL)
	return d
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

func capped(d time.Duration, most *int32) time.Duration {
	if most == nil {
		return d
	}
	return min(d, seconds(*most))
}

func endIf(lives bool) Act {
	if lives {
		return End
	}
	return Keep
}

// running tells whether the guest runs, as far as the instance's last pass saw.
func running(i *v1alpha1.XenInstance) bool {
	return i.DeletionTimestamp.IsZero() && i.Status.PowerState == v1alpha1.PowerStateRunning
}

func stateOf(i *v1alpha1.XenInstance) string {
	switch {
	case !i.DeletionTimestamp.IsZero():
		return "being deleted"
	case i.Status.PowerState == "":
		return "not there yet"
	default:
		return string(i.Status.PowerState)
	}
}

// expiry is the end of the time to connect. A status that does not say it (a hand edited it) is taken as over.
func expiry(c *v1alpha1.XenConsole) time.Time {
	at, err := time.Parse(time.RFC3339, c.Status.ExpiresAt)
	if err != nil {
		return time.Time{}
	}
	return at
}

// everIssued tells whether this console, or the one it was restored from, has had a URL.
func everIssued(c *v1alpha1.XenConsole) bool {
	_, marked := c.Annotations[v1alpha1.AnnotationURLIssued]
	return marked || c.Status.IssuedAt != nil
}

// issuedFor is the renewToken that the last URL was issued for.
func issuedFor(c *v1alpha1.XenConsole) string {
	if c.Status.IssuedAt != nil {
		return c.Status.RenewToken
	}
	return c.Annotations[v1alpha1.AnnotationURLIssued]
}

// endedBecause is why a console without a token has none any more; empty if it never had one, or if its status does not say.
func endedBecause(c *v1alpha1.XenConsole) string {
	for _, condition := range c.Status.Conditions {
		if condition.Type == v1alpha1.ConditionExpired && condition.Status == metav1.ConditionTrue {
			return condition.Reason
		}
	}
	return ""
}

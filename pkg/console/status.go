package console

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// sessionsCountFor is how long a gateway's word about its sessions is believed; living gateways say it again well before.
const sessionsCountFor = 3 * time.Minute

// Token is a token that was just made and is where the access puts it.
type Token struct {
	// Digest is what gateways compare.
	Digest string
	// URL is what the status shows; it holds the token with access URLToken only.
	URL string
	// Sealed is the token for the holder of the private key, with access EncryptedToken.
	Sealed string
	// Secret names the Secret that holds it, with access SecretToken.
	Secret string
}

// Report writes a decision into the status. token is given when the decision was Issue.
func Report(c *v1alpha1.XenConsole, d Decision, token *Token, now time.Time) {
	switch d.Act {
	case Issue:
		issued := metav1.NewTime(now.Truncate(time.Second))
		c.Status.URL, c.Status.EncryptedToken, c.Status.TokenSHA256 = token.URL, token.Sealed, token.Digest
		c.Status.SecretRef = nil
		if token.Secret != "" {
			c.Status.SecretRef = &v1alpha1.LocalSecretReference{Name: token.Secret}
		}
		c.Status.IssuedAt, c.Status.RenewToken = &issued, c.Spec.RenewToken
		c.Status.ExpiresAt = now.Add(d.TTL).UTC().Format(time.RFC3339)
		c.Status.MaxSessionSeconds = int32(d.MaxSession / time.Second)
	case End:
		c.Status.URL, c.Status.EncryptedToken, c.Status.TokenSHA256, c.Status.ExpiresAt = "", "", "", ""
		c.Status.SecretRef = nil
	case Keep, Delete:
	}
	setConditions(&c.Status.Conditions, c.Status.TokenSHA256 != "", d)
	c.Status.ActiveSessions, c.Status.LastConnectedAt = sessions(c, now)
}

func setConditions(conditions *[]metav1.Condition, opens bool, d Decision) {
	if opens {
		reconcile.SetCondition(conditions, v1alpha1.ConditionURLIssued, metav1.ConditionTrue, v1alpha1.ReasonIssued, d.Outcome.Message())
		reconcile.SetCondition(conditions, v1alpha1.ConditionExpired, metav1.ConditionFalse, v1alpha1.ReasonValid, "")
		return
	}
	reconcile.SetCondition(conditions, v1alpha1.ConditionURLIssued, metav1.ConditionFalse, d.Why, d.Outcome.Message())
	if _, over := endMessages[d.Why]; over {
		reconcile.SetCondition(conditions, v1alpha1.ConditionExpired, metav1.ConditionTrue, d.Why, d.Outcome.Message())
		return
	}
	reconcile.SetCondition(conditions, v1alpha1.ConditionExpired, metav1.ConditionFalse, v1alpha1.ReasonNotIssued, "")
}

// sessions sums up what the gateways say.
func sessions(c *v1alpha1.XenConsole, now time.Time) (open int32, last *metav1.Time) {
	last = c.Status.LastConnectedAt
	for _, s := range c.Status.Sessions {
		if now.Sub(s.RenewedAt.Time) <= sessionsCountFor {
			open += s.Open
		}
		if s.LastConnectedAt != nil && (last == nil || last.Before(s.LastConnectedAt)) {
			last = s.LastConnectedAt
		}
	}
	return open, last
}

// OpenElsewhere is how many sessions other gateways than the named one hold, as far as they said so lately.
func OpenElsewhere(c *v1alpha1.XenConsole, gateway string, now time.Time) int {
	open := 0
	for _, s := range c.Status.Sessions {
		if s.Gateway != gateway && now.Sub(s.RenewedAt.Time) <= sessionsCountFor {
			open += int(s.Open)
		}
	}
	return open
}

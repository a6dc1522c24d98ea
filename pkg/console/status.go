package console

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

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
		c.Status.VMUUID, c.Status.PublicKeySHA256 = d.VMUUID, KeyDigest(c.Spec.PublicKey)
		if !d.KeepSessions {
			c.Status.Series = token.Digest
		}
		c.Status.IssuedAt, c.Status.RenewToken = &issued, c.Spec.RenewToken
		c.Status.ExpiresAt = now.Add(d.TTL).UTC().Format(time.RFC3339)
		c.Status.MaxSessionSeconds = int32(d.MaxSession / time.Second)
	case End:
		c.Status.URL, c.Status.EncryptedToken, c.Status.TokenSHA256, c.Status.ExpiresAt = "", "", "", ""
		c.Status.SecretRef, c.Status.PublicKeySHA256 = nil, ""
		if !d.KeepSessions {
			c.Status.Series, c.Status.VMUUID = "", ""
		}
	case Keep, Delete:
	}
	setConditions(&c.Status.Conditions, c.Status.TokenSHA256 != "", d)
	c.Status.ActiveSessions, c.Status.LastConnectedAt = c.Status.OpenSessions("", now), lastConnected(c)
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

// lastConnected is when the last session began, as far as the gateways say.
func lastConnected(c *v1alpha1.XenConsole) *metav1.Time {
	last := c.Status.LastConnectedAt
	for _, s := range c.Status.Sessions {
		if s.LastConnectedAt != nil && (last == nil || last.Before(s.LastConnectedAt)) {
			last = s.LastConnectedAt
		}
	}
	return last
}

package main

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// TestProgressOfARescue: what is shown, when it is done, and when it will not go on by itself.
func TestProgressOfARescue(t *testing.T) {
	const on, off = v1alpha1.RescueOn, v1alpha1.RescueOff
	yes, no := metav1.ConditionTrue, metav1.ConditionFalse
	for name, test := range map[string]struct {
		asked   v1alpha1.RescueState
		rescued metav1.Condition
		stalled bool
		text    string
		done    bool
		fails   bool
	}{
		"nothing is known yet": {asked: on, rescued: metav1.Condition{Status: metav1.ConditionUnknown}},
		"on the way":           {asked: on, rescued: metav1.Condition{Status: no, Reason: v1alpha1.ReasonEnteringRescue, Message: "stopping"}, text: "stopping"},
		"in rescue":            {asked: on, rescued: metav1.Condition{Status: yes, Reason: v1alpha1.ReasonRescueActive, Message: "runs"}, text: "in rescue: runs\nthe password is in the Secret web-rescue", done: true},
		"refused":              {asked: on, rescued: metav1.Condition{Status: no, Reason: v1alpha1.ReasonRescueImageUnsuitable, Message: "too big"}, stalled: true, fails: true},
		"timed out before":     {asked: on, rescued: metav1.Condition{Status: no, Reason: v1alpha1.ReasonRescueTimedOut, Message: "over"}, fails: true},
		"on the way back":      {asked: off, rescued: metav1.Condition{Status: no, Reason: v1alpha1.ReasonLeavingRescue, Message: "removing"}, text: "removing"},
		"back":                 {asked: off, rescued: metav1.Condition{Status: no, Reason: v1alpha1.ReasonNotRequested}, text: "back as before: the VM is Running", done: true},
	} {
		t.Run(name, func(t *testing.T) {
			test.rescued.Type = v1alpha1.ConditionRescued
			stalled := metav1.Condition{Type: v1alpha1.ConditionStalled, Status: no}
			if test.stalled {
				stalled.Status = yes
			}
			instance := &v1alpha1.XenInstance{Status: v1alpha1.XenInstanceStatus{
				PowerState:   v1alpha1.PowerStateRunning,
				Rescue:       &v1alpha1.RescueStatus{SecretRef: &v1alpha1.LocalSecretReference{Name: "web-rescue"}},
				CommonStatus: v1alpha1.CommonStatus{Conditions: []metav1.Condition{test.rescued, stalled, {Type: v1alpha1.ConditionReady}}},
			}}
			now, err := (&rescueRequest{state: test.asked}).progress(instance)
			if now.text != test.text || now.done != test.done || (err != nil) != test.fails {
				t.Errorf("%q, done %t, error %v; want %q, %t, %t", strings.TrimSpace(now.text), now.done, err, test.text, test.done, test.fails)
			}
		})
	}
}

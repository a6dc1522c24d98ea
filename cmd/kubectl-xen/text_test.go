package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// TestTextTellsWhatItWaitsFor: while the gateway cannot reach the guest the user is told so, and not left with an empty screen.
func TestTextTellsWhatItWaitsFor(t *testing.T) {
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		var hello control
		if err := wsjson.Read(r.Context(), ws, &hello); err != nil || hello.Token != "token" {
			t.Errorf("the token %q was shown: %v", hello.Token, err)
		}
		for _, said := range []control{{State: "Waiting", Message: "The host cannot be reached."}, {State: "Ended", Message: "It is over."}} {
			if err := wsjson.Write(r.Context(), ws, said); err != nil {
				t.Error(err)
			}
		}
	}))
	t.Cleanup(gateway.Close)
	var out, say strings.Builder
	err := serveText(t.Context(), &trust{}, opened{url: gateway.URL + "/console", token: "token"}, strings.NewReader(""), &out, &say)
	if err == nil || err.Error() != "It is over." {
		t.Errorf("it ends with %v", err)
	}
	if !strings.Contains(say.String(), "[waiting: The host cannot be reached.]") || out.Len() > 0 {
		t.Errorf("it says %q, and the guest %q", say.String(), out.String())
	}
}

// TestArguments: what is wrong on the command line is said with what is wanted, before anything is asked of a cluster.
func TestArguments(t *testing.T) {
	for line, want := range map[string]string{
		"resize --flavor small":                 "resize wants the name of one XenInstance and was given []; kubectl xen resize --help shows how",
		"confirm a b":                           `confirm wants the name of one XenInstance and was given ["a" "b"]`,
		"resize a":                              `required flag(s) "flavor" not set`,
		"resize a --flavor small --timeout -1s": "--timeout -1s: want how long to wait",
		"rescue a --timeout 0s":                 "--timeout 0s: want how long to wait",
		"frob":                                  `unknown command "frob"`,
		"undelete a":                            `required flag(s) "filename" not set`,
		"console a --kubeconfig /nonexistent/config": "/nonexistent/config",
	} {
		t.Run(line, func(t *testing.T) {
			command := newCommand()
			command.SetArgs(strings.Fields(line))
			if err := command.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("it ends with %v, want %q", err, want)
			}
		})
	}
}

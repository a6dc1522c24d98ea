package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// kind is an object of one of our kinds.
type kind interface {
	client.Object
	testkit.Object
}

// tellObjects tells each change of Ready of our objects, and the Events about them, as long as the context lives.
func (e *environment) tellObjects(ctx context.Context) {
	lists := []client.ObjectList{
		&v1alpha1.XenPoolList{}, &v1alpha1.XenFlavorList{}, &v1alpha1.XenClusterImageList{}, &v1alpha1.XenImageList{},
		&v1alpha1.XenInstanceList{}, &eventsv1.EventList{},
	}
	for _, list := range lists {
		told := map[string]string{}
		go e.follow(ctx, list, func(event watch.Event) {
			who, key, text := sentence(event)
			if text != "" && told[key] != text {
				told[key] = text
				e.story.tell(who, "%s", text)
			}
		})
	}
}

// follow watches a kind, again whenever the server ends the watch.
func (e *environment) follow(ctx context.Context, list client.ObjectList, tell func(watch.Event)) {
	for ctx.Err() == nil {
		changes, err := e.client.Watch(ctx, list)
		if err != nil {
			if wait(ctx, time.Second) != nil {
				return
			}
			continue
		}
		for change := range changes.ResultChan() {
			tell(change)
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// sentence is what there is to tell about a change, who says it, and of which object.
func sentence(event watch.Event) (who, key, text string) {
	switch object := event.Object.(type) {
	case kind:
		key = fmt.Sprintf("%T %s/%s", object, object.GetNamespace(), object.GetName())
		if event.Type == watch.Deleted {
			return "kubernetes", key, name(object) + " is gone"
		}
		ready := meta.FindStatusCondition(object.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
		if ready == nil {
			return "", key, ""
		}
		return "kubernetes", key, fmt.Sprintf("%s: Ready=%s %s: %s", name(object), ready.Status, ready.Reason, ready.Message)
	case *eventsv1.Event:
		if event.Type == watch.Deleted {
			return "", "", ""
		}
		return "event", string(object.UID), fmt.Sprintf("%s/%s: %s: %s", strings.ToLower(object.Regarding.Kind), object.Regarding.Name, object.Reason, object.Note)
	}
	return "", "", ""
}

func name(object client.Object) string {
	kind := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", object), "*v1alpha1."))
	if object.GetNamespace() == "" {
		return kind + "/" + object.GetName()
	}
	return fmt.Sprintf("%s/%s in %s", kind, object.GetName(), object.GetNamespace())
}

// call is what the simulator's log of calls says about one.
type call struct {
	Method string `json:"method"`
	Object string `json:"object"` // the name of what it is about, if it has one
	Error  string `json:"error"`
}

// tellCalls tells the XenAPI calls that change something, as the pool saw them.
func (e *environment) tellCalls(ctx context.Context) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(e.simulator.CA))
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
		Timeout:   10 * time.Second,
	}
	for seen := 0; wait(ctx, 200*time.Millisecond) == nil; {
		calls, err := e.callsAfter(ctx, client, seen)
		if err != nil {
			if ctx.Err() == nil {
				e.story.tell("pool", "its log of calls cannot be read: %v", err)
			}
			return
		}
		seen += len(calls)
		for _, c := range calls {
			if changes(c.Method) {
				e.story.tell("pool", "%s", c)
			}
		}
	}
}

func (c call) String() string {
	text := strings.TrimSpace(c.Method + " " + c.Object)
	if c.Error != "" {
		text += " → " + c.Error
	}
	return text
}

func (e *environment) callsAfter(ctx context.Context, client *http.Client, seen int) ([]call, error) {
	address, err := url.JoinPath(e.simulator.Endpoint, "xensim", "calls", "log")
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?after=%d", address, seen), nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	var calls []call
	return calls, json.NewDecoder(response.Body).Decode(&calls)
}

// changes is false for what only reads.
func changes(method string) bool {
	class, verb, _ := strings.Cut(strings.TrimPrefix(method, "Async."), ".")
	return class != "event" && class != "session" && class != "system" && !strings.HasPrefix(verb, "get_")
}

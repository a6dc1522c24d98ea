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
	"sync"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
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

// tellObjects tells each change of Ready of our objects, and the Events about them that say something else, as long as
// the context lives.
func (e *environment) tellObjects(ctx context.Context) {
	lists := []client.ObjectList{
		&v1alpha1.XenPoolList{}, &v1alpha1.XenFlavorList{}, &v1alpha1.XenClusterImageList{}, &v1alpha1.XenImageList{},
		&v1alpha1.XenInstanceList{}, &v1alpha1.XenConsoleList{}, &eventsv1.EventList{},
	}
	told := &memory{said: map[string]struct{}{}}
	for _, list := range lists {
		go e.follow(ctx, list, func(change watch.Event) {
			for _, sentence := range sentences(change) {
				if told.first(sentence.key) {
					e.story.tell(sentence.who, "%s", sentence.text)
				}
			}
		})
	}
}

// memory knows what has been said.
type memory struct {
	mutex sync.Mutex
	said  map[string]struct{}
}

// first is true once for each key.
func (m *memory) first(key string) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	_, before := m.said[key]
	m.said[key] = struct{}{}
	return !before
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

// sentence is something to tell, who says it, and a key that is equal for all who say the same.
type sentence struct{ who, key, text string }

// sentences are what there is to tell about a change.
func sentences(change watch.Event) []sentence {
	switch object := change.Object.(type) {
	case kind:
		if change.Type == watch.Deleted {
			return []sentence{{"kubernetes", string(object.GetUID()) + " gone", name(object) + " is gone"}}
		}
		ready := meta.FindStatusCondition(object.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
		if ready == nil {
			return nil
		}
		text := fmt.Sprintf("%s: Ready=%s %s", name(object), ready.Status, because(ready.Reason, ready.Message))
		return []sentence{{"kubernetes", key(object.GetUID(), ready.Reason, ready.Message), text}}
	case *eventsv1.Event:
		about := object.Regarding
		if change.Type == watch.Deleted || !strings.HasPrefix(about.APIVersion, v1alpha1.GroupVersion.Group+"/") || object.Note == "as asked" {
			return nil
		}
		text := fmt.Sprintf("%s/%s: %s", strings.ToLower(about.Kind), about.Name, because(object.Reason, object.Note))
		return []sentence{{"event", key(about.UID, object.Reason, object.Note), text}}
	}
	return nil
}

// key is of an object and what is said of it: conditions and Events say the same.
func key(uid types.UID, reason, message string) string {
	return strings.Join([]string{string(uid), reason, message}, "|")
}

func because(reason, message string) string {
	if message == "" {
		return reason
	}
	return reason + ": " + message
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
	if strings.Contains(method, "/xensim/") { // ourselves, asking for this
		return false
	}
	class, verb, _ := strings.Cut(strings.TrimPrefix(method, "Async."), ".")
	return class != "event" && class != "session" && class != "system" && !strings.HasPrefix(verb, "get_")
}

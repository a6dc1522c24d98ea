// Package xencachetest shows tests of plans what a cache shows of a pool that they write down as records.
package xencachetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Pool is what a pool has: its records by class, as in "vm", and reference. Nothing ever happens on it.
type Pool map[string]map[string]any

var errNothingHappens = errors.New("nothing happens on this pool")

// View has read look at the pool as the cache of an installation does.
func View(t testing.TB, installation string, pool Pool, read func(xencache.View)) {
	t.Helper()
	cache := xencache.New(xencache.Options{Installation: installation})
	if err := cache.Follow(t.Context(), source{pool}, func() {}); !errors.Is(err, errNothingHappens) {
		t.Fatal(err)
	}
	cache.View(read)
}

// source answers event.from for a pool.
type source struct{ pool Pool }

// EventFrom tells of every record of the classes when it is asked without a token, of nothing with one, and ends instead of waiting.
func (s source) EventFrom(_ context.Context, some []string, token string, wait time.Duration) (xenapi.EventBatch, error) {
	answer := xenapi.EventBatch{Token: "1,0", Serial: 1}
	switch {
	case token == "":
		for _, class := range some {
			for ref, record := range s.pool[class] {
				answer.Events = append(answer.Events, xenapi.Event{Class: class, Operation: xenapi.EventOperationAdd, Ref: ref, Record: record})
			}
		}
	case wait > 0:
		return answer, errNothingHappens
	}
	return answer, nil
}

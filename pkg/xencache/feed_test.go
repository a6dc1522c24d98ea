package xencache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// script is a source that answers from memory: everything of a class for the empty token, the next answer of the
// script otherwise. When the script is over it ends the feed.
type script struct {
	objects map[string][]xenapi.Event
	since   []xenapi.Event // what happened while they were read
	answers []xenapi.EventBatch
	asked   []string // classes read as a whole, in order
}

var errScriptOver = errors.New("the script is over")

func (s *script) EventFrom(_ context.Context, classes []string, token string, wait time.Duration) (xenapi.EventBatch, error) {
	switch {
	case token == "":
		s.asked = append(s.asked, classes[0])
		return xenapi.EventBatch{Events: s.objects[classes[0]], Token: tokenAt(1), Serial: 1}, nil
	case wait == 0:
		return xenapi.EventBatch{Events: s.since, Token: token, Serial: 1}, nil
	}
	if len(s.answers) == 0 {
		return xenapi.EventBatch{}, errScriptOver
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	return answer, nil
}

func tokenAt(generation int) string { return fmt.Sprintf("%020d,%020d", generation, 0) }

func added(class, ref string, record any) xenapi.Event {
	return xenapi.Event{Class: class, Operation: xenapi.EventOperationAdd, Ref: ref, Record: record}
}

func deleted(class, ref string) xenapi.Event {
	return xenapi.Event{Class: class, Operation: xenapi.EventOperationDel, Ref: ref}
}

var web = Key{"XenInstance", "team-a", "web"}

func webVM() xenapi.VM {
	marks := Marks{Installation: "ours", Ref: web, Role: RoleVM, Self: "uuid-web"}
	return xenapi.VM{UUID: "uuid-web", NameLabel: "team-a/web", OtherConfig: marks.OtherConfig(), GuestMetrics: "g1", PowerState: xenapi.VMPowerStateRunning}
}

// seeded is a pool with our VM web (a disk, an interface, a guest that reports) and a stranger's VM.
func seeded() map[string][]xenapi.Event {
	return map[string][]xenapi.Event{
		"pool":             {added("pool", "p", xenapi.Pool{UUID: "uuid-pool"})},
		"vm":               {added("vm", "v1", webVM()), added("vm", "v2", xenapi.VM{UUID: "uuid-stranger", NameLabel: "stranger"})},
		"vm_guest_metrics": {added("vm_guest_metrics", "g1", xenapi.VMGuestMetrics{UUID: "uuid-g1"})},
		"vdi":              {added("vdi", "d1", xenapi.VDI{UUID: "uuid-d1"})},
		"vbd":              {added("vbd", "b1", xenapi.VBD{VM: "v1", VDI: "d1"})},
		"vif":              {added("vif", "i1", xenapi.VIF{VM: "v1"}), added("vif", "i2", xenapi.VIF{VM: "v2"})},
		"task":             {added("task", "t1", xenapi.Task{Status: xenapi.TaskStatusPending})},
	}
}

// play lets a cache follow a script and returns the cache and the changes that it told after the first reading.
func play(t *testing.T, prepare func(*Cache), source *script) (*Cache, []Change) {
	t.Helper()
	var told []Change
	cache := New(Options{Pool: t.Name(), Installation: "ours", Notify: func(c Change) { told = append(told, c) }})
	if prepare != nil {
		prepare(cache)
	}
	err := cache.Follow(t.Context(), source, func() { told = nil })
	if !errors.Is(err, errScriptOver) {
		t.Fatalf("the feed ended with %v", err)
	}
	return cache, told
}

func TestAChangeWakesWhomItConcerns(t *testing.T) {
	vm := webVM()
	vm.PowerState = xenapi.VMPowerStateHalted
	unmarked := webVM()
	unmarked.OtherConfig = nil
	clone := xenapi.VM{UUID: "uuid-clone", NameLabel: MarkName("ours", Key{"XenInstance", "team-b", "db"}, RoleVM), OtherConfig: webVM().OtherConfig}
	foreign := xenapi.VM{UUID: "uuid-f", OtherConfig: Marks{Installation: "theirs", Ref: web}.OtherConfig()}
	heartbeat := webVM()
	heartbeat.AllowedOperations = []xenapi.VMOperation{"start"}
	for name, tc := range map[string]struct {
		event xenapi.Event
		wakes []Key
		pool  bool
		count bool
	}{
		"our VM changed":                         {event: added("vm", "v1", vm), wakes: []Key{web}},
		"our VM is gone":                         {event: deleted("vm", "v1"), wakes: []Key{web}, count: true},
		"our VM lost its mark":                   {event: added("vm", "v1", unmarked), wakes: []Key{web}, count: true},
		"our VM with what nobody reads":          {event: added("vm", "v1", heartbeat)},
		"a stranger's VM changed":                {event: added("vm", "v2", xenapi.VM{UUID: "uuid-stranger", NameLabel: "renamed"})},
		"a VM of another installation came":      {event: added("vm", "v3", foreign), count: true},
		"a clone came whose name is the mark":    {event: added("vm", "v3", clone), wakes: []Key{{"XenInstance", "team-b", "db"}}, count: true},
		"the guest of our VM reported":           {event: added("vm_guest_metrics", "g1", xenapi.VMGuestMetrics{UUID: "uuid-g1", PVDriversDetected: true}), wakes: []Key{web}},
		"an unmarked disk on our VM grew":        {event: added("vdi", "d1", xenapi.VDI{UUID: "uuid-d1", VirtualSize: 9}), wakes: []Key{web}},
		"a disk was attached to our VM":          {event: added("vbd", "b2", xenapi.VBD{VM: "v1", VDI: "d9"}), wakes: []Key{web}},
		"a disk was detached from our VM":        {event: deleted("vbd", "b1"), wakes: []Key{web}},
		"an interface of our VM changed":         {event: added("vif", "i1", xenapi.VIF{VM: "v1", CurrentlyAttached: true}), wakes: []Key{web}},
		"an interface of a stranger's VM":        {event: added("vif", "i2", xenapi.VIF{VM: "v2", CurrentlyAttached: true})},
		"a network came":                         {event: added("network", "n", xenapi.Network{UUID: "uuid-n"}), pool: true},
		"the pool's heart-beat":                  {event: added("pool", "p", xenapi.Pool{UUID: "uuid-pool", LastUpdateSync: time.Unix(5, 0)})},
		"the pool's writer mark":                 {event: added("pool", "p", xenapi.Pool{UUID: "uuid-pool", OtherConfig: map[string]string{MarkWriter: "ours"}}), pool: true},
		"the task that somebody waits for ended": {event: added("task", "t1", xenapi.Task{Status: xenapi.TaskStatusSuccess}), wakes: []Key{{"XenInstance", "team-a", "waits"}}},
		"the task that somebody waits for left":  {event: deleted("task", "t1"), wakes: []Key{{"XenInstance", "team-a", "waits"}}},
		"the task that somebody waits for moved": {event: added("task", "t1", xenapi.Task{Status: xenapi.TaskStatusPending, Progress: 0.5})},
		"a class that nobody follows":            {event: added("message", "m", nil)},
	} {
		t.Run(name, func(t *testing.T) {
			wait := func(c *Cache) { c.WakeOnTask("t1", Key{"XenInstance", "team-a", "waits"}) }
			_, told := play(t, wait, &script{objects: seeded(), answers: []xenapi.EventBatch{
				{Token: tokenAt(2), Serial: 1, Events: []xenapi.Event{tc.event}},
			}})
			var got Change
			for _, change := range told {
				got.Keys = append(got.Keys, change.Keys...)
				got.Pool, got.Counts = got.Pool || change.Pool, got.Counts || change.Counts
			}
			if !slices.Equal(got.Keys, tc.wakes) || got.Pool != tc.pool || got.Counts != tc.count {
				t.Errorf("told %+v, want keys %v, pool %t, counts %t", got, tc.wakes, tc.pool, tc.count)
			}
		})
	}
}

func TestOneBatchInAnyOrderWakesTheOwner(t *testing.T) {
	disk := added("vbd", "b9", xenapi.VBD{VM: "v9", VDI: "d1"})
	vm := webVM()
	vm.UUID = "uuid-9"
	_, told := play(t, nil, &script{objects: map[string][]xenapi.Event{}, answers: []xenapi.EventBatch{
		{Token: tokenAt(2), Serial: 1, Events: []xenapi.Event{disk, added("vm", "v9", vm)}},
	}})
	if len(told) != 1 || !slices.Equal(told[0].Keys, []Key{web}) {
		t.Errorf("told %+v, want one change for %v", told, web)
	}
}

func TestAnUnmarkedVMWakesItsWatcherUntilForgotten(t *testing.T) {
	watcher := Key{"XenInstance", "team-a", "adopts"}
	change := func(state xenapi.VMPowerState) xenapi.EventBatch {
		return xenapi.EventBatch{Token: tokenAt(2), Serial: 1, Events: []xenapi.Event{
			added("vm", "v2", xenapi.VM{UUID: "uuid-stranger", PowerState: state}),
		}}
	}
	watch := func(c *Cache) { c.WakeOn("uuid-stranger", watcher); c.WakeOn("uuid-stranger", watcher) }
	_, told := play(t, watch, &script{objects: seeded(), answers: []xenapi.EventBatch{change(xenapi.VMPowerStateRunning)}})
	if len(told) != 1 || !slices.Equal(told[0].Keys, []Key{watcher}) {
		t.Errorf("told %+v, want one change for %v", told, watcher)
	}
	forget := func(c *Cache) { watch(c); c.Forget(watcher) }
	_, told = play(t, forget, &script{objects: seeded(), answers: []xenapi.EventBatch{change(xenapi.VMPowerStateRunning)}})
	if len(told) != 0 {
		t.Errorf("told %+v to who no longer watches", told)
	}
}

func TestAMissedDeletionIsFoundByTheCounts(t *testing.T) {
	// Given a pool that forgot to tell that the stranger's VM was destroyed.
	source := &script{objects: seeded()}
	gone := xenapi.EventBatch{Token: tokenAt(2), Serial: 1, ValidRefCounts: map[string]int64{"vm": 1, "vif": 2, "message": 7}}
	once := xenapi.EventBatch{Token: tokenAt(2), Serial: 1, ValidRefCounts: map[string]int64{"vm": 2, "vif": 2}}
	source.answers = []xenapi.EventBatch{gone, once, gone, gone, gone}
	cache := New(Options{Pool: t.Name(), Installation: "ours"})
	// When its counts differ twice in a row, the class is read anew, and only that class.
	err := cache.Follow(t.Context(), source, func() {
		source.asked = nil
		source.objects["vm"] = source.objects["vm"][:1]
	})
	if !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	if !slices.Equal(source.asked, []string{"vm"}) {
		t.Errorf("read anew: %v, want vm once", source.asked)
	}
	cache.View(func(v View) {
		if _, vm := v.VMByUUID("uuid-stranger"); vm != nil {
			t.Error("the destroyed VM is still there")
		}
		if _, vm := v.VMByUUID("uuid-web"); vm == nil {
			t.Error("the living VM is gone")
		}
	})
}

func TestACountThatNeverFitsIsNotReadForEver(t *testing.T) {
	source := &script{objects: seeded()}
	for range 20 {
		source.answers = append(source.answers, xenapi.EventBatch{Token: tokenAt(2), Serial: 1, ValidRefCounts: map[string]int64{"vm": 5}})
	}
	cache := New(Options{Pool: t.Name()})
	if err := cache.Follow(t.Context(), source, func() { source.asked = nil }); !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	if !slices.Equal(source.asked, []string{"vm"}) {
		t.Errorf("read anew: %v, want vm once", source.asked)
	}
}

func TestATokenThatGoesBackMeansReadingEverything(t *testing.T) {
	source := &script{objects: seeded(), answers: []xenapi.EventBatch{{Token: tokenAt(0), Serial: 1}}}
	cache := New(Options{Pool: t.Name()})
	if err := cache.Follow(t.Context(), source, func() { source.asked = nil }); !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	if !slices.Equal(source.asked, classes) {
		t.Errorf("read anew: %v", source.asked)
	}
}

func TestAnotherSessionEndsTheFeedBeforeItsAnswerIsTaken(t *testing.T) {
	other := xenapi.EventBatch{Token: tokenAt(2), Serial: 2, Events: []xenapi.Event{deleted("vm", "v1")}}
	cache := New(Options{Pool: t.Name()})
	err := cache.Follow(t.Context(), &script{objects: seeded(), answers: []xenapi.EventBatch{other}}, func() {})
	if !errors.Is(err, ErrNewSession) {
		t.Fatalf("the feed ended with %v", err)
	}
	cache.View(func(v View) {
		if v.VM("v1") == nil {
			t.Error("what another session told was believed")
		}
	})
}

func TestAReconnectionTellsOnlyWhatChanged(t *testing.T) {
	var told []Change
	cache := New(Options{Pool: t.Name(), Installation: "ours", Notify: func(c Change) { told = append(told, c) }})
	waiting := Key{"XenInstance", "team-a", "waits"}
	if err := cache.Follow(t.Context(), &script{objects: seeded()}, func() {}); !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	cache.WakeOnTask("t1", waiting)
	told = nil
	after := seeded()
	delete(after, "task") // the toolstack restarted
	if err := cache.Follow(t.Context(), &script{objects: after}, func() {}); !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	var keys []Key
	for _, change := range told {
		keys = append(keys, change.Keys...)
	}
	if !slices.Equal(keys, []Key{waiting}) {
		t.Errorf("woken: %v, want only who waits for the lost task", keys)
	}
}

// A VM that is destroyed while everything is read anew must not be seen gone with its disks still on it.
func TestEverythingIsReadAsOfOneMoment(t *testing.T) {
	var cache *Cache
	cache = New(Options{Pool: t.Name(), Installation: "ours", Notify: func(Change) {
		cache.View(func(v View) {
			if v.VM("v1") == nil && len(v.VBDsOf("v1")) > 0 {
				t.Error("the VM is gone and its disk is on it")
			}
		})
	}})
	if err := cache.Follow(t.Context(), &script{objects: seeded()}, func() {}); !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	late := &script{objects: seeded(), since: []xenapi.Event{deleted("vbd", "b1"), deleted("vif", "i1"), deleted("vm", "v1")}}
	late.objects["vm"] = late.objects["vm"][1:] // it went before the VMs were read, and after the answer that the token is of
	if err := cache.Follow(t.Context(), late, func() {}); !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	cache.View(func(v View) {
		if v.VM("v1") != nil || len(v.VBDsOf("v1")) > 0 {
			t.Error("what happened meanwhile was not taken over")
		}
	})
}

func TestWaitReturnsWhenTheChangeIsSeen(t *testing.T) {
	cache := New(Options{Pool: t.Name()})
	halted := func(v View) bool {
		vm := v.VM("v1")
		return vm != nil && vm.PowerState == xenapi.VMPowerStateHalted
	}
	if err := cache.Wait(t.Context(), time.Millisecond, halted); !errors.Is(err, ErrNotSeen) {
		t.Errorf("before the change Wait says %v", err)
	}
	seen := make(chan error)
	go func() { seen <- cache.Wait(t.Context(), time.Minute, halted) }()
	vm := webVM()
	vm.PowerState = xenapi.VMPowerStateHalted
	cache.update(tokenAt(2), func(b *batch) { b.apply(added("vm", "v1", vm)) })
	if err := <-seen; err != nil {
		t.Errorf("after the change Wait says %v", err)
	}
	inject := func(context.Context, string, string) (string, error) { return tokenAt(3), nil }
	go func() { seen <- cache.CatchUp(t.Context(), time.Minute, inject) }()
	cache.update(tokenAt(3), func(*batch) {})
	if err := <-seen; err != nil {
		t.Errorf("at the injected token CatchUp says %v", err)
	}
}

func TestIndexesFollowTheRows(t *testing.T) {
	cache, _ := play(t, nil, &script{objects: seeded(), answers: []xenapi.EventBatch{{Token: tokenAt(2), Serial: 1, Events: []xenapi.Event{
		added("vm", "v3", xenapi.VM{UUID: "uuid-snap", IsASnapshot: true, SnapshotOf: "v1", NameLabel: "stranger"}),
		added("vdi", "d2", xenapi.VDI{UUID: "uuid-d2", SnapshotOf: "d1", OtherConfig: webVM().OtherConfig}),
		deleted("vbd", "b1"),
	}}}})
	cache.View(func(v View) {
		for what, got := range map[string]struct{ have, want any }{
			"by mark":             {v.VMsByMark("ours", web), []xenapi.VMRef{"v1"}},
			"by another's mark":   {len(v.VMsByMark("theirs", web)), 0},
			"by name":             {v.VMsByName("stranger"), []xenapi.VMRef{"v2", "v3"}},
			"snapshots of a VM":   {v.SnapshotsOf("v1"), []xenapi.VMRef{"v3"}},
			"snapshots of a disk": {v.VDISnapshotsOf("d1"), []xenapi.VDIRef{"d2"}},
			"disks by mark":       {v.VDIsByMark("ours", web), []xenapi.VDIRef{"d2"}},
			"interfaces of a VM":  {v.VIFsOf("v1"), []xenapi.VIFRef{"i1"}},
			"devices of a VM":     {len(v.VBDsOf("v1")), 0},
		} {
			if fmt.Sprint(got.have) != fmt.Sprint(got.want) {
				t.Errorf("%s: %v, want %v", what, got.have, got.want)
			}
		}
	})
}

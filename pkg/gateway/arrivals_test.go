package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatComesLateIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late arrivals
		var there atomic.Bool
		go func() {
			<-time.After(lateFor / 4)
			late.tell() // of something else
			<-time.After(lateFor / 4)
			there.Store(true)
			late.tell()
		}()
		began := time.Now()
		if !late.await(t.Context(), there.Load) {
			t.Error("what came in time was not found")
		}
		if took := time.Since(began); took != lateFor/2 {
			t.Errorf("it was found after %s", took)
		}
		if began = time.Now(); late.await(t.Context(), func() bool { return false }) || time.Since(began) != lateFor {
			t.Errorf("what never comes was awaited for %s", time.Since(began))
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if began = time.Now(); late.await(ended, func() bool { return false }) || time.Since(began) != 0 {
			t.Error("who has left was answered late")
		}
	})
}

func TestOnlySoManyWaitForWhatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late arrivals
		var all sync.WaitGroup
		for range lateMost {
			all.Go(func() { late.await(t.Context(), func() bool { return false }) })
		}
		synctest.Wait()
		if began := time.Now(); late.await(t.Context(), func() bool { return false }) || time.Since(began) != 0 {
			t.Error("one too many was let wait")
		}
		all.Wait()
		if began := time.Now(); late.await(t.Context(), func() bool { return false }) || time.Since(began) != lateFor {
			t.Error("those who left still count")
		}
	})
}

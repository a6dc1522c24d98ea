package main

import (
	"fmt"
	"runtime"
	"time"
)

// cost is what one run took.
type cost struct {
	milliseconds float64
	mallocs      float64
	mebibytes    float64
}

// side is one way of doing the thing that is compared.
type side struct {
	name string
	run  func() error
}

// compare runs ours and theirs in turn, so that what the machine does meanwhile meets both, and returns the medians.
func compare(rounds int, ours, theirs side) (cost, cost, error) {
	var a, b []cost
	for range rounds {
		for _, one := range []struct {
			side side
			into *[]cost
		}{{ours, &a}, {theirs, &b}} {
			c, err := measure(one.side.run)
			if err != nil {
				return cost{}, cost{}, fmt.Errorf("%s: %w", one.side.name, err)
			}
			*one.into = append(*one.into, c)
		}
	}
	return medianCost(a), medianCost(b), nil
}

func measure(run func() error) (cost, error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	err := run()
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	return cost{
		milliseconds: float64(took) / float64(time.Millisecond),
		mallocs:      float64(after.Mallocs - before.Mallocs),
		mebibytes:    float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20),
	}, err
}

func medianCost(costs []cost) cost {
	var ms, mallocs, mib []float64
	for _, c := range costs {
		ms, mallocs, mib = append(ms, c.milliseconds), append(mallocs, c.mallocs), append(mib, c.mebibytes)
	}
	return cost{median(ms), median(mallocs), median(mib)}
}

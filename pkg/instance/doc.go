// Package instance keeps one VM on a pool as its XenInstance asks.
//
// A pass has four parts, each in its own file or files, and each readable without the others:
//
//   - observe.go looks at the pool's objects in memory and says what is (Facts, in facts.go); want.go says what is asked
//     for (Want), with every name resolved.
//   - plan.go decides: a pure function from facts to the steps that are still to be taken. The order of its policies is
//     the order of what matters: deletion before ownership before building before changes before power.
//   - create.go, sizes.go, disks.go, networks.go, configdrive.go, power.go, adopt.go and delete.go hold the sequences,
//     each step with the predicate that says when it is done and the act that brings it about. execute.go takes the
//     first step that does not hold.
//   - status.go says what the user sees. It is pure and the only place that sets conditions.
//
// Nothing here remembers what it has done: the next step follows from what is on the pool, so a crash anywhere is
// followed by planning again. Two things are remembered in the process and may be lost: the task that an act has
// started, and that an act's effect has not come back as an event yet (execute.go).
//
// The package knows the XenAPI and its cache, but neither the API server nor the registry of pools: the controller hands
// in what it needs of both (Inputs).
//
// Begin reading with plan.go.
package instance

// Package v1alpha1 holds the kinds of the group kubexen.io: what a user writes, what the operator answers, and the
// rules that the API server holds both to. It decides nothing and calls nothing.
//
// Begin with xeninstance_types.go (the kind that everything else serves; its words and its status have files of their
// own), then conditions.go (the vocabulary of every answer) and references.go (how kinds name each other). A rule that
// depends on the object alone stands here as a CEL marker; a rule that depends on the pool is a reason in conditions.go
// and is decided by the controllers.
//
// Conventions of the group:
//
//   - A field nobody acts on does not exist yet.
//   - The operator never writes a spec. CRD defaults stand on the top level of a spec only; what depends on the source
//     or sits deeper is defaulted by a method of the type (defaults.go).
//   - Every string and list has a maximum; sizes are quantities, durations are integers ending in Seconds.
//   - Doc comments of fields are what `kubectl explain` prints: shape, unit, default, what happens on a change.
//
// +kubebuilder:object:generate=true
// +groupName=kubexen.io
package v1alpha1

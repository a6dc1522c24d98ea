// Package controllers binds the kinds to the domain: one file a kind says what is watched, which permissions that
// takes, and how one pass reads. What is decided and done stands in pkg/pool, pkg/image and pkg/instance.
//
// manager.go puts them together; main.go and the programs of hack/ start it.
package controllers

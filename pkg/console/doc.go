// Package console decides when a XenConsole has a URL: whether one is to be issued, kept, renewed or ended, what the status then says,
// and when to look again. Decide is a pure function of the spec, the status, the instance and the clock; token.go makes and seals
// tokens. Nothing here talks to a pool: a URL costs no XenAPI call.
//
// Begin reading at Decide (decide.go).
package console

// Package db is the database of a pool: for each class of the data model a table of objects, found by reference, uuid
// and name, with the generation numbers that events are made of.
//
// A DB has no lock of its own: whoever owns it calls it from one goroutine at a time. A Record is never changed after
// it was given out, so a reader may keep one without holding anything.
package db

// Package stores starts, for tests, the stores that images and snapshots are kept in: a real S3 server (versitygw), a
// real OpenStack image service (Debian's Glance) with a real identity service (Keystone), and a web server with ranges
// and PUT. Each serves on loopback and ends with its test. Faulty stands before any of them and fails as told.
//
// A program that is missing fails the test and says how to get it.
package stores

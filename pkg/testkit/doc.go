// Package testkit is what tests of the operator stand on: a real control plane that one test process shares, a
// namespace a test, manifests and builders that read like them, waiting for conditions, the check that generic tools
// read our status right (kstatus), a simulated pool with other people's machines on it, and the crash harness.
//
// It imports the kinds and the simulator, and nothing that it is used to test: a manager is handed to it as a function.
//
// Begin reading at Start for one test, at Workflow for the crash harness.
package testkit

package xapi

// registerOwn registers the messages that the toolstack itself implements: sessions, tasks, events, messages. What
// the classes of a pool do is registered from outside.
func registerOwn(p *Pool) {
	registerSessions(p)
	registerTasks(p)
	registerEvents(p)
	registerMessages(p)
	p.Handle("VDI.set_sharable", permissionDenied)
	p.Handle("VDI.set_read_only", permissionDenied)
	p.Handle("VDI.set_virtual_size", permissionDenied)
}

func permissionDenied(*Call) (any, error) { return nil, Fail("PERMISSION_DENIED", "") }

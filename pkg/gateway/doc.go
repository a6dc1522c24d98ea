// Package gateway is the way from a user's screen to a guest's console. It checks a token, serves the page, and moves bytes
// between a browser (WebSocket), a viewer (XVP, or any VNC client through kubectl xen vnc) and the host on which the VM runs.
//
// It keeps no state of its own: what a token opens stands in XenConsole objects, whether the guest runs in XenInstance objects,
// and any number of replicas may serve them. It writes only what it alone can know: how many sessions are open through it, and
// Events that say who was connected, when and for how long. It never decides whether a console may exist; that is pkg/console.
//
// A session of the XenAPI and the user's token are never in a log, an error or a URL that leaves this package.
//
// Begin reading at Server (server.go), then session.go, which is one user's visit from the token to the last byte.
package gateway

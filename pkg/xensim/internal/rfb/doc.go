// Package rfb is the console of a simulated VM: a small text screen, a VNC server that shows it (the RFB protocol 3.3, 3.7
// and 3.8, RFC 6143), a vt100 terminal that shows the same, and a relay to a VNC server elsewhere.
//
// A Screen belongs to one VM and is shared by everyone who looks at it; Serve and ServeVT100 each speak to one viewer. What
// viewers type is echoed on the screen, which is all that this guest does.
//
// What does not live here: who may look, and where consoles are found. Begin reading at Screen.
package rfb

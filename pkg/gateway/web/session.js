// A session with the gateway: one WebSocket whose text frames are control and whose binary frames are the console's bytes. A reboot of
// the guest ends one stream and begins another inside the same session. The frames are described in browser.go.

// Channel looks like a WebSocket to whoever reads one stream of the guest.
class Channel {
    constructor(socket) {
        this.socket = socket;
        this.binaryType = "arraybuffer";
        this.protocol = "";
        this.readyState = WebSocket.OPEN;
        this.onopen = this.onmessage = this.onclose = this.onerror = null;
    }

    send(data) {
        if (this.readyState === WebSocket.OPEN) {
            this.socket.send(data);
        }
    }

    // Who reads a stream may leave it; the session stays.
    close() {
        this.end();
    }

    take(data) {
        this.onmessage?.({ data });
    }

    end() {
        if (this.readyState !== WebSocket.CLOSED) {
            this.readyState = WebSocket.CLOSED;
            this.onclose?.({ code: 1000, reason: "", wasClean: true });
        }
    }
}

export class Session {
    // events: accepted(m), waiting(m), connected(channel), detached(), ended({cause, message})
    constructor(url, token, events) {
        this.url = url;
        this.token = token;
        this.events = events;
        this.channel = null;
        this.tries = 0;
        this.over = false;
    }

    open() {
        this.url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
        const socket = this.socket = new WebSocket(this.url);
        socket.binaryType = "arraybuffer";
        let admitted = false;
        let farewell = null;
        socket.onopen = () => socket.send(JSON.stringify({ token: this.token }));
        socket.onmessage = (e) => {
            if (typeof e.data !== "string") {
                this.channel?.take(e.data);
                return;
            }
            const m = JSON.parse(e.data);
            if (m.state === "Ended") {
                farewell = m;
            } else {
                admitted = true;
                this.tries = 0;
                if (!this.over) {
                    this.control(socket, m);
                }
            }
        };
        socket.onclose = () => {
            this.drop();
            this.closed(farewell, admitted);
        };
    }

    // The user goes elsewhere; nothing more is told.
    leave() {
        this.over = true;
        this.drop();
        this.socket.close();
    }

    control(socket, m) {
        switch (m.state) {
            case "Accepted":
                this.events.accepted(m);
                break;
            case "Waiting":
                this.events.waiting(m);
                break;
            case "Connected":
                this.drop();
                socket.send(JSON.stringify({ stream: m.stream }));
                this.channel = new Channel(socket);
                this.events.connected(this.channel);
                break;
            case "Detached":
                this.drop();
                this.events.detached();
                break;
        }
    }

    drop() {
        this.channel?.end();
        this.channel = null;
    }

    // A gateway that restarts, or a network that breaks, is tried again a few times; everything else is said to the user.
    closed(farewell, admitted) {
        if (this.over) {
            return;
        }
        const transient = !farewell || farewell.cause === "Draining" || farewell.cause === "PeerGone";
        if (transient && this.tries < 6 && (admitted || this.tries > 0)) {
            this.tries++;
            this.events.waiting({ message: "The gateway does not answer. Trying again." });
            setTimeout(() => this.over || this.open(), Math.min(4000, 250 * 2 ** this.tries));
            return;
        }
        this.over = true;
        this.events.ended(farewell || { cause: "Closed", message: "The gateway closed the connection." });
    }
}

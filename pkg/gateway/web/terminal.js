// A guest's text console: xterm.js on one stream after the other.
import { Terminal as XTerm } from "./xterm/xterm.mjs";
import { FitAddon } from "./xterm/addon-fit.mjs";

export class Terminal {
    constructor(element, viewOnly) {
        element.replaceChildren();
        this.channel = null;
        this.bytes = new TextEncoder();
        this.term = new XTerm({ cursorBlink: true, disableStdin: !!viewOnly, fontSize: 15, scrollback: 5000, theme: { background: "#10141b" } });
        this.fitting = new FitAddon();
        this.term.loadAddon(this.fitting);
        this.term.open(element);
        this.fitting.fit();
        this.resized = new ResizeObserver(() => this.fitting.fit());
        this.resized.observe(element);
        this.term.onData((data) => this.send(data));
    }

    send(data) {
        this.channel?.send(this.bytes.encode(data));
    }

    attach(channel) {
        this.channel = channel;
        channel.onmessage = (e) => this.term.write(new Uint8Array(e.data));
    }

    detach() {
        this.channel = null;
    }

    close() {
        this.resized.disconnect();
        this.term.dispose();
    }

    focus() {
        this.term.focus();
    }

    scale() {}

    ctrlAltDel() {}

    async type(text) {
        this.send(text.replaceAll("\r\n", "\r").replaceAll("\n", "\r").replaceAll("\b", "\x7f"));
    }
}

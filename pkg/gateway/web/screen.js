// A guest's screen: noVNC on one stream after the other.
import RFB from "./novnc/core/rfb.js";

const SHIFT = 0xffe1;
const KEYS = { Enter: 0xff0d, Backspace: 0xff08, Tab: 0xff09 };
const SHIFTED = /[A-Z~!@#$%^&*()_+{}|:"<>?]/; // on the US layout that pasting expects

function keysym(character) {
    switch (character) {
        case "\n": return KEYS.Enter;
        case "\t": return KEYS.Tab;
        case "\b": return KEYS.Backspace;
    }
    const point = character.codePointAt(0);
    return point < 0x100 ? point : 0x01000000 | point;
}

export class Screen {
    constructor(element, viewOnly) {
        this.element = element;
        this.viewOnly = viewOnly;
        this.fit = true;
        this.rfb = null;
    }

    attach(channel) {
        this.detach();
        this.element.replaceChildren();
        this.rfb = new RFB(this.element, channel, { shared: true });
        this.rfb.viewOnly = this.viewOnly;
        this.rfb.background = "transparent";
        this.rfb.showDotCursor = true;
        this.scale(this.fit);
        this.rfb.addEventListener("clipboard", (e) => navigator.clipboard?.writeText(e.detail.text).catch(() => {}));
    }

    // The last picture stays until the next stream, or until the notice covers it.
    detach() {
        this.rfb?.disconnect();
        this.rfb = null;
    }

    close() {
        this.detach();
        this.element.replaceChildren();
    }

    focus() {
        this.rfb?.focus({ preventScroll: true });
    }

    scale(fit) {
        this.fit = fit;
        if (this.rfb) {
            this.rfb.scaleViewport = fit;
            this.rfb.clipViewport = !fit;
            this.rfb.dragViewport = !fit && matchMedia("(pointer: coarse)").matches;
        }
    }

    ctrlAltDel() {
        this.rfb?.sendCtrlAltDel();
    }

    // A guest takes keys slower than a clipboard gives them.
    async type(text) {
        for (const character of text.replaceAll("\r\n", "\n")) {
            const rfb = this.rfb;
            if (!rfb) {
                return;
            }
            const shift = SHIFTED.test(character);
            if (shift) {
                rfb.sendKey(SHIFT, null, true);
            }
            rfb.sendKey(keysym(character), null);
            if (shift) {
                rfb.sendKey(SHIFT, null, false);
            }
            await new Promise((done) => setTimeout(done, 4));
        }
    }
}

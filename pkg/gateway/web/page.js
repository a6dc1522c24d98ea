// The page around a console: it opens the session, shows its state, and gives each stream of the guest to a screen or a terminal.
import { Session } from "./session.js";
import { Screen } from "./screen.js";
import { Terminal } from "./terminal.js";

const $ = (id) => document.getElementById(id);
const TOKEN = "kubexen.console.token";

// The token comes in the fragment, which no server sees. It leaves the address bar at once, so that it is in no history and no
// screenshot, and stays with this tab, so that a reload works.
function takeToken() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) {
        sessionStorage.setItem(TOKEN, given);
        history.replaceState(null, "", location.pathname);
    }
    return sessionStorage.getItem(TOKEN);
}

const view = {
    state(state, text) {
        document.body.dataset.state = state;
        $("state").textContent = text;
        for (const button of ["cad", "paste", "keyboard"]) {
            $(button).disabled = state !== "connected";
        }
    },
    notice(title, text, again) {
        $("notice").hidden = !title;
        $("notice-title").textContent = title || "";
        $("notice-text").textContent = text || "";
        $("again").hidden = !again;
    },
};

let surface = null; // what shows the guest: a Screen or a Terminal
let session = null;
let typing = Promise.resolve(); // what is typed or pasted goes in one after the other

function accepted(m) {
    $("name").textContent = m.namespace + "/" + m.instance;
    document.title = m.instance + " – console";
    document.body.dataset.type = m.type;
    document.body.toggleAttribute("data-readonly", !!m.viewOnly);
    surface?.close();
    surface = m.type === "Text" ? new Terminal($("console"), m.viewOnly) : new Screen($("console"), m.viewOnly);
    surface.scale($("scale").getAttribute("aria-pressed") === "true");
    view.state("waiting", "Waiting for the guest");
}

// The ends after which the same URL may open again.
const again = new Set(["Closed", "Changed", "Draining", "MaxSessionSeconds", "PeerGone", "Unavailable", "ConsoleBusy", "TooManySessions"]);

function type(text) {
    typing = typing.then(() => surface?.type(text)).catch(() => {});
    return typing;
}

function connect() {
    session?.leave();
    const token = takeToken();
    if (!token) {
        view.state("ended", "No token");
        view.notice("Nothing to open", "Open this page with the URL that kubectl get xenconsole prints.", false);
        return;
    }
    view.state("connecting", "Connecting");
    view.notice();
    session = new Session(new URL("socket", location.href), token, {
        accepted,
        waiting(m) {
            view.state("waiting", "Waiting for the guest");
            view.notice("Waiting for the guest", m.message, false);
        },
        connected(channel) {
            surface.attach(channel);
            view.state("connected", "Connected");
            view.notice();
            surface.focus();
        },
        detached() {
            surface.detach();
            view.state("waiting", "The guest restarts");
            view.notice("The guest restarts", "The page connects to the new screen by itself.", false);
        },
        ended(m) {
            surface?.detach();
            view.state("ended", "Ended");
            view.notice("Session ended", m.message, again.has(m.cause));
            if (again.has(m.cause)) {
                $("again").focus();
            }
        },
    });
    session.open();
}

$("again").addEventListener("click", connect);
$("cad").addEventListener("click", () => { surface?.ctrlAltDel(); surface?.focus(); });
$("scale").addEventListener("click", () => {
    const on = $("scale").getAttribute("aria-pressed") !== "true";
    $("scale").setAttribute("aria-pressed", String(on));
    $("scale").textContent = on ? "Fit" : "1:1";
    surface?.scale(on);
});
$("full").addEventListener("click", async () => {
    if (document.fullscreenElement) {
        await document.exitFullscreen();
        return;
    }
    await document.documentElement.requestFullscreen({ navigationUI: "hide" });
    await navigator.keyboard?.lock?.().catch(() => {}); // a browser that cannot lock keys keeps its own
    surface?.focus();
});
$("help").addEventListener("click", () => $("help-dialog").showModal());
$("paste").addEventListener("click", () => { $("paste-text").value = "";
    $("paste-dialog").returnValue = ""; // Escape leaves the last one
    $("paste-dialog").showModal();
});
$("paste-dialog").addEventListener("close", async () => {
    const text = $("paste-text").value;
    $("paste-text").value = "";
    if ($("paste-dialog").returnValue === "send" && text) {
        await type(text);
    }
    surface?.focus();
});

// Phones show a keyboard for a text field only. What changes in the field is sent on as keys: their keyboards do not say which key it
// was, and rewrite the word that is being composed. The field always holds something, so that there is something to delete.
const FILLED = "_".repeat(16);
let field = FILLED;

function emptyField() {
    $("typing").value = field = FILLED;
    $("typing").setSelectionRange(FILLED.length, FILLED.length);
}

$("keyboard").addEventListener("click", () => { emptyField(); $("typing").focus(); });
$("typing").addEventListener("input", (e) => {
    const before = [...field];
    const now = [...$("typing").value];
    let same = 0;
    while (same < before.length && same < now.length && before[same] === now[same]) {
        same++;
    }
    type("\b".repeat(before.length - same) + now.slice(same).join(""));
    field = $("typing").value;
    if (!e.isComposing && (now.length < FILLED.length / 2 || now.length > 200)) {
        emptyField();
    }
});
$("typing").addEventListener("blur", emptyField);

addEventListener("hashchange", connect);
connect();

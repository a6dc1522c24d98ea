package controllers_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// browser is a real Chromium without a window.
type browser struct {
	t    *testing.T
	ctx  context.Context
	shot int

	mu         sync.Mutex
	complaints []string
}

func newBrowser(t *testing.T, width, height int) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(width, height),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-quic", true))
	b := &browser{t: t, ctx: startChromium(t, options)}
	chromedp.ListenTarget(b.ctx, b.listen)
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, complaint := range b.complaints {
			t.Errorf("the browser complains: %s", complaint)
		}
	})
	return b
}

// startChromium starts one, for as long as the test lasts. Now and then it crashes before it has begun, when several start at
// the same moment; then another is tried.
func startChromium(t *testing.T, options []chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	const attempts = 3
	for attempt := 1; ; attempt++ {
		ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, leave := chromedp.NewContext(ctx)
		err := chromedp.Run(ctx)
		if err == nil {
			t.Cleanup(stop)
			t.Cleanup(leave)
			return ctx
		}
		leave()
		stop()
		if attempt == attempts {
			t.Fatalf("start Chromium: %v", err)
		}
		t.Logf("attempt %d to start Chromium: %v", attempt, err)
	}
}

// listen keeps what the browser complains of: scripts that fail, and what the content security policy refuses.
func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, event.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if event.Entry.Source == log.SourceSecurity || strings.Contains(event.Entry.Text, "Content Security Policy") {
			b.complaints = append(b.complaints, event.Entry.Text)
		}
	}
}

// do runs steps, within the patience of a test.
func (b *browser) do(what string, actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, testkit.Patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v\nthe page says: %s", what, err, b.text())
	}
}

// text is what the page shows besides the guest.
func (b *browser) text() string {
	var said string
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, chromedp.Evaluate(`document.body.dataset.state + " | " + document.body.innerText`, &said)); err != nil {
		return err.Error()
	}
	return said
}

// state waits until the page is in a state and shows a text.
func (b *browser) state(state, text string) {
	b.t.Helper()
	testkit.Eventually(b.t, "the page is "+state, func(context.Context) error {
		if said := b.text(); !strings.HasPrefix(said, state+" |") || !strings.Contains(said, text) {
			return fmt.Errorf("the page says %q", said)
		}
		return nil
	})
}

// screen is what the guest's screen shows, read from the page's canvas, not from the window around it; nil while there is none.
func (b *browser) screen() image.Image {
	b.t.Helper()
	var url string
	b.do("read the screen", chromedp.Evaluate(`document.querySelector("#console canvas").toDataURL("image/png")`, &url))
	if url == "data:," {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(url, "data:image/png;base64,"))
	if err != nil {
		b.t.Fatalf("the canvas is no picture: %v", err)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		b.t.Fatalf("the canvas is no picture: %v", err)
	}
	return picture
}

// screenBecomes waits until the canvas has a picture that stays for some looks and differs from another one, or any with nil.
func (b *browser) screenBecomes(what string, not image.Image) image.Image {
	b.t.Helper()
	var picture image.Image
	same := 0
	testkit.Eventually(b.t, what, func(context.Context) error {
		before := picture
		picture = b.screen()
		if picture == nil || ink(picture) == 0 {
			return fmt.Errorf("the screen is blank")
		}
		if not != nil && equal(picture, not) {
			return fmt.Errorf("the screen is as it was")
		}
		if before == nil || !equal(picture, before) {
			same = 0
		}
		if same++; same < 4 {
			return fmt.Errorf("the screen still changes")
		}
		return nil
	})
	return picture
}

// ink counts the pixels that differ from the first one.
func ink(m image.Image) int {
	n, r := 0, m.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if m.At(x, y) != m.At(r.Min.X, r.Min.Y) {
				n++
			}
		}
	}
	return n
}

func equal(a, b image.Image) bool {
	if a.Bounds() != b.Bounds() {
		return false
	}
	for y := a.Bounds().Min.Y; y < a.Bounds().Max.Y; y++ {
		for x := a.Bounds().Min.X; x < a.Bounds().Max.X; x++ {
			if a.At(x, y) != b.At(x, y) {
				return false
			}
		}
	}
	return true
}

// picture keeps a screenshot of the whole page for whoever wants to look: KUBEXEN_SCREENSHOTS names a directory.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("KUBEXEN_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot []byte
	b.do("take a screenshot", chromedp.FullScreenshot(&shot, 100))
	b.shot++
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", strings.ReplaceAll(b.t.Name(), "/", "-"), b.shot, name)), shot, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// keys types into what shows the guest, key by key, as a keyboard does: a page that takes a key down leaves nothing to be pressed.
func (b *browser) keys(into, text string) {
	b.t.Helper()
	b.do("focus", chromedp.Focus(into, chromedp.ByQuery))
	for _, key := range text {
		press := func(kind input.KeyType) *input.DispatchKeyEventParams {
			return input.DispatchKeyEvent(kind).WithKey(string(key)).WithText(string(key)).WithWindowsVirtualKeyCode(int64(unicode.ToUpper(key)))
		}
		b.do("type", press(input.KeyDown), press(input.KeyUp))
	}
}

const (
	screenElement   = "#console canvas"
	terminalElement = ".xterm-helper-textarea"
)

// TestConsolePage opens the URL that kubectl prints in Chromium: the screen is there, keys arrive, a reboot is survived, and the end is
// told.
func TestConsolePage(t *testing.T) {
	t.Parallel()
	c, instance := newConsoleWorld(t)
	b := newBrowser(t, 1100, 800)
	url := c.console("screen", "  ttlSeconds: 600")
	b.do("open the URL", chromedp.Navigate(url))
	b.state("connected", c.Namespace+"/web")
	fresh := b.screenBecomes("the guest's screen is shown", nil)
	b.picture("connected")

	var address string
	b.do("read the address bar", chromedp.Location(&address))
	if strings.Contains(address, "token") {
		t.Fatalf("the token stands in the address bar: %s", address)
	}

	b.keys(screenElement, "uptime")
	typed := b.screenBecomes("what is typed is echoed by the guest", fresh)
	b.picture("typed")

	b.do("open the paste dialog", chromedp.Click("#paste"), chromedp.SetValue("#paste-text", "!"))
	b.picture("paste-dialog")
	b.do("paste", chromedp.Click("#paste-send"))
	pasted := b.screenBecomes("what is pasted is echoed by the guest", typed)
	b.picture("pasted")
	b.do("think better of it", chromedp.Click("#paste"), chromedp.SetValue("#paste-text", "never"), chromedp.KeyEvent(kb.Escape))
	b.do("open the help", chromedp.Click("#help"), chromedp.WaitVisible("#help-dialog"))
	b.picture("help-dialog")
	b.do("close it", chromedp.KeyEvent(kb.Escape), chromedp.WaitNotVisible("#help-dialog"))
	if !equal(b.screen(), pasted) {
		t.Error("a paste that was given up was typed")
	}

	b.do("a reload needs no URL", chromedp.Reload())
	b.state("connected", c.Namespace+"/web")

	for _, token := range []string{"the first is only noted", "the second restarts"} {
		edit(t, c.World, instance, func(i *v1alpha1.XenInstance) {
			i.Spec.RestartToken, i.Spec.PowerOff = token, &v1alpha1.PowerOff{Mode: v1alpha1.PowerOffHard}
		})
		c.WaitFor(t, instance, "the token is echoed", func() error {
			if instance.Status.RestartToken != token {
				return fmt.Errorf("status.restartToken is %q", instance.Status.RestartToken)
			}
			return nil
		})
	}
	c.WaitReady(t, instance)
	b.state("connected", c.Namespace+"/web")
	b.screenBecomes("the screen of the new boot is shown", pasted)
	b.picture("rebooted")

	if err := c.Client.Delete(t.Context(), c.get("screen")); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	b.state("ended", "has been deleted")
	if took := time.Since(deleted); took > 2*time.Second {
		t.Errorf("the page told of the end after %s", took)
	}
	b.picture("deleted")
}

// TestConsolePageOnAPhone: the page is usable in a small window, and a console for looking takes no input.
func TestConsolePageOnAPhone(t *testing.T) {
	t.Parallel()
	c, instance := newConsoleWorld(t)
	b := newBrowser(t, 800, 800)
	b.do("be a phone", chromedp.EmulateViewport(390, 780, chromedp.EmulateMobile, chromedp.EmulateTouch))
	b.do("open the URL", chromedp.Navigate(c.console("look", "  mode: ViewOnly")))
	b.state("connected", c.Namespace+"/web")
	fresh := b.screenBecomes("the guest's screen is shown", nil)
	b.picture("connected")
	var wide bool
	b.do("measure", chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth`, &wide))
	if wide {
		t.Error("the page is wider than the window")
	}
	b.keys(screenElement, "rm -rf")
	interactive := c.console("type", "")
	other := newBrowser(t, 800, 600)
	other.do("open the URL", chromedp.Navigate(interactive))
	other.state("connected", c.Namespace+"/web")
	if now := other.screenBecomes("the second screen is shown", nil); !equal(now, fresh) {
		t.Error("what was typed into a console for looking arrived in the guest")
	}
	edit(t, c.World, instance, func(i *v1alpha1.XenInstance) {
		i.Spec.PowerState, i.Spec.PowerOff = v1alpha1.PowerStateHalted, &v1alpha1.PowerOff{Mode: v1alpha1.PowerOffHard}
	})
	b.state("ended", "is not running")
	b.picture("stopped")
}

// TestTextConsolePage: the serial line in a browser, and in a terminal by the plug-in.
func TestTextConsolePage(t *testing.T) {
	t.Parallel()
	c, _ := newConsoleWorld(t)
	b := newBrowser(t, 1000, 600)
	b.do("open the URL", chromedp.Navigate(c.console("line", "  type: Text")))
	b.state("connected", c.Namespace+"/web")
	shows := func(text string) {
		t.Helper()
		testkit.Eventually(t, "the terminal shows "+text, func(context.Context) error {
			var lines string
			b.do("read the terminal", chromedp.Evaluate(`[...document.querySelectorAll(".xterm-rows > div")].map((d) => d.textContent).join("\n")`, &lines))
			if !strings.Contains(lines, text) {
				return fmt.Errorf("the terminal shows %q", lines)
			}
			return nil
		})
	}
	shows("web")
	b.picture("connected")
	b.keys(terminalElement, "hostname")
	shows("hostname")
	b.picture("typed")
}

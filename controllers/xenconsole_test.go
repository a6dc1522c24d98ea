package controllers_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// viewer speaks the dialogue of the ancestor's clients with the gateway.
type viewer struct {
	net.Conn
	reader *bufio.Reader
	t      *testing.T
}

// view opens a URL with a token in its query and reads the guest's greeting.
func (c *consoleWorld) view(url string) *viewer {
	c.t.Helper()
	v, status := c.tryView(url)
	if status != "HTTP/1.1 200 OK" {
		c.t.Fatalf("the gateway says %q", status)
	}
	v.read("\r\nRFB 003.008\n")
	return v
}

func (c *consoleWorld) tryView(url string) (*viewer, string) {
	c.t.Helper()
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\n\r\n", strings.TrimPrefix(url, "http://"+c.address)); err != nil {
		c.t.Fatal(err)
	}
	v := &viewer{Conn: conn, reader: bufio.NewReader(conn), t: c.t}
	line, err := v.reader.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read the gateway's answer: %v", err)
	}
	return v, strings.TrimRight(line, "\r\n")
}

func (v *viewer) read(want string) {
	v.t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(v.reader, got); err != nil || string(got) != want {
		v.t.Fatalf("wanted %q, found %q (%v)", want, got, err)
	}
}

// cutWithin fails unless the stream ends in time.
func (v *viewer) cutWithin(d time.Duration, after time.Time) {
	v.t.Helper()
	if _, err := io.Copy(io.Discard, v.reader); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		v.t.Fatalf("wanted the stream to end: %v", err)
	}
	if took := time.Since(after); took > d {
		v.t.Fatalf("the stream ended %s after its reason, wanted within %s", took, d)
	}
}

// waitConsole waits until a console has a condition, and checks that kstatus reads it right.
func (c *consoleWorld) waitConsole(name, kind string, status metav1.ConditionStatus, reason string) *v1alpha1.XenConsole {
	c.t.Helper()
	console := c.get(name)
	c.WaitFor(c.t, console, fmt.Sprintf("%s is %s for %s", kind, status, reason), func() error {
		if err := testkit.Condition(console, kind, status, reason); err != nil {
			return err
		}
		return testkit.CheckKstatus(console)
	})
	return console
}

// TestConsoleLife follows one guest's consoles from the URL to the end, through the front door.
func TestConsoleLife(t *testing.T) {
	t.Parallel()
	c, instance := newConsoleWorld(t)
	c.WaitAtRest(t)
	before := c.Simulator.Calls()
	url := c.console("screen", "  client: XVP")
	if after := c.Simulator.Calls(); len(after) != len(before) {
		t.Errorf("a URL cost %d calls of the XenAPI, wanted none", len(after)-len(before))
	}
	if !strings.HasPrefix(url, "http://"+c.address+"/console?token=") {
		t.Fatalf("the URL is %s", url)
	}
	if table := c.Kubectl(t, "get", "xenconsole", "-n", c.Namespace); !strings.Contains(table, url) || !strings.Contains(table, "True") {
		t.Fatalf("the table does not show the URL:\n%s", table)
	}

	t.Run("sessions are counted and told", func(t *testing.T) {
		v := c.view(url)
		console := c.get("screen")
		c.WaitFor(t, console, "one session is counted", func() error {
			if console.Status.ActiveSessions != 1 || console.Status.LastConnectedAt == nil {
				return fmt.Errorf("%d sessions, the last at %v", console.Status.ActiveSessions, console.Status.LastConnectedAt)
			}
			return nil
		})
		_ = v.Close()
		c.WaitFor(t, console, "none is counted", func() error {
			if console.Status.ActiveSessions != 0 {
				return fmt.Errorf("%d sessions", console.Status.ActiveSessions)
			}
			return nil
		})
		testkit.Eventually(t, "both Events are there", func(context.Context) error {
			events := c.Kubectl(t, "get", "events", "-n", c.Namespace, "-o", "jsonpath={range .items[*]}{.reason}: {.message}{.note}{\"\\n\"}{end}")
			for _, want := range []string{"ConsoleOpened: connected from 127.0.0.1", "ConsoleClosed: from 127.0.0.1 (Raw)"} {
				if !strings.Contains(events, want) {
					return fmt.Errorf("no event %q in\n%s", want, events)
				}
			}
			return nil
		})
	})
	t.Run("a new renewToken replaces the URL and cuts", func(t *testing.T) {
		v := c.view(url)
		asked := time.Now()
		c.patch("screen", `{"spec":{"renewToken":"again"}}`)
		v.cutWithin(2*time.Second, asked)
		next := c.url("screen", url)
		if _, status := c.tryView(url); status != "HTTP/1.1 401 Unauthorized" {
			t.Fatalf("the old URL is answered %q", status)
		}
		_ = c.view(next).Close()
		url = next
	})
	t.Run("stopping the guest cuts and revokes", func(t *testing.T) {
		renewed := c.console("renewed", "  client: XVP\n  renewal: WhileRequested")
		v, w := c.view(url), c.view(renewed)
		asked := time.Now()
		edit(t, c.World, instance, func(i *v1alpha1.XenInstance) {
			i.Spec.PowerState, i.Spec.PowerOff = v1alpha1.PowerStateHalted, &v1alpha1.PowerOff{Mode: v1alpha1.PowerOffHard}
		})
		v.cutWithin(5*time.Second, asked)
		w.cutWithin(5*time.Second, asked)
		c.waitConsole("screen", v1alpha1.ConditionExpired, metav1.ConditionTrue, v1alpha1.ReasonRevoked)
		c.waitConsole("renewed", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonInstanceNotRunning)
		edit(t, c.World, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning })
		_ = c.view(c.url("renewed", renewed)).Close()
		c.waitConsole("screen", v1alpha1.ConditionExpired, metav1.ConditionTrue, v1alpha1.ReasonRevoked)
	})
	t.Run("deleting the console cuts", func(t *testing.T) {
		v := c.view(c.url("renewed", ""))
		asked := time.Now()
		if err := c.Client.Delete(t.Context(), c.get("renewed")); err != nil {
			t.Fatal(err)
		}
		v.cutWithin(time.Second, asked)
	})
	t.Run("deleting the instance takes its consoles along", func(t *testing.T) {
		if err := c.Client.Delete(t.Context(), instance); err != nil {
			t.Fatal(err)
		}
		c.WaitGone(t, instance)
		c.WaitGone(t, c.get("screen"))
	})
}

// patch merges a change into a console, as kubectl patch does.
func (c *consoleWorld) patch(name, change string) {
	c.t.Helper()
	c.Kubectl(c.t, "patch", "xenconsole", name, "-n", c.Namespace, "--type=merge", "-p", change)
}

// TestConsoleTokens shows the places where a token can be, and that it is nowhere else.
func TestConsoleTokens(t *testing.T) {
	t.Parallel()
	c, _ := newConsoleWorld(t)
	t.Run("in a Secret", func(t *testing.T) {
		c.console("secret", "  client: XVP\n  access: SecretToken")
		console := c.waitConsole("secret", v1alpha1.ConditionURLIssued, metav1.ConditionTrue, v1alpha1.ReasonIssued)
		if strings.Contains(console.Status.URL, "token") {
			t.Fatalf("the URL holds the token: %s", console.Status.URL)
		}
		secret := &corev1.Secret{}
		if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: c.Namespace, Name: console.Status.SecretRef.Name}, secret); err != nil {
			t.Fatal(err)
		}
		_ = c.view(string(secret.Data["url"])).Close()

		if err := c.Client.Delete(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		digest := console.Status.TokenSHA256
		c.WaitFor(t, console, "a removed Secret comes back with another token", func() error {
			err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret)
			if err == nil && (console.Status.TokenSHA256 == digest || v1alpha1.ConsoleTokenDigest(string(secret.Data["token"])) != console.Status.TokenSHA256) {
				return errors.New("the token is the old one")
			}
			return err
		})
		if err := c.Client.Delete(t.Context(), console); err != nil {
			t.Fatal(err)
		}
		c.WaitGone(t, console)
		if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); !apierrors.IsNotFound(err) {
			t.Fatalf("the Secret outlives its console: %v", err)
		}
	})
	t.Run("sealed for a key", func(t *testing.T) {
		dir := t.TempDir()
		openssl(t, dir, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem")
		public := openssl(t, dir, "pkey", "-in", "key.pem", "-pubout")
		url := c.console("sealed", "  client: XVP\n  access: EncryptedToken\n  publicKey: |\n    "+strings.ReplaceAll(strings.TrimSpace(public), "\n", "\n    "))
		sealed := c.Kubectl(t, "get", "xenconsole", "sealed", "-n", c.Namespace, "-o", "jsonpath={.status.encryptedToken}")
		if err := os.WriteFile(filepath.Join(dir, "sealed.b64"), []byte(sealed), 0o600); err != nil {
			t.Fatal(err)
		}
		openssl(t, dir, "base64", "-d", "-A", "-in", "sealed.b64", "-out", "sealed")
		token := openssl(t, dir, "pkeyutl", "-decrypt", "-inkey", "key.pem", "-in", "sealed", "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
		if strings.Contains(url, "token") {
			t.Fatalf("the URL holds the token: %s", url)
		}
		_ = c.view(url + "?token=" + token).Close()
	})
	t.Run("forbidden by the pool", func(t *testing.T) {
		c.Kubectl(t, "patch", "xenpool", testkit.PoolName, "--type=merge", "-p", `{"spec":{"console":{"allowedAccess":["SecretToken"],"maxTTLSeconds":30}}}`)
		c.Apply(t, c.Namespace, "apiVersion: kubexen.io/v1alpha1\nkind: XenConsole\nmetadata: {name: open}\nspec: {instanceRef: {name: web}}\n")
		c.waitConsole("open", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonAccessForbidden)
		c.waitConsole("sealed", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonAccessForbidden)
		if _, err := c.xen("console", "web", "--timeout", "20s"); err == nil || !strings.Contains(err.Error(), "AccessForbidden") {
			t.Fatalf("kubectl xen console says %v", err)
		}
		out, err := c.xen("console", "web", "--access", "SecretToken")
		if err != nil || !strings.Contains(out, "/console/#token=") {
			t.Fatalf("kubectl xen console --access SecretToken says %q, %v", out, err)
		}
	})
	for _, secret := range []string{"token="} {
		if strings.Contains(c.log.String(), secret) {
			t.Errorf("the gateway's log holds %q:\n%s", secret, c.log)
		}
	}
}

func openssl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "openssl", args...)
	command.Dir = dir
	out, err := command.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// TestConsoleSurvivesItsServants: gateway and manager die and come back; URLs stay valid until they expire.
func TestConsoleSurvivesItsServants(t *testing.T) {
	t.Parallel()
	c, _ := newConsoleWorld(t)
	url := c.console("screen", "  client: XVP")
	v := c.view(url)
	died := time.Now()
	c.stopGateway(os.Kill)
	v.cutWithin(time.Second, died)
	c.startGateway()
	v = c.view(url)
	c.KillManager()
	_ = c.view(url).Close()
	c.StartManager()
	console := c.waitConsole("screen", v1alpha1.ConditionURLIssued, metav1.ConditionTrue, v1alpha1.ReasonIssued)
	if console.Status.URL != url {
		t.Fatalf("a new manager issued another URL: %s, then %s", url, console.Status.URL)
	}
	died = time.Now()
	c.stopGateway(os.Interrupt)
	v.cutWithin(2*time.Second, died)
	c.startGateway()
	_ = c.view(url).Close()
}

// TestRestoredConsolesOpenNothing: objects that come back from a backup without their status issue no URL, unless they ask anew.
func TestRestoredConsolesOpenNothing(t *testing.T) {
	t.Parallel()
	c, _ := newConsoleWorld(t)
	c.console("once", "  client: XVP")
	once := c.get("once")
	c.WaitFor(t, once, "the issue is remembered", func() error {
		if _, marked := once.Annotations[v1alpha1.AnnotationURLIssued]; !marked {
			return errors.New("no annotation")
		}
		return nil
	})
	if err := c.Client.Delete(t.Context(), once); err != nil {
		t.Fatal(err)
	}
	c.WaitGone(t, once)
	restored := &v1alpha1.XenConsole{ObjectMeta: metav1.ObjectMeta{Name: once.Name, Namespace: once.Namespace, Annotations: once.Annotations}, Spec: once.Spec}
	create(t, c.World, restored)
	console := c.waitConsole("once", v1alpha1.ConditionExpired, metav1.ConditionTrue, v1alpha1.ReasonRestoredWithoutRecord)
	if console.Status.URL != "" || meta.IsStatusConditionTrue(console.Status.Conditions, v1alpha1.ConditionURLIssued) {
		t.Fatalf("a restored console opens: %s", testkit.Manifest(console))
	}
	c.patch("once", `{"spec":{"renewToken":"asked"}}`)
	_ = c.view(c.url("once", "")).Close()
}

// TestViewersOfOtherMakers: a VNC client that nobody here wrote, by way of kubectl xen vnc.
func TestViewersOfOtherMakers(t *testing.T) {
	t.Parallel()
	c, _ := newConsoleWorld(t)
	picture := c.capture(c.vnc())
	if ink(picture) < 1000 {
		t.Fatalf("the picture of %s is blank", picture.Bounds())
	}
}

// TestServersOfOtherMakers: the screen of a real QEMU behind the pool's console, seen by a real client.
func TestServersOfOtherMakers(t *testing.T) {
	t.Parallel()
	// A socket's path has to be short.
	dir, err := os.MkdirTemp("", "vnc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	qemu := exec.CommandContext(t.Context(), "qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-vga", "std", "-display", "none", "-vnc", "unix:"+socket)
	if err := qemu.Start(); err != nil {
		t.Fatalf("start QEMU: %v", err)
	}
	testkit.Eventually(t, "QEMU serves its screen", func(context.Context) error {
		_, err := os.Stat(socket)
		return err
	})
	c, _ := newConsoleWorldOn(t, xensim.Options{VNC: "unix:" + socket})
	display := c.vnc()
	testkit.Eventually(t, "the firmware's words are on the screen", func(context.Context) error {
		picture := c.capture(display)
		if got := picture.Bounds().Size(); got.X < 320 || ink(picture) < 500 {
			return fmt.Errorf("the screen is %s and has %d pixels of ink", got, ink(picture))
		}
		return nil
	})
}

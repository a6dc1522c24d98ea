package xenapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
)

func TestArgumentsOnTheWire(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	var got []node
	s.on("VM.x", func(p []node) string { got = p[1:]; return success("<value></value>") })
	c := s.connect(nil)
	when := time.Date(2026, 11, 22, 8, 23, 31, 0, time.UTC)
	args := []any{
		"a<b>&\"'\r\n\t€", int64(4294967296), -1, true, 1.0, 0.25, when, VMRef(""), VMPowerStateHalted, []string{"x", ""}, []VDIRef{"OpaqueRef:1", ""},
		map[string]string{"k<&>\"'": "v<&>"}, map[VMOperation]string{VMOperationStart: "no"}, map[VIFRef]NetworkRef{"OpaqueRef:v": "OpaqueRef:n"},
		map[string]any{"n": int64(7), "b": false}, map[string]string(nil), []string(nil),
	}
	if _, err := c.Call(context.Background(), "VM.x", args...); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`string "a<b>&\"'\r\n\t€"`, `string "4294967296"`, `string "-1"`, `boolean "1"`, `double "1"`, `double "0.25"`, `dateTime "20261122T08:23:31"`,
		`string "OpaqueRef:NULL"`, `string "Halted"`, `array [string "x" string ""]`, `array [string "OpaqueRef:1" string "OpaqueRef:NULL"]`,
		`struct {k<&>"': string "v<&>"}`, `struct {start: string "no"}`, `struct {OpaqueRef:v: string "OpaqueRef:n"}`,
		``, `struct {}`, `array []`,
	}
	for i, text := range want {
		if text != "" && got[i].String() != text {
			t.Errorf("argument %d: %s, want %s", i, got[i], text)
		}
	}
}

// String prints a node for comparison.
func (n node) String() string {
	switch n.kind {
	case "array":
		return fmt.Sprintf("array %v", n.items)
	case "struct":
		var parts []string
		for _, m := range n.members {
			parts = append(parts, m.name+": "+m.value.String())
		}
		return "struct {" + strings.Join(parts, ", ") + "}"
	default:
		return fmt.Sprintf("%s %q", n.kind, n.text)
	}
}

func TestWhatCannotBeSentIsRefusedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	c := s.connect(nil)
	for name, arg := range map[string]any{
		"nil":                              nil,
		"nil in a map":                     map[string]any{"a": nil},
		"control character":                "bell\a",
		"control character in a key":       map[string]string{"bell\a": ""},
		"not UTF-8":                        "\xff",
		"function":                         func() {},
		"map with number keys of a struct": map[struct{ a int }]string{{1}: ""},
		"larger than a XenAPI reads":       strings.Repeat("x", maxRequestBody),
	} {
		_, err := c.Call(context.Background(), "VM.x", arg)
		if !errors.Is(err, ErrBadArgument) || RetrySafe(err) || OutcomeUnknown(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.count("VM.x") != 0 {
		t.Error("something was sent")
	}
	long := strings.Repeat("y", maxRequestHeaders)
	_, err := s.connect(func(cfg *Config) { cfg.UserAgent = "kubexen/1" }).ExportVDI(context.Background(), ExportVDI{VDI: VDIRef(long)})
	if err == nil {
		t.Error("a request line beyond the limit went out")
	}
	if _, err := s.tryConnect(func(cfg *Config) { cfg.UserAgent = long }); !errors.Is(err, ErrBadArgument) {
		t.Errorf("headers beyond the limit: %v", err)
	}
}

func TestCreateSendsWhatTheServerNeeds(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	var record node
	s.on("VM.create", func(p []node) string { record = p[1]; return success("<value>OpaqueRef:new</value>") })
	s.on("VBD.create", func(p []node) string { record = p[1]; return success("<value>OpaqueRef:new</value>") })
	c := s.connect(nil)
	vm := VM{NameLabel: "web", MemoryStaticMax: 1 << 30, ActionsAfterCrash: OnCrashRestart, Extra: map[string]Value{"newer": StringValue("kept")}}
	if ref, err := c.VM.Create(context.Background(), vm); err != nil || ref != "OpaqueRef:new" {
		t.Fatal(ref, err)
	}
	members := map[string]string{}
	for _, m := range record.members {
		members[m.name] = m.value.String()
	}
	for name, want := range map[string]string{
		"name_label": `string "web"`, "memory_static_max": `string "1073741824"`, "user_version": `string "0"`, "affinity": `string "OpaqueRef:NULL"`,
		"is_a_template": `boolean "0"`, "other_config": "struct {}", "has_vendor_device": `boolean "0"`, "newer": `string "kept"`,
	} {
		if members[name] != want {
			t.Errorf("%s: %s, want %s", name, members[name], want)
		}
	}
	for _, name := range []string{"uuid", "HVM_shadow_multiplier", "domain_type", "power_state", "VBDs", "name_description", "suspend_VDI"} {
		if got, sent := members[name]; sent {
			t.Errorf("%s was sent: %s", name, got)
		}
	}
	if _, err := c.VBD.Create(context.Background(), VBD{VM: "OpaqueRef:vm", Type: VBDTypeCD, Empty: true, Mode: VBDModeRO}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(record.String(), "unpluggable") || !strings.Contains(record.String(), `VDI: string "OpaqueRef:NULL"`) {
		t.Errorf("VBD record %v", record)
	}
}

func TestOptionalParametersAreLeftOutWhereAnOlderServerWouldCountThem(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	counts := map[string]int{}
	for _, method := range []string{"VM.snapshot", "VDI.copy", "VM.migrate_send", "host.disable"} {
		s.on(method, func(p []node) string { counts[method] = len(p) - 1; return success("<value>OpaqueRef:x</value>") })
	}
	c, ctx := s.connect(nil), context.Background()
	check := func(method string, want int, err error) {
		t.Helper()
		if err != nil || counts[method] != want {
			t.Errorf("%s: %d parameters, want %d; %v", method, counts[method], want, err)
		}
	}
	_, err := c.VM.Snapshot(ctx, "OpaqueRef:vm", "s", nil)
	check("VM.snapshot", 2, err)
	_, err = c.VM.Snapshot(ctx, "OpaqueRef:vm", "s", []VDIRef{"OpaqueRef:d"})
	check("VM.snapshot", 3, err)
	_, err = c.VDI.Copy(ctx, "OpaqueRef:d", "OpaqueRef:sr", "", "")
	check("VDI.copy", 2, err)
	_, err = c.VDI.Copy(ctx, "OpaqueRef:d", "", "", "OpaqueRef:into")
	check("VDI.copy", 4, err)
	_, err = c.VM.MigrateSend(ctx, "OpaqueRef:vm", map[string]string{}, true, nil, nil, nil, nil, nil)
	check("VM.migrate_send", 6, err)
	err = c.Host.Disable(ctx, "OpaqueRef:h", true)
	check("host.disable", 1, err)
	err = c.Host.Disable(ctx, "OpaqueRef:h", false)
	check("host.disable", 2, err)
}

func TestFailuresAreToldApart(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	answers := map[string]string{
		"refused":     failure("VM_BAD_POWER_STATE", "OpaqueRef:vm", "halted", "running"),
		"storage":     failure("SR_BACKEND_FAILURE_109", "", "The snapshot chain is too long", ""),
		"dropped":     "drop",
		"page":        "status <html><body><h1>HTTP 500 internal server error</h1>Additional information Not_found</body></html>",
		"truncated":   success("<value>x</value>")[:120],
		"not XML-RPC": "<html></html>",
		"booting":     failure("HOST_STILL_BOOTING"),
	}
	answerWith := func(name string) {
		for _, method := range []string{"VM.start", "VM.get_uuid"} {
			s.on(method, func([]node) string { return answers[name] })
		}
	}
	c, ctx := s.connect(nil), context.Background()
	type outcome struct {
		safe, unknown bool
		sent          int
	}
	type expectation struct {
		is          error
		write, read outcome
	}
	cases := map[string]expectation{
		"refused":     {ErrVMBadPowerState, outcome{false, false, 1}, outcome{false, false, 1}},
		"storage":     {ErrSRBackendFailure, outcome{false, false, 1}, outcome{false, false, 1}},
		"dropped":     {nil, outcome{false, true, 1}, outcome{true, false, maxAttempts}},
		"page":        {nil, outcome{false, true, 1}, outcome{true, false, maxAttempts}},
		"truncated":   {ErrTruncated, outcome{false, true, 1}, outcome{true, false, maxAttempts}},
		"not XML-RPC": {ErrMalformed, outcome{false, true, 1}, outcome{true, false, 1}},
		"booting":     {ErrHostStillBooting, outcome{true, false, maxAttempts}, outcome{true, false, maxAttempts}},
	}
	for name, want := range cases {
		answerWith(name)
		check := func(kind string, err error, method string, before int, want outcome) {
			if err == nil || want.safe != RetrySafe(err) || want.unknown != OutcomeUnknown(err) {
				t.Errorf("%s, %s: safe %v, unknown %v: %v", name, kind, RetrySafe(err), OutcomeUnknown(err), err)
			}
			if sent := s.count(method) - before; sent != want.sent {
				t.Errorf("%s, %s: sent %d times, want %d", name, kind, sent, want.sent)
			}
		}
		before := s.count("VM.start")
		err := c.VM.Start(ctx, "OpaqueRef:vm", false, false)
		check("write", err, "VM.start", before, want.write)
		if want.is != nil && !errors.Is(err, want.is) {
			t.Errorf("%s: %v is not %v", name, err, want.is)
		}
		before = s.count("VM.get_uuid")
		_, err = c.VM.GetUUID(ctx, "OpaqueRef:vm")
		check("read", err, "VM.get_uuid", before, want.read)
	}
	answerWith("storage")
	err := c.VM.Start(ctx, "OpaqueRef:vm", false, false)
	if !errors.Is(err, ErrSRBackendSnapshotChainTooLong) || errors.Is(err, ErrSRBackendNoSpace) || CodeOf(err) != "SR_BACKEND_FAILURE_109" {
		t.Errorf("numbered storage errors: %v", err)
	}
	var e *Error
	if !errors.As(fmt.Errorf("start: %w", err), &e) || e.Param(1) != "The snapshot chain is too long" || e.Param(7) != "" || e.Method != "VM.start" {
		t.Errorf("error %+v", e)
	}
}

// No error and no log line may hold the password or a session's reference, whatever the server puts into its answers.
func TestSecretsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	var mu sync.Mutex
	var logged bytes.Buffer
	logger := funcr.New(func(prefix, args string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&logged, prefix, args)
	}, funcr.Options{Verbosity: 10})
	var told []error
	c := s.connect(func(cfg *Config) {
		cfg.Logger = logger
		cfg.OnCall = func(i CallInfo) { mu.Lock(); defer mu.Unlock(); told = append(told, i.Err) }
	})
	const password = "s3cr3t-password"
	answers := []func(p []node) string{
		func(p []node) string { return failure("SESSION_INVALID", p[0].text) },
		func(p []node) string { return failure("HANDLE_INVALID", "session", p[0].text) },
		func(p []node) string { return failure("HANDLE_INVALID", "session", "OpaqueRef:session-of-another") },
		func(p []node) string {
			return failure("INTERNAL_ERROR", "Expected bool, got 'S("+p[0].text+") "+password+"'")
		},
		func(p []node) string { return "status <html>" + p[0].text + " " + password + "</html>" },
		func(p []node) string { return failure("X", "https://h/console?uuid=1&session_id="+p[0].text+"&x=y") },
		func([]node) string { return "drop" },
		func(p []node) string { return "<methodResponse>" + p[0].text + password },
	}
	var errs []error
	for _, answer := range answers {
		s.on("VM.get_record", answer)
		s.on("VM.start", answer)
		_, err := c.VM.GetRecord(context.Background(), "OpaqueRef:vm")
		errs = append(errs, err, c.VM.Start(context.Background(), "OpaqueRef:vm", false, false))
	}
	s.server.CloseClientConnections()
	s.server.Close()
	_, err := c.VM.GetRecord(context.Background(), "OpaqueRef:vm")
	errs = append(errs, err)
	mu.Lock()
	defer mu.Unlock()
	for _, err := range append(errs, told...) {
		if err == nil {
			continue
		}
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err)} {
			if strings.Contains(text, password) || strings.Contains(text, "OpaqueRef:session") {
				t.Errorf("a secret in %s", text)
			}
		}
	}
	if text := logged.String(); strings.Contains(text, password) || strings.Contains(text, "OpaqueRef:session") || text == "" {
		t.Errorf("log:\n%s", text)
	}
}

func TestSecretsDoNotFormat(t *testing.T) {
	t.Parallel()
	cfg := Config{Endpoints: []string{"https://xs1"}, Username: "root", Password: "s3cr3t"}
	var logged strings.Builder
	funcr.New(func(_, args string) { logged.WriteString(args) }, funcr.Options{}).Info("x", "config", cfg, "session", SessionRef("OpaqueRef:s"))
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), logged.String(), fmt.Sprint(SessionRef("OpaqueRef:s"))} {
		if strings.Contains(text, "s3cr3t") || strings.Contains(text, "OpaqueRef:s") {
			t.Errorf("a secret in %s", text)
		}
	}
}

func TestCallsAreReported(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("VM.get_uuid", func([]node) string { return success("<value>u</value>") })
	var calls []CallInfo
	seen := 0
	c := s.connect(func(cfg *Config) {
		cfg.OnCall = func(i CallInfo) { calls = append(calls, i) }
		cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) { seen++; return next.RoundTrip(r) })
		}
	})
	if _, err := c.VM.GetUUID(context.Background(), "OpaqueRef:vm"); err != nil {
		t.Fatal(err)
	}
	last := calls[len(calls)-1]
	if last.Method != "VM.get_uuid" || last.Attempt != 1 || last.Err != nil || last.RequestBytes < 100 || last.ResponseBytes < 100 || last.Endpoint != c.Coordinator() {
		t.Errorf("%+v", last)
	}
	if seen != len(calls) {
		t.Errorf("the wrapped transport saw %d requests of %d", seen, len(calls))
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	t.Parallel()
	for attempt := 1; attempt < 12; attempt++ {
		for range 50 {
			d := backoff(attempt)
			limit := math.Min(float64(firstBackoff)*math.Pow(2, float64(attempt-1)), float64(maxBackoff))
			if float64(d) < limit/4 || float64(d) > 1.25*limit {
				t.Fatalf("attempt %d: %v", attempt, d)
			}
		}
	}
}

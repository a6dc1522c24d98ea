package xensim

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// exchange is one recorded request with its answer (testdata/README.md).
type exchange struct {
	Number   int
	Name     string
	Protocol string
	Request  struct {
		Method, Path, Raw string
		Headers           map[string]string
		Body              *string
	}
	Response struct {
		Status     int
		Reason     string
		Headers    [][2]string
		Body, Raw  *string
		BodyLength int `json:"body_length"`
		Withheld   bool
		Error      string
	}
}

func (e *exchange) label() string { return fmt.Sprintf("%04d %s", e.Number, e.Name) }

// method gives the XenAPI message that the request calls, if any.
func (e *exchange) method() string {
	if e.Request.Body == nil {
		return ""
	}
	if m := methodPattern.FindStringSubmatch(*e.Request.Body); m != nil {
		return m[1] + m[2]
	}
	return ""
}

var methodPattern = regexp.MustCompile(`<methodName>([^<]*)</methodName>|"method": ?"([^"]*)"`)

func readGroup(t *testing.T, path string) []*exchange {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []*exchange
	for decoder := json.NewDecoder(zipped); ; {
		var e exchange
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, &e)
	}
}

// seeded starts a pool from the state in which every group of recordings began.
func seeded(t testing.TB) (*Pool, string) {
	t.Helper()
	file, err := os.Open("testdata/state.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	state, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Password: "rigpass", State: state, DataDir: t.TempDir(), HTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	url, err := p.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return p, strings.TrimPrefix(url, "http://")
}

// TestReplay sends every recorded request to a freshly seeded simulator and compares the answers. What differs must be
// listed in testdata/differences.txt, and what is listed there must differ.
func TestReplay(t *testing.T) {
	groups, err := filepath.Glob("testdata/recordings/*.jsonl.gz")
	if err != nil || len(groups) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	listed := readList(t, "testdata/differences.txt")
	excused := readList(t, "testdata/not-authentic.txt")
	for _, chain := range chains(groups) {
		t.Run(groupName(chain[0]), func(t *testing.T) {
			t.Parallel() // they wait for time to pass, mostly
			r := newReplayer(t)
			for _, path := range chain {
				exchanges := readGroup(t, path)
				for _, e := range exchanges {
					r.ids.learnRecords(e)
				}
				r.seed(exchanges)
				r.group(t, groupName(path), exchanges, listed, excused)
			}
		})
	}
}

func groupName(path string) string { return strings.TrimSuffix(filepath.Base(path), ".jsonl.gz") }

// continued names the groups that were recorded on the server of the group before, where its objects still were.
var continued = map[string]bool{"2001-http": true, "3001-races": true}

// chains puts together the groups that were recorded one after the other on the same server.
func chains(groups []string) [][]string {
	var out [][]string
	for _, path := range groups {
		if continued[groupName(path)] {
			out[len(out)-1] = append(out[len(out)-1], path)
		} else {
			out = append(out, []string{path})
		}
	}
	return out
}

func newReplayer(t *testing.T) *replayer {
	pool, address := seeded(t)
	r := &replayer{pool: pool, address: address, ids: newMapping(), reports: os.Getenv("REPLAY_REPORT")}
	r.ids.volatileAddress(address)
	r.ids.lookup = r.record
	return r
}

// readList reads lines "NNNN name: reason"; the numbers are what counts. A "~" before the number says that it is chance
// whether the exchange differs.
func readList(t *testing.T, path string) map[int]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		label, reason, ok := strings.Cut(line, ": ")
		label, byChance := strings.CutPrefix(label, "~")
		number, err := strconv.Atoi(strings.Fields(label)[0])
		if err != nil || !ok || reason == "" {
			t.Fatalf("%s: no reason or number in %q", path, line)
		}
		if byChance {
			reason = chance + reason
		}
		out[number] = reason
	}
	return out
}

// chance marks the reason of an exchange that may differ or not.
const chance = "by chance: "

func (r *replayer) group(t *testing.T, name string, exchanges []*exchange, listed, excused map[int]string) {
	found := map[int][]string{}
	for i, e := range exchanges {
		begin := time.Now()
		differences, parked := r.replay(e, exchanges[i+1:])
		if took := time.Since(begin); took > time.Second {
			t.Logf("%s took %s", e.label(), took.Round(time.Millisecond))
		}
		if !parked {
			found[e.Number] = differences
		}
		r.collect(found, 2*time.Second)
	}
	r.collect(found, 5*time.Second)
	for _, p := range r.parked {
		found[p.exchange.Number] = []string{"no answer"}
	}
	r.parked = nil
	r.report(t, name)
	judge(t, name, exchanges, found, listed, excused)
}

func (r *replayer) report(t *testing.T, name string) {
	if r.reports == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(r.reports, "withheld-"+name+".txt"), []byte(strings.Join(r.answers, "")), 0o600); err != nil {
		t.Error(err)
	}
	r.answers = nil
}

// judge holds the differences that were found against the lists.
func judge(t *testing.T, name string, exchanges []*exchange, found map[int][]string, listed, excused map[int]string) {
	var report strings.Builder
	compared, differing, withheld, unlike := 0, 0, 0, 0
	for _, e := range exchanges {
		differences := found[e.Number]
		_, isListed := listed[e.Number]
		_, isExcused := excused[e.Number]
		switch {
		case e.Response.Withheld:
			withheld++
			continue
		case isExcused:
			unlike++
			continue
		}
		compared++
		if len(differences) > 0 {
			differing++
			fmt.Fprintf(&report, "%s\n", e.label())
			for _, d := range differences[:min(len(differences), 12)] {
				fmt.Fprintf(&report, "    %s\n", d)
			}
		}
		switch {
		case len(differences) > 0 && !isListed:
			t.Errorf("%s differs:\n    %s", e.label(), strings.Join(differences[:min(len(differences), 6)], "\n    "))
		case len(differences) == 0 && isListed && strings.HasPrefix(listed[e.Number], chance):
			differing++ // it might have
		case len(differences) == 0 && isListed:
			t.Errorf("%s no longer differs: take it out of testdata/differences.txt", e.label())
		}
	}
	share := 100 * float64(differing) / float64(max(compared, 1))
	t.Logf("%-22s compared %4d  agree %4d  differ %3d (%.1f %%)  withheld %3d  not authentic %3d",
		name, compared, compared-differing, differing, share, withheld, unlike)
	if dir := os.Getenv("REPLAY_REPORT"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "replay-"+name+".txt"), []byte(report.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
	if share >= 4 {
		t.Errorf("%.1f %% of the exchanges differ; less than 4 %% may", share)
	}
}

// replayer replays one group.
type replayer struct {
	pool    *Pool
	address string
	ids     *mapping
	task    string // of the last Async call, by the recording's name
	before  int    // number of the exchange by which it has finished
	archive string // the XVA that the server exported last
	parked  []*parked
	reports string   // directory for what a person wants to see of a replay, if any does
	answers []string // ours, where the recorded ones are withheld
}

// replay sends one request and gives the differences between the answers, or says that the request blocks.
func (r *replayer) replay(e *exchange, next []*exchange) ([]string, bool) {
	r.settle(e)
	if _, blocks := blocking[e.method()]; blocks {
		answer := r.park(e)
		if answer == nil {
			return nil, true
		}
		return r.judgeReply(e, r.ids, answer), false
	}
	deadline := time.Now().Add(2 * time.Second)
	var atFirst []string
	for attempt := 0; ; attempt++ {
		trial := r.ids.clone()
		differences := r.once(e, trial)
		if attempt == 0 {
			atFirst = differences
		}
		r.pool.Lock()
		busy, changed := r.pool.Busy(), r.pool.Changed()
		r.pool.Unlock()
		if len(differences) == 0 || !busy || !repeatable(e) || time.Now().After(deadline) {
			r.ids = trial
			r.noteTask(e, next)
			if len(differences) > 0 {
				differences = atFirst
			}
			return differences, false
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// repeatable says whether a request only reads, so that it may be asked again: the recorder slept where we do not.
func repeatable(e *exchange) bool {
	_, name, _ := strings.Cut(e.method(), ".")
	return strings.HasPrefix(name, "get_") && !e.Response.Withheld
}

// noteTask remembers the task of an Async call, and before which exchange it must have finished: the one that shows its
// final record, else the next.
func (r *replayer) noteTask(e *exchange, next []*exchange) {
	if !strings.HasPrefix(e.method(), "Async.") || e.Response.Body == nil || len(next) == 0 {
		return
	}
	refs := refPattern.FindAllString(*e.Response.Body, -1)
	if len(refs) != 1 {
		return
	}
	r.task, r.before = refs[0], next[0].Number
	for _, later := range next {
		if later.method() == "task.get_record" && strings.Contains(*later.Request.Body, r.task) && !sawPending(later) {
			r.before = later.Number
			return
		}
	}
}

// settle waits for the last Async call's task, when it must have finished by now.
func (r *replayer) settle(e *exchange) {
	if r.task == "" || e.Number < r.before || sawPending(e) {
		return
	}
	ref := r.ids.toActual[r.task]
	r.task = ""
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		r.pool.Lock()
		task := r.pool.DB().Get("task", ref)
		changed := r.pool.Changed()
		r.pool.Unlock()
		if !task.Exists() || task.Str("status") != "pending" && task.Str("status") != "cancelling" {
			return
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func sawPending(e *exchange) bool {
	return e.Response.Body != nil && (strings.Contains(*e.Response.Body, "pending") ||
		e.method() == "VM.get_current_operations" || e.method() == "event.from")
}

// once sends a request and compares its answer.
func (r *replayer) once(e *exchange, ids *mapping) []string {
	if e.Request.Raw != "" {
		return r.onceRaw(e, ids)
	}
	return r.judgeReply(e, ids, r.send(e, ids))
}

// judgeReply compares an answer with the recorded one.
func (r *replayer) judgeReply(e *exchange, ids *mapping, got *reply) []string {
	if e.Response.Withheld {
		r.withheld(e, ids, got)
		return nil
	}
	if e.Response.Error != "" {
		return nil // whether the answer gets through before the connection breaks is chance; the task that follows counts
	}
	if got.err != nil {
		return []string{"no answer: " + got.err.Error()}
	}
	if strings.HasPrefix(e.Request.Path, "/export?") && got.status == http.StatusOK {
		r.archive = got.body
	}
	if got.status != e.Response.Status {
		return []string{fmt.Sprintf("status: recorded %d, actual %d: %.200s", e.Response.Status, got.status, got.body)}
	}
	c := &comparison{ids: ids}
	c.headers(e.Response.Headers, got.headers)
	recorded := ""
	if e.Response.Body != nil {
		recorded = *e.Response.Body
	}
	c.bodies(e, recorded, got.body)
	return c.found
}

var transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 4}

func (r *replayer) send(e *exchange, ids *mapping) *reply {
	var body io.Reader = http.NoBody
	if e.Request.Body != nil {
		body = strings.NewReader(requestBody(e, ids))
	} else if e.Response.Error != "" {
		body = strings.NewReader(r.lostBody(e))
	}
	request, err := http.NewRequest(e.Request.Method, "http://"+r.address, body)
	if err != nil {
		return &reply{err: err}
	}
	request.URL.Opaque = ids.actual(e.Request.Path)
	for name, value := range e.Request.Headers {
		if name != "Host" && name != "Content-Length" {
			request.Header.Set(name, ids.actual(value))
		}
	}
	answer, err := (&http.Client{Transport: transport, Timeout: 12 * time.Second}).Do(request)
	if err != nil {
		return &reply{err: err}
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	return &reply{answer.StatusCode, answer.Header, string(content), err}
}

// withheld shows what we answer where the recording keeps its answer to itself, for whoever asks by REPLAY_REPORT: with
// the recording's identities, so that it can be read beside its neighbours.
func (r *replayer) withheld(e *exchange, ids *mapping, got *reply) {
	if r.reports == "" {
		return
	}
	back := func(text string) string {
		return idPattern.ReplaceAllStringFunc(text, func(id string) string { return cmp.Or(ids.toRecorded[id], id) })
	}
	request := e.Request.Raw
	if e.Request.Body != nil {
		request = *e.Request.Body
	}
	r.answers = append(r.answers, fmt.Sprintf("%s\n  > %s %s %.2000q\n  < %d %s\n",
		e.label(), e.Request.Method, e.Request.Path, request, got.status, back(got.body)))
}

// lostBody gives the body of a request during which the recorder's connection broke, so that it is not on record: an import
// is of the archive that was exported before, other bodies were longer than the disk of 4 MiB and full of the letters that
// the archive then shows.
func (r *replayer) lostBody(e *exchange) string {
	if strings.HasPrefix(e.Request.Path, "/import?") {
		return r.archive
	}
	return strings.Repeat("z", 8<<20)
}

// requestBody gives the body to send: binary bodies are recorded only in part, the rest is zeroes.
func requestBody(e *exchange, ids *mapping) string {
	encoded, binary := strings.CutPrefix(*e.Request.Body, "base64:")
	if !binary {
		return ids.actual(*e.Request.Body)
	}
	content, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return encoded
	}
	if length, err := strconv.Atoi(e.Request.Headers["Content-Length"]); err == nil && length > len(content) {
		content = append(content, make([]byte, length-len(content))...)
	}
	return string(content)
}

// onceRaw sends bytes and compares bytes, up to the identities in them.
func (r *replayer) onceRaw(e *exchange, ids *mapping) []string {
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		return []string{err.Error()}
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, ids.actual(e.Request.Raw)); err != nil {
		return []string{"send: " + err.Error()}
	}
	if e.Response.Raw == nil {
		return nil
	}
	recorded := *e.Response.Raw
	wanted := strings.TrimSuffix(strings.TrimSuffix(recorded, "<EOF>"), "<RST>")
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	content := make([]byte, len(wanted))
	n, _ := io.ReadFull(bufio.NewReader(conn), content)
	c := &comparison{ids: ids}
	c.text("raw", wanted, string(content[:n]))
	return c.found
}

// seed learns which recorded object is which of the seeded pool, from the first answer that shows its record.
func (r *replayer) seed(exchanges []*exchange) {
	r.seedClasses(exchanges, func(class string) bool { return !strings.HasSuffix(class, "_metrics") })
	r.seedClasses(exchanges, func(string) bool { return true })
}

func (r *replayer) seedClasses(exchanges []*exchange, wanted func(class string) bool) {
	for _, e := range exchanges {
		class, ok := strings.CutSuffix(e.method(), ".get_all_records")
		if !ok || !wanted(class) || e.Response.Body == nil || r.pool.Model.Class(class) == nil {
			continue
		}
		value, err := parseAnswer(e.Protocol, *e.Response.Body)
		if err != nil {
			continue
		}
		records, ok := value.result.(object)
		if !ok {
			continue
		}
		actual := object{}
		for ref, fields := range r.pool.Records(class) {
			actual[ref] = plainRecord(fields)
		}
		r.ids.pairObjects(records, actual)
	}
}

// record gives the simulator's record of an object.
func (r *replayer) record(ref string) (object, bool) {
	r.pool.Lock()
	defer r.pool.Unlock()
	class := r.pool.DB().ClassOf(ref)
	if class == "" {
		return nil, false
	}
	return plainRecord(r.pool.DB().Get(class, ref).Fields()), true
}

// plainRecord writes a record as it would come over JSON.
func plainRecord(fields map[string]any) object {
	out := object{}
	for name, v := range fields {
		if text, ok := v.(string); ok {
			out[name] = text
		}
		if n, ok := v.(int64); ok {
			out[name] = json.Number(strconv.FormatInt(n, 10))
		}
		if b, ok := v.(bool); ok {
			out[name] = b
		}
	}
	return out
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

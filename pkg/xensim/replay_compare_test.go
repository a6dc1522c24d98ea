package xensim

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Identities: what differs from run to run and must be mapped from the recording to the simulator by first appearance.
var (
	refPattern   = regexp.MustCompile(`OpaqueRef:[0-9a-f]{8}-[0-9a-f-]{27}`)
	idPattern    = regexp.MustCompile(`OpaqueRef:[0-9a-f]{8}-[0-9a-f-]{27}|DummyRef:\|[0-9a-f-]{36}\|[\w.]+|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b|\b\d{20},\d{20}\b`)
	trackPattern = regexp.MustCompile(`trackid=[0-9a-f]{32}`) // digest of the session's reference
	timePattern  = regexp.MustCompile(`\b20\d{6}T\d\d:\d\d:\d\dZ`)
)

// volatile names the members whose values depend on time, load or the machine.
var volatile = map[string]string{
	"last_active": "time", "validation_time": "time", "token": "how far the database has come", "id": "generation of the database",
	"memory_free": "load", "VCPUs_utilisation": "load", "utilisation": "load", "backtrace": "place in the real one's source",
	"physical_utilisation": "sparse allocation of the stand-in storage", "virtual_allocation": "sum over disks of the stand-in storage",
	"servertime": "time", "last_updated": "time", "timestamp": "time", "progress": "how far an operation has come",
	"generation_id": "chance", "agent_start_time": "time", "boot_time": "time", "snapshot_metadata": "the whole record as text, generations included", "debug_info:cancel_points_seen": "devices of the VM, counted by xenopsd",
	"storage_driver_domain": "which storage was plugged last",
	"session":               "number of sessions, the server's own among them", "task_id": "reference",
}

// mapping maps the identities of a recording to those of the simulator.
type mapping struct {
	toActual   map[string]string
	toRecorded map[string]string
	address    string
	recorded   map[string]object               // records of the recording by reference, as they are first seen
	lookup     func(ref string) (object, bool) // the simulator's record of a reference
}

func newMapping() *mapping {
	m := &mapping{toActual: map[string]string{}, toRecorded: map[string]string{}, recorded: map[string]object{}}
	for _, same := range []string{"00000000-0000-0000-0000-000000000000", "11111111-2222-3333-4444-555555555555",
		"OpaqueRef:00000000-0000-0000-0000-000000000000", "OpaqueRef:11111111-1111-1111-1111-111111111111"} {
		m.toActual[same], m.toRecorded[same] = same, same
	}
	return m
}

func (m *mapping) volatileAddress(address string) { m.address = address }

func (m *mapping) clone() *mapping {
	c := *m
	c.toActual, c.toRecorded = maps.Clone(m.toActual), maps.Clone(m.toRecorded)
	return &c
}

// actual rewrites text of the recording for the simulator.
func (m *mapping) actual(text string) string {
	return idPattern.ReplaceAllStringFunc(text, func(id string) string {
		if mapped, ok := m.toActual[id]; ok {
			return mapped
		}
		return id
	})
}

// pair says whether two identities are the same object; two that were never seen become so.
func (m *mapping) pair(recorded, actual string) bool {
	a, known := m.toActual[recorded]
	r, taken := m.toRecorded[actual]
	if known || taken {
		return a == actual && r == recorded
	}
	m.toActual[recorded], m.toRecorded[actual] = actual, recorded
	return true
}

// object and the types of encoding/json are what answers are compared as. Numbers keep their text.
type object = map[string]any

type answer struct {
	result any
	failed []any // error code and parameters
}

func parseAnswer(protocol, body string) (*answer, error) {
	if protocol == "xmlrpc" {
		return parseXMLAnswer(body)
	}
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var o object
	if err := decoder.Decode(&o); err != nil {
		return nil, err
	}
	switch failed := o["error"].(type) {
	case []any:
		return &answer{failed: failed}, nil
	case object:
		params, _ := failed["data"].([]any)
		return &answer{failed: append([]any{failed["message"]}, params...)}, nil
	}
	return &answer{result: o["result"]}, nil
}

// xmlNode is enough of XML to read XML-RPC, by a reader that is not the simulator's.
type xmlNode struct {
	XMLName xml.Name
	Text    string    `xml:",chardata"`
	Nodes   []xmlNode `xml:",any"`
}

func (n *xmlNode) child(name string) *xmlNode {
	for i := range n.Nodes {
		if n.Nodes[i].XMLName.Local == name {
			return &n.Nodes[i]
		}
	}
	return &xmlNode{}
}

func parseXMLAnswer(body string) (*answer, error) {
	var root xmlNode
	if err := xml.Unmarshal([]byte(body), &root); err != nil {
		return nil, err
	}
	value := root.child("params").child("param").child("value").plain()
	envelope, ok := value.(object)
	if !ok || envelope["Status"] == nil {
		return &answer{result: value}, nil // system.listMethods
	}
	if envelope["Status"] == "Failure" {
		failed, _ := envelope["ErrorDescription"].([]any)
		return &answer{failed: failed}, nil
	}
	return &answer{result: envelope["Value"]}, nil
}

// plain turns a <value> into a value; what is tagged other than a string keeps its tag, so that types are compared.
func (n *xmlNode) plain() any {
	if len(n.Nodes) == 0 {
		return n.Text
	}
	inner := n.Nodes[0]
	switch inner.XMLName.Local {
	case "struct":
		out := object{}
		for _, member := range inner.Nodes {
			out[member.child("name").Text] = member.child("value").plain()
		}
		return out
	case "array":
		out := []any{}
		for _, value := range inner.child("data").Nodes {
			out = append(out, value.plain())
		}
		return out
	}
	return "<" + inner.XMLName.Local + ">" + inner.Text
}

// comparison gathers the differences between two answers.
type comparison struct {
	ids   *mapping
	found []string
}

func (c *comparison) differ(path, format string, args ...any) {
	c.found = append(c.found, path+": "+fmt.Sprintf(format, args...))
}

// headers compares the headers by name, and by value where it says something.
func (c *comparison) headers(recorded [][2]string, actual http.Header) {
	for _, h := range recorded {
		got := strings.Join(actual.Values(h[0]), ", ")
		switch strings.ToLower(h[0]) {
		case "content-length", "connection":
			continue // net/http keeps these to itself
		case "content-disposition", "task-id":
			c.text("header "+h[0], h[1], got)
		default:
			if got != h[1] {
				c.differ("header "+h[0], "recorded %q, actual %q", h[1], got)
			}
		}
	}
}

func (c *comparison) bodies(e *exchange, recorded, actual string) {
	if encoded, binary := strings.CutPrefix(recorded, "base64:"); binary {
		content, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || !strings.HasPrefix(actual, string(content)) {
			c.differ("body", "other bytes")
		}
		if e.Response.BodyLength != len(actual) {
			c.differ("body", "recorded %d bytes, actual %d", e.Response.BodyLength, len(actual))
		}
		return
	}
	if strings.HasPrefix(recorded, "ova.xml\x00") {
		c.archives(recorded, actual)
		return
	}
	if strings.HasPrefix(recorded, `{"jsonrpc"`) {
		c.answers("jsonrpc", recorded, actual)
		return
	}
	if e.Protocol == "http" || e.Response.Status != 200 {
		c.text("body", recorded, actual)
		return
	}
	c.answers(strings.TrimSuffix(e.Protocol, "1"), recorded, actual)
}

func (c *comparison) answers(protocol, recorded, actual string) {
	want, err := parseAnswer(protocol, recorded)
	if err != nil {
		c.text("body", recorded, actual)
		return
	}
	got, err := parseAnswer(protocol, actual)
	switch {
	case err != nil:
		c.differ("body", "cannot be read: %v", err)
	case want.failed != nil || got.failed != nil:
		c.errors(want, got)
	default:
		c.values("result", want.result, got.result)
	}
}

// errors compares code and parameters, in order.
func (c *comparison) errors(want, got *answer) {
	if len(want.failed) != len(got.failed) || want.failed == nil || got.failed == nil {
		c.differ("error", "recorded %v, actual %v", brief(want), brief(got))
		return
	}
	for i := range want.failed {
		w, _ := want.failed[i].(string)
		g, _ := got.failed[i].(string)
		c.text(fmt.Sprintf("error[%d]", i), w, g)
	}
}

func brief(a *answer) string {
	if a.failed != nil {
		return fmt.Sprint(a.failed...)
	}
	text := fmt.Sprint(a.result)
	return "success " + text[:min(len(text), 150)]
}

func (c *comparison) values(path string, recorded, actual any) {
	switch recorded := recorded.(type) {
	case object:
		got, ok := actual.(object)
		if !ok {
			c.differ(path, "recorded a struct, actual %T %.80v", actual, actual)
			return
		}
		c.objects(path, recorded, got)
	case []any:
		got, ok := actual.([]any)
		if !ok {
			c.differ(path, "recorded an array, actual %T %.80v", actual, actual)
			return
		}
		c.arrays(path, recorded, got)
	case string:
		got, ok := actual.(string)
		if !ok {
			c.differ(path, "recorded %q, actual %T %v", recorded, actual, actual)
			return
		}
		c.scalar(path, recorded, got)
	case json.Number:
		got, ok := actual.(json.Number)
		if !ok || strings.Contains(recorded.String(), ".") != strings.Contains(got.String(), ".") {
			c.differ(path, "recorded the number %v, actual %T %v", recorded, actual, actual)
			return
		}
		c.scalar(path, recorded.String(), got.String())
	default:
		if recorded != actual {
			c.differ(path, "recorded %v, actual %v", recorded, actual)
		}
	}
}

func (c *comparison) objects(path string, recorded, actual object) {
	if keyedByReference(recorded) || keyedByReference(actual) {
		c.ids.pairObjects(recorded, actual)
	}
	left := maps.Clone(actual)
	for _, name := range sortedNames(recorded) {
		key := c.ids.actual(name)
		got, ok := left[key]
		if !ok {
			c.differ(path, "%s is missing", name)
			continue
		}
		delete(left, key)
		c.values(path+"."+name, recorded[name], got)
	}
	for _, name := range sortedNames(left) {
		c.differ(path, "%s is too much: %.80v", name, left[name])
	}
}

func keyedByReference(o object) bool {
	for name := range o {
		return refPattern.MatchString(name) || strings.HasPrefix(name, "DummyRef:")
	}
	return false
}

// pairObjects finds, for each recorded object that is not known yet, the one that is most like it.
func (m *mapping) pairObjects(recorded, actual object) {
	type match struct {
		recorded, actual string
		score            int
	}
	var matches []match
	for _, r := range sortedNames(recorded) {
		if _, known := m.toActual[r]; known {
			continue
		}
		for _, a := range sortedNames(actual) {
			if _, taken := m.toRecorded[a]; !taken {
				matches = append(matches, match{r, a, m.likeness(recorded[r], actual[a])})
			}
		}
	}
	slices.SortStableFunc(matches, func(x, y match) int { return y.score - x.score })
	for _, x := range matches {
		_, known := m.toActual[x.recorded]
		_, taken := m.toRecorded[x.actual]
		if !known && !taken && x.score > 0 {
			m.toActual[x.recorded], m.toRecorded[x.actual] = x.actual, x.recorded
			m.pairMembers(recorded[x.recorded], actual[x.actual])
		}
	}
}

// pairMembers learns from two records of the same object what their references and uuids are.
func (m *mapping) pairMembers(recorded, actual any) {
	r, okR := recorded.(object)
	a, okA := actual.(object)
	if !okR || !okA {
		return
	}
	for _, name := range sortedNames(r) {
		was, _ := r[name].(string)
		is, _ := a[name].(string)
		if was != "" && is != "" && idPattern.FindString(was) == was && idPattern.FindString(is) == is {
			m.pair(was, is)
		}
	}
}

// likeness counts the members that two records agree in; a uuid or name that agrees counts most.
func (m *mapping) likeness(recorded, actual any) int {
	r, okR := recorded.(object)
	a, okA := actual.(object)
	if !okR || !okA {
		if recorded == actual {
			return 2
		}
		return 1
	}
	score := 1
	for name, v := range r {
		text, isText := v.(string)
		if !isText {
			switch v := v.(type) {
			case json.Number, bool:
				if a[name] == v {
					score++
				}
			}
			continue
		}
		if m.actual(text) != a[name] || text == "" {
			continue
		}
		switch name {
		case "uuid":
			score += 1000
		case "name_label":
			score += 100
		default:
			score += 2
		}
		if idPattern.MatchString(text) {
			score += 10
		}
	}
	return score
}

// arrays compares sets: the order means nothing. Structs are matched by likeness.
func (c *comparison) arrays(path string, recorded, actual []any) {
	if len(recorded) != len(actual) {
		c.differ(path, "recorded %d elements, actual %d: %s", len(recorded), len(actual), c.surplus(recorded, actual))
		return
	}
	if len(recorded) > 0 {
		if _, structs := recorded[0].(object); structs {
			c.structs(path, recorded, actual)
			return
		}
	}
	var restRecorded, restActual []string
	left := map[string]int{}
	for _, v := range actual {
		left[fmt.Sprint(v)]++
	}
	for _, v := range recorded {
		text := c.ids.actual(fmt.Sprint(v))
		if left[text] > 0 {
			left[text]--
			continue
		}
		restRecorded = append(restRecorded, fmt.Sprint(v))
	}
	for _, v := range actual {
		if text := fmt.Sprint(v); left[text] > 0 {
			left[text]--
			restActual = append(restActual, text)
		}
	}
	c.rest(path, restRecorded, restActual)
}

// rest compares the elements of two sets that are not known to be the same. References that were never seen before are
// matched by the likeness of their records, as far as the recording shows them later, else by their place.
func (c *comparison) rest(path string, recorded, actual []string) {
	c.ids.pairByRecords(recorded, actual)
	recorded = slices.DeleteFunc(recorded, func(r string) bool {
		i := slices.Index(actual, c.ids.toActual[r])
		if i >= 0 {
			actual = slices.Delete(actual, i, i+1)
		}
		return i >= 0
	})
	for i := range recorded {
		c.text(path, recorded[i], actual[i])
	}
}

// pairByRecords learns which of two lots of references are the same objects, from their records.
func (m *mapping) pairByRecords(recorded, actual []string) {
	was, is := object{}, object{}
	for _, ref := range recorded {
		if record, ok := m.recorded[ref]; ok {
			was[ref] = record
		}
	}
	for _, ref := range actual {
		if record, ok := m.lookup(ref); ok {
			is[ref] = record
		}
	}
	m.pairObjects(was, is)
}

// learnRecords notes every record that an answer of the recording shows.
func (m *mapping) learnRecords(e *exchange) {
	if e.Response.Body == nil || e.Protocol == "http" {
		return
	}
	got, err := parseAnswer(strings.TrimSuffix(e.Protocol, "1"), *e.Response.Body)
	if err != nil || got.failed != nil {
		return
	}
	note := func(ref string, v any) {
		record, ok := v.(object)
		if _, known := m.recorded[ref]; ok && !known && record["uuid"] != nil {
			m.recorded[ref] = record
		}
	}
	result, _ := got.result.(object)
	for name, v := range result {
		note(name, v)
	}
	if refs := refPattern.FindAllString(*e.Request.Body, -1); strings.HasSuffix(e.method(), ".get_record") && len(refs) > 1 {
		note(refs[1], got.result)
	}
	events, _ := result["events"].([]any)
	for _, v := range events {
		if event, ok := v.(object); ok {
			ref, _ := event["ref"].(string)
			note(ref, event["snapshot"])
		}
	}
}

func (c *comparison) surplus(recorded, actual []any) string {
	if len(recorded)+len(actual) == 0 {
		return ""
	}
	var missing, extra []string
	have := map[string]bool{}
	for _, v := range actual {
		have[keyOf(v)] = true
	}
	want := map[string]bool{}
	for _, v := range recorded {
		key := c.ids.actual(keyOf(v))
		want[key] = true
		if !have[key] {
			missing = append(missing, keyOf(v))
		}
	}
	for _, v := range actual {
		if !want[keyOf(v)] {
			extra = append(extra, keyOf(v))
		}
	}
	return fmt.Sprintf("missing %.300s, too much %.300s", fmt.Sprint(missing), fmt.Sprint(extra))
}

func keyOf(v any) string {
	if o, ok := v.(object); ok {
		name := ""
		if s, ok := o["snapshot"].(object); ok {
			name = fmt.Sprint(s["name_label"], s["name"], s["userdevice"])
		}
		return fmt.Sprint(o["class"], " ", o["operation"], " ", o["ref"], " ", name)
	}
	return fmt.Sprint(v)
}

// structs compares arrays of structs: what is most alike belongs together, and the surest pairs are found first, since
// they tell what the others' references mean.
func (c *comparison) structs(path string, recorded, actual []any) {
	type match struct{ r, a, score int }
	partner, taken := map[int]int{}, map[int]bool{}
	for _, least := range []int{15000, 0} {
		var matches []match
		for r := range recorded {
			for a := range actual {
				if _, done := partner[r]; done || taken[a] || !sameKind(recorded[r], actual[a]) {
					continue
				}
				if score := c.ids.eventLikeness(recorded[r], actual[a]); score >= least {
					matches = append(matches, match{r, a, score})
				}
			}
		}
		slices.SortStableFunc(matches, func(x, y match) int { return y.score - x.score })
		for _, m := range matches {
			if _, done := partner[m.r]; done || taken[m.a] {
				continue
			}
			partner[m.r], taken[m.a] = m.a, true
			c.ids.pairMembers(recorded[m.r], actual[m.a])
			c.ids.pairMembers(snapshotOf(recorded[m.r]), snapshotOf(actual[m.a]))
		}
	}
	for r, v := range recorded {
		a, ok := partner[r]
		if !ok {
			c.differ(path, "%s has no partner", keyOf(v))
			continue
		}
		c.values(path+"["+c.ids.actual(keyOf(v))+"]", v, actual[a])
	}
}

// sameKind says whether two events are of the same class and operation; other structs always are of one kind.
func sameKind(recorded, actual any) bool {
	r, okR := recorded.(object)
	a, okA := actual.(object)
	return !okR || !okA || r["class"] == a["class"] && r["operation"] == a["operation"]
}

func snapshotOf(v any) any {
	if o, ok := v.(object); ok {
		return o["snapshot"]
	}
	return nil
}

func (m *mapping) eventLikeness(recorded, actual any) int {
	score := m.likeness(recorded, actual)
	r, okR := recorded.(object)
	a, okA := actual.(object)
	if okR && okA {
		if r["class"] == a["class"] && r["operation"] == a["operation"] {
			score += 10000
		}
		if ref, ok := r["ref"].(string); ok && m.toActual[ref] == a["ref"] {
			score += 5000
		}
		score += m.likeness(r["snapshot"], a["snapshot"])
	}
	return score
}

func (c *comparison) scalar(path, recorded, actual string) {
	name := path[strings.LastIndexByte(path, '.')+1:]
	if _, changes := volatile[name]; changes {
		if idPattern.FindString(recorded) == recorded && idPattern.FindString(actual) == actual && recorded != "" {
			c.ids.pair(recorded, actual)
		}
		if (recorded == "") != (actual == "") {
			c.differ(path, "recorded %.100q, actual %.100q", recorded, actual)
		}
		return
	}
	c.text(path, recorded, actual)
}

// text compares two texts up to times and identities; identities that were never seen are learnt.
func (c *comparison) text(path, recorded, actual string) {
	plain := func(s string) string {
		s = strings.ReplaceAll(s, c.ids.address, "127.0.0.1")
		s = trackPattern.ReplaceAllString(s, "trackid=<digest>")
		return timePattern.ReplaceAllString(idPattern.ReplaceAllString(s, "<id>"), "<time>")
	}
	if plain(recorded) != plain(actual) {
		c.differ(path, "recorded %.300q, actual %.300q", recorded, actual)
		return
	}
	want, got := idPattern.FindAllString(recorded, -1), idPattern.FindAllString(actual, -1)
	for i := range want {
		if !c.ids.pair(want[i], got[i]) {
			c.differ(path, "recorded %s (which is %q), actual %s (which was %q)", want[i], c.ids.toActual[want[i]], got[i], c.ids.toRecorded[got[i]])
			return
		}
	}
}

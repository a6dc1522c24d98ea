package transfer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
)

// whole is a manifest as we write it.
func whole() Manifest {
	file := func(name string) *ManifestFile {
		return &ManifestFile{Name: name, Size: 4096, SHA256: strings.Repeat("a", 64)}
	}
	return Manifest{
		Version: ManifestVersion, Installation: "ours", Snapshot: "team-a/monday", SnapshotUUID: "u", TakenAt: time.Unix(0, 0).UTC(),
		Format: v1alpha1.DiskFormatVHD, VM: ManifestVM{Name: "web", VCPUs: 2, MaxVCPUs: 4, Memory: 1 << 30, MaxMemory: 2 << 30},
		Disks: []ManifestDisk{
			{Name: "root", Device: 0, VDI: "v0", Size: 1 << 30, Bootable: true, File: file("root.vhd")},
			{Name: "data", Device: 4, VDI: "v4", Size: 1 << 20, File: file("data.vhd")},
		},
		NICs: []ManifestNIC{{Device: "0", MAC: "02:00:00:00:00:01", Network: "lan"}},
	}
}

func TestWhichManifestsAreTaken(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Manifest)
		wants  string // of the message; "" for one that is taken
	}{
		"as we write it":        {func(*Manifest) {}, ""},
		"one archive":           {func(m *Manifest) { m.File, m.Disks[0].File, m.Disks[1].File = m.Disks[0].File, nil, nil }, ""},
		"a difference":          {func(m *Manifest) { m.Parent = parent("../sunday/manifest.json"); m.Disks[0].Base = "b" }, ""},
		"of another version":    {func(m *Manifest) { m.Version = 2 }, "version 2"},
		"of no format":          {func(m *Manifest) { m.Format = "VMDK" }, "VMDK"},
		"without disks":         {func(m *Manifest) { m.Disks = nil }, "0 disks"},
		"without a root disk":   {func(m *Manifest) { m.Disks = m.Disks[1:] }, "no disk called root"},
		"without a file":        {func(m *Manifest) { m.Disks[1].File = nil }, "no file"},
		"twice the name":        {func(m *Manifest) { m.Disks[1].Name = "root" }, "named or placed like another"},
		"twice the place":       {func(m *Manifest) { m.Disks[1].Device = 0 }, "named or placed like another"},
		"a place that is none":  {func(m *Manifest) { m.Disks[1].Device = 255 }, "device 255"},
		"a bomb of a disk":      {func(m *Manifest) { m.Disks[1].Size = 65 << 40 }, "bytes"},
		"a file elsewhere":      {func(m *Manifest) { m.Disks[0].File.Name = "../../secret" }, "beside it"},
		"a file of no digest":   {func(m *Manifest) { m.Disks[0].File.SHA256 = "" }, "digest"},
		"a name like a path":    {func(m *Manifest) { m.Disks[0].Name = "a/b" }, "named"},
		"too much memory":       {func(m *Manifest) { m.VM.MaxMemory = 65 << 40 }, "memory"},
		"no CPU":                {func(m *Manifest) { m.VM.VCPUs = 0 }, "VCPUs"},
		"a group's address":     {func(m *Manifest) { m.NICs[0].MAC = "01:00:00:00:00:01" }, "MAC"},
		"an address of no kind": {func(m *Manifest) { m.NICs[0].MAC = "lan" }, "MAC"},
		"a device of no kind":   {func(m *Manifest) { m.NICs[0].Device = "16" }, "interface"},
		"of a UEFI guest":       {func(m *Manifest) { m.VM.EFIVariables = twoVariables(2) }, ""},
		"of an older host":      {func(m *Manifest) { m.VM.EFIVariables = twoVariables(1) }, ""},
		"of a newer host":       {func(m *Manifest) { m.VM.EFIVariables = twoVariables(3) }, "version 3"},
		"variables of no kind":  {func(m *Manifest) { m.VM.EFIVariables = "AAAA" }, "do not begin"},
		"variables in hex":      {func(m *Manifest) { m.VM.EFIVariables = "0x" }, "base64"},
		"a bomb of variables":   {func(m *Manifest) { m.VM.EFIVariables = strings.Repeat("A", 300<<10) }, "characters"},
		"a parent by URL":       {func(m *Manifest) { m.Parent = parent("https://elsewhere/manifest.json") }, "relative path"},
		"a difference to none":  {func(m *Manifest) { m.Disks[0].Base = "b" }, "difference"},
	} {
		m := whole()
		test.change(&m)
		err := m.check()
		if _, permanent := IsPermanent(err); (err == nil) != (test.wants == "") || err != nil && (!strings.Contains(err.Error(), test.wants) || !permanent) {
			t.Errorf("%s: error %v, want %q", name, err, test.wants)
		}
	}
}

func parent(manifest string) *ManifestParent {
	return &ManifestParent{Snapshot: "team-a/sunday", SnapshotUUID: "p", Manifest: manifest, SHA256: strings.Repeat("b", 64)}
}

// texts are a store that holds manifests alone, under the whole of their places.
type texts map[string]string

func (s texts) Open(_ context.Context, place Place) (imagestore.Store, error) {
	return text{place: place.Source.S3.Key, all: s}, nil
}

type text struct {
	imagestore.Store
	place string
	all   texts
}

func (s text) Location(string) string { return s.place }

func (s text) Stat(context.Context, string) (imagestore.Object, error) {
	if _, found := s.all[s.place]; !found {
		return imagestore.Object{}, &imagestore.Error{Kind: imagestore.NotFound, Op: "look at", Target: s.place, Err: errors.New("nothing there")}
	}
	return imagestore.Object{}, nil
}

func (s text) Open(context.Context, string, imagestore.Object, int64, int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(s.all[s.place])), nil
}

// TestAChainOfUploads: each disk is imported from the files that hold it, the full one below; what was changed on the way is
// refused.
func TestAChainOfUploads(t *testing.T) {
	store := texts{}
	put := func(key string, m Manifest) string {
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		store[key] = string(body)
		return digestOf(body)
	}
	full := whole()
	full.Disks = full.Disks[:1]
	below := put("p/team-a/sunday/manifest.json", full)
	upper := whole()
	upper.Parent, upper.Disks[0].Base = parent("../sunday/manifest.json"), "v0"
	upper.Parent.SHA256 = below
	put("p/team-a/monday/manifest.json", upper)
	source := &v1alpha1.BackupSource{S3: &v1alpha1.S3Object{Key: "p/team-a/monday/manifest.json"}}
	backup, err := ReadBackup(t.Context(), store, "team-a", source)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(disk string) (all []string) {
		i, err := backup.Disk("team-a", disk)
		if err != nil {
			t.Fatal(err)
		}
		for _, layer := range append(slices.Clone(i.Below), Layer{Place: i.Place}) {
			all = append(all, layer.Place.Source.S3.Key)
		}
		return all
	}
	if got := keys("root"); !slices.Equal(got, []string{"p/team-a/sunday/root.vhd", "p/team-a/monday/root.vhd"}) {
		t.Errorf("root is made of %v", got)
	}
	if got := keys("data"); !slices.Equal(got, []string{"p/team-a/monday/data.vhd"}) { // it was new
		t.Errorf("data is made of %v", got)
	}
	full.VM.Name = "changed"
	put("p/team-a/sunday/manifest.json", full)
	if _, err := ReadBackup(t.Context(), store, "team-a", source); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a changed base: %v", err)
	}
	delete(store, "p/team-a/sunday/manifest.json")
	if _, err := ReadBackup(t.Context(), store, "team-a", source); !errors.As(err, new(*Failure)) {
		t.Errorf("a missing base: %v", err)
	}
}

// TestADifferenceLiesUponAWholeChain: it is refused before anything is sent that could not be put together again.
func TestADifferenceLiesUponAWholeChain(t *testing.T) {
	for name, test := range map[string]struct {
		depth int
		spoil func(texts)
		wants string
	}{
		"a full one":           {1, nil, ""},
		"a few":                {5, nil, ""},
		"as many as may be":    {maxParents - 1, nil, ""},
		"one more":             {maxParents, nil, "no more can be put together"},
		"the full one is gone": {3, func(s texts) { delete(s, "ns/0/manifest.json") }, "nothing there"},
		"one was changed":      {3, func(s texts) { s["ns/1/manifest.json"] += " " }, "was changed"},
		"the base is gone":     {3, func(s texts) { delete(s, "ns/2/manifest.json") }, "nothing there"},
	} {
		store, digest := texts{}, ""
		for n := range test.depth {
			m := whole()
			m.Disks = m.Disks[:1]
			m.Disks[0].VDI = strconv.Itoa(n)
			if n > 0 {
				m.Disks[0].Base = strconv.Itoa(n - 1)
				m.Parent = parent(fmt.Sprintf("../%d/manifest.json", n-1))
				m.Parent.SHA256 = digest
			}
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			store[fmt.Sprintf("ns/%d/manifest.json", n)], digest = string(text), digestOf(text)
		}
		if test.spoil != nil {
			test.spoil(store)
		}
		last := strconv.Itoa(test.depth - 1)
		u := &Upload{Manifest: whole(), Place: Place{Namespace: "ns", Snapshot: "new", Destination: &v1alpha1.SnapshotDestination{S3: &v1alpha1.S3Destination{}}}}
		u.Manifest.Disks[0].Base, u.Manifest.Parent = last, parent("../"+last+"/manifest.json")
		u.Manifest.Parent.SHA256 = digest
		err := baseIsWhole(t.Context(), store, u)
		if _, permanent := IsPermanent(err); (err == nil) != (test.wants == "") || err != nil && (!strings.Contains(err.Error(), test.wants) || !permanent || !strings.Contains(err.Error(), "without incrementalFrom")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAManifestOfManyDisks: what a hostile text makes of itself in memory is bounded.
func TestAManifestOfManyDisks(t *testing.T) {
	for name, text := range map[string]string{
		"disks":      `{"version":1,"disks":[` + strings.Repeat("{},", 300_000) + `{}]}`,
		"no disks":   `{"version":1,"disks":[` + strings.Repeat("null,", 200_000) + `null]}`,
		"interfaces": `{"version":1,"nics":[` + strings.Repeat("{},", 300_000) + `{}]}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, why := parseManifest([]byte(text))
		runtime.ReadMemStats(&after)
		if !strings.Contains(why, "at most 250") {
			t.Errorf("%s: %q", name, why)
		}
		if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 64 {
			t.Errorf("%s: a text of %d KiB took %d MiB", name, len(text)>>10, took)
		}
	}
}

// TestWhereAManifestLeads: never out of the bucket, never to another server, never with the signature of another file.
func TestWhereAManifestLeads(t *testing.T) {
	for name, test := range map[string]struct{ key, url string }{
		"root.vhd":                      {"a/b/root.vhd", "https://store/a/b/root.vhd"},
		"../sunday/manifest.json":       {"a/sunday/manifest.json", "https://store/a/sunday/manifest.json"},
		"../../../other-bucket/key":     {"", "https://store/other-bucket/key"},
		"/etc/passwd":                   {"a/b/etc/passwd", "https://store/a/b/etc/passwd"},
		"//elsewhere/manifest.json":     {"a/b/elsewhere/manifest.json", "https://store/a/b/elsewhere/manifest.json"},
		"..":                            {"a", "https://store/a"},
		"manifest.json?signature=other": {"a/b/manifest.json?signature=other", "https://store/a/b/manifest.json%3Fsignature=other"},
	} {
		got, err := beside(&v1alpha1.ImageSource{S3: &v1alpha1.S3Object{Key: "a/b/manifest.json"}}, name)
		if (err == nil) != (test.key != "") || err == nil && got.S3.Key != test.key {
			t.Errorf("%s beside a key is %+v, %v", name, got, err)
		}
		got, err = beside(&v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: "https://store/a/b/manifest.json?signature=secret"}}, name)
		if err != nil || got.HTTP.URL != test.url {
			t.Errorf("%s beside a URL is %+v, %v", name, got.HTTP, err)
		}
	}
}

// TestTheFilesOfAManifest: they are named as it is.
func TestTheFilesOfAManifest(t *testing.T) {
	for manifest, want := range map[string]string{
		"https://store/a/b/manifest.json":            "https://store/a/b/root.vhd",
		"https://store/a/b-manifest.json?sas=secret": "https://store/a/b-root.vhd",
		"https://store/a/b%2Fc-manifest.json":        "https://store/a/b%2Fc-root.vhd",
		"https://store/a/renamed.json":               "https://store/a/root.vhd",
	} {
		got, err := fileBeside(&v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: manifest}}, "root.vhd")
		if err != nil || got.HTTP.URL != want {
			t.Errorf("the file of %s is %+v, %v; want %s", manifest, got, err, want)
		}
	}
	for manifest, want := range map[string]string{"a/manifest.json": "a/root.vhd", "a/b-manifest.json": "a/b-root.vhd", "manifest.json": "root.vhd"} {
		got, err := fileBeside(&v1alpha1.ImageSource{S3: &v1alpha1.S3Object{Key: manifest}}, "root.vhd")
		if err != nil || got.S3.Key != want {
			t.Errorf("the file of %s is %+v, %v; want %s", manifest, got, err, want)
		}
	}
}

// FuzzBeside: wherever a manifest says its parent is, it is on the same server.
func FuzzBeside(f *testing.F) {
	for _, seed := range []string{"../x", "//h/x", "%2e%2e/x", "..\\x", "@h/x", ":x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		m := whole()
		m.Parent = parent(name)
		if m.check() != nil {
			return
		}
		got, err := beside(&v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: "https://store:8443/a/b/manifest.json?signature=secret"}}, name)
		if err != nil {
			return
		}
		if u, err := url.Parse(got.HTTP.URL); err != nil || u.Scheme != "https" || u.Host != "store:8443" || u.User != nil || u.RawQuery != "" {
			t.Errorf("%q leads to %q, %v", name, got.HTTP.URL, err)
		}
		if got, err := beside(&v1alpha1.ImageSource{S3: &v1alpha1.S3Object{Key: "a/b/manifest.json"}}, name); err == nil && (got.S3.Key == "" || strings.HasPrefix(got.S3.Key, "..")) {
			t.Errorf("%q leads to the key %q", name, got.S3.Key)
		}
	})
}

// FuzzManifest: whatever a store holds, it is taken whole or refused; and a taken one leads to no file but beside it.
func FuzzManifest(f *testing.F) {
	good, err := json.Marshal(whole())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good))
	f.Add(`{"version":1,"disks":[{"name":"root","file":{"name":".."}}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		store := texts{"a/b/manifest.json": body}
		backup, err := ReadBackup(t.Context(), store, "ns", &v1alpha1.BackupSource{S3: &v1alpha1.S3Object{Key: "a/b/manifest.json"}})
		if err != nil {
			if !errors.As(err, new(*Failure)) {
				t.Errorf("untyped: %v", err)
			}
			return
		}
		for _, disk := range backup.Manifest.Disks {
			i, err := backup.Disk("ns", disk.Name)
			if err != nil {
				continue
			}
			if rest, beside := strings.CutPrefix(i.Place.Source.S3.Key, "a/b/"); !beside || rest == "" || strings.Contains(rest, "/") {
				t.Errorf("disk %q is read from %q", disk.Name, i.Place.Source.S3.Key)
			}
		}
	})
}

// variable is a UEFI variable as a host keeps it.
func variable(name, content string) []byte {
	blob := binary.LittleEndian.AppendUint64(nil, uint64(len(name)))
	blob = binary.LittleEndian.AppendUint64(append(blob, name...), uint64(len(content)))
	return append(append(blob, content...), make([]byte, 16+4+16+32)...)
}

// variables are such, as NVRAM has them, with a count that may lie.
func variables(version, count int, of ...[]byte) string {
	content := bytes.Join(of, nil)
	blob := binary.LittleEndian.AppendUint32([]byte("VARS"), uint32(version))
	blob = binary.LittleEndian.AppendUint64(blob, uint64(count))
	blob = binary.LittleEndian.AppendUint64(blob, uint64(len(content)))
	if version >= 2 {
		blob = append(blob, make([]byte, 8+0x104)...)
	}
	return base64.StdEncoding.EncodeToString(append(blob, content...))
}

func twoVariables(version int) string {
	return variables(version, 2, variable("B\x00o\x00", "\x00\x00"), variable("T\x00", "5"))
}

// TestWhichVariablesAreTaken: what a host could not read is not given to it.
func TestWhichVariablesAreTaken(t *testing.T) {
	one := variable("B\x00", "\x01")
	for name, test := range map[string]struct{ text, wants string }{
		"none":                 {variables(2, 0), ""},
		"one":                  {variables(2, 1, one), ""},
		"a large one":          {variables(2, 1, variable("B\x00", strings.Repeat("x", 56<<10))), ""},
		"with line breaks":     {"VkFS\n" + variables(2, 1, one)[4:], ""},
		"one too large":        {variables(2, 1, variable("B\x00", strings.Repeat("x", 56<<10+1))), "57345 bytes"},
		"a long name":          {variables(2, 1, variable(strings.Repeat("x", 4<<10+1), "x")), "4097 bytes"},
		"no name":              {variables(2, 1, variable("", "x")), "has 0 bytes"},
		"no content":           {variables(2, 1, variable("x", "")), "has 0 bytes"},
		"more than there are":  {variables(2, 2, one), "too early"},
		"fewer than there are": {variables(2, 1, one, one), "follow"},
		"endlessly many":       {variables(2, -1, one), "at most 1024"},
		"cut in one":           {variables(2, 1, one[:len(one)-1]), "1 to 0"},
		"a length beyond":      {variables(2, 1, append([]byte{255, 0, 0, 0, 0, 0, 0, 128}, one[8:]...)), "9223372036854776063 bytes"},
		"too many bytes":       {variables(1, 3, one, one, variable("B\x00", strings.Repeat("x", 56<<10)), make([]byte, 80<<10)), "at most 131072"},
		"cut before them":      {base64.StdEncoding.EncodeToString([]byte("VARS\x02\x00\x00\x00" + strings.Repeat("\x00", 16))), "too early"},
	} {
		why := unfitVariables(test.text)
		if (why == "") != (test.wants == "") || !strings.Contains(why, test.wants) {
			t.Errorf("%s: %q, want %q", name, why, test.wants)
		}
	}
}

// FuzzVariables: whatever is taken is a whole number of variables, as a host counts them.
func FuzzVariables(f *testing.F) {
	f.Add(twoVariables(1))
	f.Add(twoVariables(2))
	f.Fuzz(func(t *testing.T, text string) {
		if unfitVariables(text) != "" {
			return
		}
		blob, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if len(blob) > 128<<10 || uint64(len(blob)) < 24+86*binary.LittleEndian.Uint64(blob[8:]) {
			t.Errorf("%d bytes were taken for %d variables", len(blob), binary.LittleEndian.Uint64(blob[8:]))
		}
	})
}

package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
)

// shelved is a store in memory; with images it is an image service, whose images are complete.
type shelved struct {
	imagestore.Store
	files map[string]string
}

func (s shelved) Location(name string) string { return "store:/" + name }

func (s shelved) Stat(_ context.Context, name string) (imagestore.Object, error) {
	content, there := s.files[name]
	if !there {
		return imagestore.Object{}, &imagestore.Error{Kind: imagestore.NotFound, Op: "look at", Target: name, Err: errors.New("nothing is there")}
	}
	return imagestore.Object{Size: int64(len(content))}, nil
}

func (s shelved) Open(_ context.Context, name string, _ imagestore.Object, _, _ int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(s.files[name])), nil
}

func (s shelved) Remove(_ context.Context, name string) error {
	delete(s.files, name)
	return nil
}

// images is an image service; the files' contents are the manifests that its images carry.
type images struct{ shelved }

func (s images) List(context.Context) ([]imagestore.Object, error) {
	var all []imagestore.Object
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		all = append(all, imagestore.Object{
			Name: name, ID: "id-" + name, Size: 7, Image: &imagestore.ImageRecord{Properties: map[string]string{manifestProperty: s.files[name]}},
		})
	}
	return all, nil
}

// uploadedManifest is that of a snapshot with two disks, as text.
func uploadedManifest(t testing.TB, uuid string, change func(*Manifest)) string {
	t.Helper()
	m := Manifest{Version: ManifestVersion, Snapshot: "team-a/once", SnapshotUUID: uuid, Format: v1alpha1.DiskFormatVHD, Disks: []ManifestDisk{
		{Name: "root", File: &ManifestFile{Name: "root.vhd", Size: 4, SHA256: "a"}}, {Name: "data", Device: 4, File: &ManifestFile{Name: "data.vhd", Size: 4, SHA256: "b"}},
	}}
	if change != nil {
		change(&m)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

func TestWhatAStoreRemembers(t *testing.T) {
	mine := uploadedManifest(t, "mine", nil)
	for name, tc := range map[string]struct {
		store    imagestore.Store
		files    int
		complete bool
		kind     imagestore.Kind
		reason   string
	}{
		"nothing":                       {store: shelved{files: map[string]string{}}, kind: imagestore.NotFound},
		"files without a manifest":      {store: shelved{files: map[string]string{"root.vhd": "disk"}}, kind: imagestore.NotFound},
		"an upload":                     {store: shelved{files: map[string]string{ManifestName: mine}}, files: 2, complete: true},
		"what is no manifest":           {store: shelved{files: map[string]string{ManifestName: "<html>"}}, reason: v1alpha1.ReasonInvalidManifest},
		"two disks of one name":         {store: shelved{files: map[string]string{ManifestName: uploadedManifest(t, "mine", func(m *Manifest) { m.Disks[1].Name = "root" })}}, reason: v1alpha1.ReasonInvalidManifest},
		"a uuid that is none":           {store: shelved{files: map[string]string{ManifestName: uploadedManifest(t, strings.Repeat("x", 37), nil)}}, reason: v1alpha1.ReasonInvalidManifest},
		"a file of no size":             {store: shelved{files: map[string]string{ManifestName: uploadedManifest(t, "mine", func(m *Manifest) { m.Disks[0].File.Size = -1 })}}, reason: v1alpha1.ReasonInvalidManifest},
		"a digest that is none":         {store: shelved{files: map[string]string{ManifestName: uploadedManifest(t, "mine", func(m *Manifest) { m.Disks[0].File.SHA256 = strings.Repeat("a", 65) })}}, reason: v1alpha1.ReasonInvalidManifest},
		"a disk of no uuid":             {store: shelved{files: map[string]string{ManifestName: uploadedManifest(t, "mine", func(m *Manifest) { m.Disks[0].VDI = strings.Repeat("a", 37) })}}, reason: v1alpha1.ReasonInvalidManifest},
		"a consistency of no kind":      {store: shelved{files: map[string]string{ManifestName: uploadedManifest(t, "mine", func(m *Manifest) { m.Consistency = "Perfect" })}}, reason: v1alpha1.ReasonInvalidManifest},
		"a format of no kind":           {store: shelved{files: map[string]string{ManifestName: uploadedManifest(t, "mine", func(m *Manifest) { m.Format = "VMDK" })}}, reason: v1alpha1.ReasonInvalidManifest},
		"too long":                      {store: shelved{files: map[string]string{ManifestName: mine + strings.Repeat(" ", maxManifest)}}, reason: v1alpha1.ReasonInvalidManifest},
		"no image":                      {store: images{shelved{files: map[string]string{}}}, kind: imagestore.NotFound},
		"images without our property":   {store: images{shelved{files: map[string]string{"root.vhd": ""}}}, kind: imagestore.NotFound},
		"an image of two":               {store: images{shelved{files: map[string]string{"root.vhd": mine}}}, files: 1},
		"all images":                    {store: images{shelved{files: map[string]string{"root.vhd": mine, "data.vhd": mine}}}, files: 2, complete: true},
		"images of different uploads":   {store: images{shelved{files: map[string]string{"root.vhd": mine, "data.vhd": uploadedManifest(t, "another", nil)}}}, files: 1},
		"an archive of all as an image": {store: images{shelved{files: map[string]string{"vm.xva": uploadedManifest(t, "mine", func(m *Manifest) { m.Format = v1alpha1.DiskFormatXVA })}}}, files: 1, complete: true},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := Recall(t.Context(), tc.store)
			var failure *Failure
			reason := ""
			if errors.As(err, &failure) {
				reason = failure.Reason
			}
			if imagestore.KindOf(err) != tc.kind || reason != tc.reason || len(found.Files) != tc.files || found.Complete != tc.complete {
				t.Errorf("found %+v, %v; want %d files, complete %t, %v %s", found, err, tc.files, tc.complete, tc.kind, tc.reason)
			}
		})
	}
}

func TestWhatIsRemovedOfAnUpload(t *testing.T) {
	mine, another := uploadedManifest(t, "mine", nil), uploadedManifest(t, "another", nil)
	for name, tc := range map[string]struct {
		files map[string]string
		store func(map[string]string) imagestore.Store
		left  []string
	}{
		"a complete one":          {files: map[string]string{ManifestName: mine, "root.vhd": "x", "data.vhd": "x", "notes.txt": "x"}, left: []string{"notes.txt"}},
		"one that was begun":      {files: map[string]string{"root.vhd": "x"}, left: nil},
		"another snapshot's":      {files: map[string]string{ManifestName: another, "root.vhd": "x"}, left: []string{ManifestName, "root.vhd"}},
		"images":                  {files: map[string]string{"root.vhd": mine, "data.vhd": mine}, store: func(files map[string]string) imagestore.Store { return images{shelved{files: files}} }},
		"another snapshot's ones": {files: map[string]string{"root.vhd": another}, store: func(files map[string]string) imagestore.Store { return images{shelved{files: files}} }, left: []string{"root.vhd"}},
	} {
		t.Run(name, func(t *testing.T) {
			var store imagestore.Store = shelved{files: tc.files}
			if tc.store != nil {
				store = tc.store(tc.files)
			}
			disks := []v1alpha1.SnapshotDisk{{Name: "root"}, {Name: "data"}}
			if err := RemoveUpload(t.Context(), store, &v1alpha1.SnapshotDestination{}, disks, "mine"); err != nil {
				t.Fatal(err)
			}
			if left := slices.Sorted(maps.Keys(tc.files)); !slices.Equal(left, tc.left) {
				t.Errorf("the store has %v, want %v", left, tc.left)
			}
		})
	}
}

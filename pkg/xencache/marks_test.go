package xencache

import (
	"testing"

	"pgregory.net/rapid"
)

func TestMarksSurviveTheirWayThroughOtherConfig(t *testing.T) {
	word := rapid.StringMatching(`[a-z0-9][-a-z0-9.]{0,20}`)
	rapid.Check(t, func(t *rapid.T) {
		want := Marks{
			Installation: word.Draw(t, "installation"),
			Ref:          Key{Kind: "XenInstance", Namespace: word.Draw(t, "namespace"), Name: word.Draw(t, "name")},
			UID:          word.Draw(t, "uid"),
			Role:         RoleDataDisk,
			Disk:         word.Draw(t, "disk"),
		}
		if got := ReadMarks(want.OtherConfig()); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		named := Marks{Installation: want.Installation, Ref: want.Ref, Role: want.Role}
		got, ok := ParseMarkName(MarkName(want.Installation, want.Ref, want.Role))
		if !ok || got != named {
			t.Fatalf("by name: got %+v (%t), want %+v", got, ok, named)
		}
	})
}

func TestWhatIsNoMark(t *testing.T) {
	for name, otherConfig := range map[string]map[string]string{
		"a stranger's object":       {"folder": "/lab"},
		"ref without installation":  {MarkRef: "XenInstance/a/b"},
		"installation without ref":  {MarkInstallation: "one"},
		"ref with an empty part":    {MarkInstallation: "one", MarkRef: "XenInstance//b"},
		"ref with too many parts":   {MarkInstallation: "one", MarkRef: "XenInstance/a/b/c"},
		"ref that is only one part": {MarkInstallation: "one", MarkRef: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ReadMarks(otherConfig); !got.IsZero() {
				t.Errorf("read marks %+v", got)
			}
		})
	}
	for _, name := range []string{"", "web", "kubexen", "kubexen/", "kubexen/one", "kubexen/one/web", "kubexen//XenInstance/a/b/vm", "team/kubexen/one/XenInstance/a/b/vm"} {
		if got, ok := ParseMarkName(name); ok {
			t.Errorf("name %q read as mark %+v", name, got)
		}
	}
}

func TestACopyDoesNotPassForTheOriginal(t *testing.T) {
	marks := Marks{Installation: "one", Self: "uuid-1"}
	if marks.IsCopyOf("uuid-1") {
		t.Error("the original passes for a copy")
	}
	if !marks.IsCopyOf("uuid-2") {
		t.Error("a copy passes for the original")
	}
	if (Marks{Installation: "one"}).IsCopyOf("uuid-2") {
		t.Error("an object without self, which is new, passes for a copy")
	}
}

// TestWhoseMarksCount reads objects whose name and other_config say different things.
func TestWhoseMarksCount(t *testing.T) {
	mine := Key{Kind: "XenInstance", Namespace: "team", Name: "web"}
	other := Key{Kind: "XenInstance", Namespace: "victims", Name: "web"}
	marked := func(self string) map[string]string {
		return Marks{Installation: "one", Ref: mine, Self: self, Role: RoleVM}.OtherConfig()
	}
	for name, test := range map[string]struct {
		name        string
		otherConfig map[string]string
		want        Key
	}{
		"a complete object":                               {"web", marked("uuid-1"), mine},
		"a fresh clone, with its source's marks":          {MarkName("one", other, RoleVM), marked("uuid-0"), other},
		"a fresh clone of something without marks":        {MarkName("one", other, RoleVM), nil, other},
		"a complete object that was given another's name": {MarkName("one", other, RoleVM), marked("uuid-1"), mine},
		"a stranger": {"web", nil, Key{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := marksOf("uuid-1", test.otherConfig, test.name).Ref; got != test.want {
				t.Errorf("it belongs to %v, want %v", got, test.want)
			}
		})
	}
}

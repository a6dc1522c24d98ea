package testkit

import (
	"errors"
	"testing"
)

// fakeTest is a test whose end comes when we say so.
type fakeTest struct {
	name     string
	cleanups []func()
}

func (f *fakeTest) Name() string        { return f.name }
func (f *fakeTest) Cleanup(last func()) { f.cleanups = append(f.cleanups, last) }

func (f *fakeTest) end() {
	for _, cleanup := range f.cleanups {
		cleanup()
	}
}

// TestEachTestHasAControlPlane lets tests overlap and follow each other.
func TestEachTestHasAControlPlane(t *testing.T) {
	l := leases{start: func() (*Environment, error) { return &Environment{}, nil }}
	take := func(test *fakeTest) *Environment {
		environment, err := l.take(test)
		if err != nil {
			t.Fatal(err)
		}
		return environment
	}
	first, second := &fakeTest{name: "TestFirst"}, &fakeTest{name: "TestSecond"}
	a, b := take(first), take(second)
	if a == b {
		t.Error("two tests at the same time share a control plane")
	}
	sub := &fakeTest{name: "TestFirst/subtest"}
	if take(sub) != a {
		t.Error("a subtest has another one than its parent")
	}
	sub.end()
	if third := (&fakeTest{name: "TestThird"}); take(third) == a {
		t.Error("the end of a subtest gave away its parent's")
	}
	first.end()
	if take(&fakeTest{name: "TestFourth"}) != a {
		t.Error("what a test has left is not used again")
	}
	one, other := &fakeTest{name: "TestFifth/one"}, &fakeTest{name: "TestFifth/other"}
	if c := take(one); c == take(other) {
		t.Error("subtests at the same time share a control plane that their parent has not asked for")
	} else if take(&fakeTest{name: "TestFifth/one/part"}) != c {
		t.Error("a part of a subtest has another one than the subtest")
	}
}

// TestAFailedStartIsNotTriedAgain makes sure that not every test waits for what cannot be.
func TestAFailedStartIsNotTriedAgain(t *testing.T) {
	tries, broken := 0, errors.New("no such program")
	l := leases{start: func() (*Environment, error) { tries++; return nil, broken }}
	for _, name := range []string{"TestOne", "TestTwo"} {
		if _, err := l.take(&fakeTest{name: name}); !errors.Is(err, broken) {
			t.Errorf("%s got %v", name, err)
		}
	}
	if tries != 1 {
		t.Errorf("%d tries", tries)
	}
}

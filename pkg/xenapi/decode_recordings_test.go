package xenapi

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
)

func TestEveryRecordedAnswerDecodesWithNothingLost(t *testing.T) {
	t.Parallel()
	answers := recordedAnswers(t)
	if len(answers) < 500 {
		t.Fatalf("only %d XML-RPC answers on record", len(answers))
	}
	for _, one := range answers {
		want, err := independent(one.Response.Body)
		if err != nil {
			t.Fatalf("%04d %s: independent decoder: %v", one.Number, one.Name, err)
		}
		got, err := rawAnswer(strings.NewReader(one.Response.Body), DefaultLimits)
		if err != nil {
			t.Errorf("%04d %s: %v", one.Number, one.Name, err)
			continue
		}
		if d := difference("answer", got, want); d != "" {
			t.Errorf("%04d %s: %s", one.Number, one.Name, d)
		}
		roundTrip(t, one, got)
	}
}

// roundTrip encodes what was decoded and decodes it again.
func roundTrip(t *testing.T, one recordedExchange, v Value) {
	t.Helper()
	body, err := encodeCall("x", []any{v})
	if err != nil {
		if strings.Contains(err.Error(), "reads at most") {
			return // larger than any call may be
		}
		t.Errorf("%04d %s: encode: %v", one.Number, one.Name, err)
		return
	}
	text := string(body)
	text = text[strings.Index(text, "<params>"):strings.LastIndex(text, "</methodCall>")]
	again, err := rawAnswer(strings.NewReader("<methodResponse>"+text+"</methodResponse>"), DefaultLimits)
	if err != nil {
		t.Errorf("%04d %s: decode again: %v", one.Number, one.Name, err)
		return
	}
	if d := meaning("answer", again, v); d != "" {
		t.Errorf("%04d %s: after a round trip %s", one.Number, one.Name, d)
	}
}

// meaning compares values with one another; members have no order.
func meaning(path string, got, want Value) string {
	same := got.Kind() == want.Kind()
	switch want.Kind() {
	case KindDouble:
		a, errA := got.Float64()
		b, errB := want.Float64()
		same = same && errA == nil && errB == nil && (a == b || a != a && b != b)
	case KindTime:
		a, errA := got.Time()
		b, errB := want.Time()
		same = same && errA == nil && errB == nil && a.Equal(b)
	case KindInt:
		a, errA := got.Int64() // integers go as strings
		b, errB := want.Int64()
		same = errA == nil && errB == nil && a == b
	default:
		same = same && got.Text() == want.Text()
	}
	if !same || len(got.Items()) != len(want.Items()) || len(got.Members()) != len(want.Members()) {
		return path + " differs"
	}
	for i, item := range want.Items() {
		if d := meaning(path+"[]", got.Items()[i], item); d != "" {
			return d
		}
	}
	for _, m := range want.Members() {
		other, ok := got.Get(m.Name)
		if !ok {
			return path + " lacks " + m.Name
		}
		if d := meaning(path+"."+m.Name, other, m.Value); d != "" {
			return d
		}
	}
	return ""
}

// Where the window ends must not matter: the same answers, one byte a read, and in a window hardly larger than a tag.
func TestRecordedAnswersDecodeInSmallPieces(t *testing.T) {
	t.Parallel()
	for i, one := range recordedAnswers(t) {
		if len(one.Response.Body) > 20_000 && i%25 != 0 {
			continue
		}
		whole, err := rawAnswer(strings.NewReader(one.Response.Body), DefaultLimits)
		if err != nil {
			t.Fatalf("%04d: %v", one.Number, err)
		}
		want, err := independent(one.Response.Body)
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := rawAnswer(iotest.OneByteReader(strings.NewReader(one.Response.Body)), DefaultLimits)
		if err != nil {
			t.Fatalf("%04d in single bytes: %v", one.Number, err)
		}
		if d := difference("answer", pieces, want); d != "" {
			t.Errorf("%04d in single bytes: %s", one.Number, d)
		}
		if d := meaning("answer", pieces, whole); d != "" {
			t.Errorf("%04d in single bytes: %s", one.Number, d)
		}
	}
}

// A truncated answer is an error wherever it is cut, and never a part of the result.
func TestEveryTruncationIsNoticed(t *testing.T) {
	t.Parallel()
	for _, one := range recordedAnswers(t)[:40] {
		body := strings.TrimRight(one.Response.Body, " \n")
		step := max(1, len(body)/400)
		for cut := 0; cut < len(body); cut += step {
			if _, err := rawAnswer(bytes.NewReader([]byte(body[:cut])), DefaultLimits); err == nil {
				t.Fatalf("%04d %s: cut at %d of %d went unnoticed", one.Number, one.Name, cut, len(body))
			}
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"

	"github.com/kolo/xmlrpc"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// wire compares reading VM.get_all_records of a thousand VMs.
var wire = group{
	name:  "wire",
	about: "decoding 1,000 real-shaped VM records; theirs ÷ ours",
	run:   runWire,
}

const wireRecords = 1000

func runWire(ctx context.Context, r *report) error {
	docs, err := loadWireDocuments(wireRecords)
	if err != nil {
		return err
	}
	client, err := cannedClient(ctx, docs.xml)
	if err != nil {
		return err
	}
	want, err := client.VM.GetAllRecords(ctx)
	if err != nil {
		return err
	}
	ours := side{"ours", func() error {
		records, err := client.VM.GetAllRecords(ctx)
		return countRecords(len(records), err)
	}}
	rivals := []struct {
		row  string
		note string
		goal goal
		side side
	}{
		{"wire.decode.kolo", "kolo/xmlrpc on text with a type tag on every value: it does not read the other whole", atLeast(5), koloSide(docs, want)},
		{"wire.decode.encodingxml", "encoding/xml's tokens, the same text as ours", atLeast(5), standardSide(docs, want)},
		{"wire.decode.json", "encoding/json on the JSON-RPC answer, which is 2.5 times smaller", atLeast(0.66), jsonSide(docs, want)},
	}
	for _, rival := range rivals {
		a, b, err := compare(r.rounds, ours, rival.side)
		if err != nil {
			return err
		}
		r.add(row{
			Name: rival.row, Value: a.milliseconds, Unit: "ms", Against: b.milliseconds, Ratio: b.milliseconds / a.milliseconds, N: r.rounds,
			Note: fmt.Sprintf("%s; %.1f MiB of XML", rival.note, float64(len(docs.xml))/(1<<20)), goal: rival.goal,
		})
		if rival.row == "wire.decode.kolo" {
			r.add(row{
				Name: "wire.allocs.kolo", Value: a.mallocs, Unit: "mallocs", Against: b.mallocs, Ratio: a.mallocs / b.mallocs, N: r.rounds,
				Note: fmt.Sprintf("ours ÷ theirs; %.1f against %.1f MiB", a.mebibytes, b.mebibytes), goal: atMost(0.25),
			})
		}
	}
	return nil
}

func countRecords(n int, err error) error {
	if err == nil && n != wireRecords {
		return fmt.Errorf("%d records, want %d", n, wireRecords)
	}
	return err
}

// cannedClient is our client with answers from memory in the network's place: what is measured is the whole of a call, less the network.
func cannedClient(ctx context.Context, body []byte) (*xenapi.Client, error) {
	return xenapi.Connect(ctx, xenapi.Config{
		Endpoints: []string{"http://127.0.0.1:1"}, Username: "root", Password: "none",
		WrapTransport: func(http.RoundTripper) http.RoundTripper { return canned(body) },
	})
}

type canned []byte

const loginAnswer = `<?xml version="1.0"?><methodResponse><params><param><value><struct><member><name>Status</name><value>Success</value></member>` +
	`<member><name>Value</name><value>OpaqueRef:canned</value></member></struct></value></param></params></methodResponse>`

// RoundTrip implements http.RoundTripper.
func (c canned) RoundTrip(req *http.Request) (*http.Response, error) {
	call, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	body := []byte(c)
	if bytes.Contains(call, []byte("session.login")) {
		body = []byte(loginAnswer)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: req,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

// verified runs one side once before it is measured, and compares what it read with what we read, so that nobody is fast by losing half.
func verified(name string, want map[xenapi.VMRef]xenapi.VM, decode func() (reflect.Value, error)) side {
	checked := false
	return side{name, func() error {
		records, err := decode()
		if err != nil {
			return err
		}
		if err := countRecords(records.Len(), nil); err != nil {
			return err
		}
		if !checked {
			checked = true
			return sameRecords(records, want)
		}
		return nil
	}}
}

func koloSide(docs wireDocuments, want map[xenapi.VMRef]xenapi.VM) side {
	envelope := envelopeOf("xmlrpc", plainRecord("xmlrpc", false))
	return verified("kolo/xmlrpc", want, func() (reflect.Value, error) {
		out := reflect.New(envelope)
		err := xmlrpc.Response(docs.taggedXML).Unmarshal(out.Interface())
		return out.Elem().FieldByName("Value"), err
	})
}

func standardSide(docs wireDocuments, want map[xenapi.VMRef]xenapi.VM) side {
	envelope := envelopeOf("json", plainRecord("json", false))
	return verified("encoding/xml", want, func() (reflect.Value, error) {
		out := reflect.New(envelope)
		err := decodeWithEncodingXML(docs.xml, out.Elem())
		return out.Elem().FieldByName("Value"), err
	})
}

func jsonSide(docs wireDocuments, want map[xenapi.VMRef]xenapi.VM) side {
	envelope := envelopeOf("json", plainRecord("json", true))
	return verified("encoding/json", want, func() (reflect.Value, error) {
		out := reflect.New(envelope)
		err := json.Unmarshal(docs.json, out.Interface())
		return out.Elem().FieldByName("Value"), err
	})
}

var errDifferent = errors.New("read something else than we did")

// sameRecords compares a few telling fields of each record.
func sameRecords(records reflect.Value, want map[xenapi.VMRef]xenapi.VM) error {
	for entries := records.MapRange(); entries.Next(); {
		vm, ok := want[xenapi.VMRef(entries.Key().String())]
		got := entries.Value()
		ours := reflect.ValueOf(vm)
		if !ok {
			return errDifferent
		}
		for _, name := range []string{"UUID", "NameLabel", "PowerState", "MemoryStaticMax", "Recommendations", "IsATemplate", "OtherConfig", "AllowedOperations", "Version"} {
			if fmt.Sprint(got.FieldByName(name)) != fmt.Sprint(ours.FieldByName(name)) {
				return fmt.Errorf("%w: %s of %s", errDifferent, name, vm.UUID)
			}
		}
	}
	return nil
}

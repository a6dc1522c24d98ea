package testkit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
)

// checkSecrecy looks for the world's secrets, plain and in base64, in all objects of ours, the Events, the managers'
// logs, and the records of the pool.
func (w *World) checkSecrecy(ctx context.Context) error {
	texts := map[string]string{"the manager's log": w.log.String()}
	objects, err := w.objects(ctx)
	if err != nil {
		return err
	}
	for _, object := range objects {
		texts[fmt.Sprintf("%T %s", object, object.GetName())] = asJSON(object)
	}
	var events eventsv1.EventList
	if err := w.Client.List(ctx, &events); err != nil {
		return err
	}
	for i := range events.Items {
		texts["the Event "+events.Items[i].Name] = asJSON(events.Items[i])
	}
	for _, class := range []string{"VM", "VDI", "VBD", "VIF", "pool", "task", "network", "SR"} {
		for ref, record := range w.Simulator.Records(class) {
			texts["the pool's "+class+" "+ref] = asJSON(record)
		}
	}
	var found []error
	for _, secret := range w.secrets {
		encoded := base64.StdEncoding.EncodeToString([]byte(secret))
		for place, text := range texts {
			if strings.Contains(text, secret) || strings.Contains(text, encoded) {
				found = append(found, fmt.Errorf("%s shows a secret (%s…)", place, secret[:min(3, len(secret))]))
			}
		}
	}
	return errors.Join(found...)
}

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

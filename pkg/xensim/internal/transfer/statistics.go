package transfer

import (
	"fmt"
	"strconv"

	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// rrdStep is how many seconds lie between two samples.
const rrdStep = 5

// rrdUpdates answers GET /rrd_updates: a well-formed answer without a column, since the simulator measures nothing.
func (s *service) rrdUpdates(x *xapi.Exchange) error {
	start, err := strconv.ParseInt(x.Query.Get("start"), 10, 64)
	if err != nil {
		return fmt.Errorf("Invalid_argument(%q)", "Rrdd_http_handler: start")
	}
	end := s.Clock.Now().Unix()
	if x.Query.Get("json") == "true" || x.Header["accept"] == "application/json" {
		body := fmt.Sprintf(`{"meta":{"start":%d,"step":%d,"end":%d,"rows":0,"columns":0,"legend":[]},"data":[]}`, start, rrdStep, end)
		return x.Respond([]byte(body), httpd.Header{Name: "content-type", Value: "application/json"})
	}
	body := fmt.Sprintf(`<?xml version="1.0"?><xport><meta><start>%d</start><step>%d</step><end>%d</end><rows>0</rows>`+
		`<columns>0</columns><legend/></meta><data/></xport>`, start, rrdStep, end)
	return x.Respond([]byte(body), httpd.Header{Name: "content-type", Value: "text/xml"})
}

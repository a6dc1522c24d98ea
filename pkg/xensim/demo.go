package xensim

import (
	"fmt"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// demoPool fills an empty pool for demonstrations.
func demoPool(p *xapi.Pool, hosts int) {
	for i := range hosts {
		p.Create("host", db.Fields{"name_label": fmt.Sprintf("xs%d", i+1)})
	}
}

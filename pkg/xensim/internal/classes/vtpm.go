package classes

import (
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Virtual TPMs: one a VM, made and removed while it is halted.

func (w *World) registerVTPM() {
	w.Handle("VTPM.create", func(c *xapi.Call) (any, error) {
		vm, vtpm := c.Str("vM"), ""
		err := w.operate(c, vm, "create_vtpm", func() error {
			if w.DB().Get("pool", w.PoolRef()).Map("restrictions")["restrict_vtpm"] == "true" {
				return xapi.Fail("FEATURE_RESTRICTED")
			}
			vtpm = w.Create("VTPM", db.Fields{
				"VM": vm, "backend": db.NullRef, "persistence_backend": "xapi", "is_unique": c.Bool("is_unique"),
				"is_protected": false,
			})
			return nil
		})
		if err != nil {
			return nil, err
		}
		return vtpm, nil
	})
	w.handle("VTPM.destroy", func(c *xapi.Call) error {
		vm := w.text("VTPM", c.Self(), "VM")
		if err := w.checkHalted(vm); err != nil {
			return err
		}
		w.DB().Delete("VTPM", c.Self())
		w.Refresh("VM", vm)
		return nil
	})
}

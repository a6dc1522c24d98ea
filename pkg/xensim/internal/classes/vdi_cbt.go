package classes

import (
	"encoding/base64"
	"fmt"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Changed block tracking, on which incremental backups stand.

// cbtBlock is what a bit of the answer of VDI.list_changed_blocks stands for.
const cbtBlock = int64(64) << 10

func (w *World) vdiSetCBT(c *xapi.Call, operation string, enabled bool) error {
	vdi := c.Self()
	return w.onStorage(c, w.text("VDI", vdi, "SR"), "vdi_"+operation, vdi, operation, func() error {
		w.Set("VDI", vdi, db.Fields{"cbt_enabled": enabled})
		return nil
	})
}

// vdiDataDestroy makes of a snapshot a mere record of what changed. The block store keeps its layer, since that is the record.
func (w *World) vdiDataDestroy(c *xapi.Call) error {
	vdi := c.Self()
	return w.onStorage(c, w.text("VDI", vdi, "SR"), "vdi_data_destroy", vdi, "data_destroy", func() error {
		if len(w.DB().Get("VDI", vdi).Strs("VBDs")) > 0 {
			return xapi.Fail("VDI_IN_USE", vdi, "data_destroy")
		}
		w.Set("VDI", vdi, db.Fields{"type": "cbt_metadata", "physical_utilisation": int64(0)})
		return nil
	})
}

// vdiListChangedBlocks answers a bitmap in base64: which blocks of vdi_to were written since vdi_from.
func (w *World) vdiListChangedBlocks(c *xapi.Call) (any, error) {
	from, to, bitmap := c.Str("vdi_from"), c.Str("vdi_to"), ""
	if _, err := w.Record("VDI", to); err != nil {
		return nil, err
	}
	err := w.onStorage(c, w.text("VDI", to, "SR"), "vdi_list_changed_blocks", to, "list_changed_blocks", func() error {
		older, newer := w.DB().Get("VDI", from), w.DB().Get("VDI", to)
		if !older.Bool("cbt_enabled") || !newer.Bool("cbt_enabled") || older.Str("SR") != newer.Str("SR") {
			return xapi.Fail("SR_BACKEND_FAILURE_460", "",
				"Failed to calculate changed blocks for given VDIs. [opterr=Source and target VDI are unrelated]", "")
		}
		w.ensureDisk(older)
		w.ensureDisk(newer)
		base, err := w.disks.Disk(older.Str("uuid"))
		if err != nil {
			return fmt.Errorf("compare disks: %w", err)
		}
		disk, err := w.disks.Disk(newer.Str("uuid"))
		if err != nil {
			return fmt.Errorf("compare disks: %w", err)
		}
		bitmap = base64.StdEncoding.EncodeToString(changedBlocks(disk.ChangedSince(base), newer.Int("virtual_size")))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return bitmap, nil
}

// changedBlocks sets the bits, highest first, of the blocks that extents touch.
func changedBlocks(extents []blockstore.Extent, size int64) []byte {
	blocks := (size + cbtBlock - 1) / cbtBlock
	bitmap := make([]byte, (blocks+7)/8)
	for _, e := range extents {
		for block := e.Offset / cbtBlock; block < blocks && block*cbtBlock < e.Offset+e.Length; block++ {
			bitmap[block/8] |= 0x80 >> (block % 8)
		}
	}
	return bitmap
}

package pool

import "github.com/kubexen/kubexen/pkg/xencache"

// MadeForImages are the templates and disks that were made for images that live. They go before the pool is deleted: nobody
// would find them again.
func MadeForImages(marked []Marked, lives func(xencache.Key) bool) []Marked {
	var made []Marked
	for _, m := range marked {
		isImage := m.Marks.Ref.Kind == "XenImage" || m.Marks.Ref.Kind == "XenClusterImage"
		if isImage && !m.Marks.IsCopyOf(m.UUID) && lives(m.Marks.Ref) {
			made = append(made, m)
		}
	}
	return made
}

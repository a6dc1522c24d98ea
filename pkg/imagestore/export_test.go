package imagestore

// StreamParts lets an S3 store send every part as it comes, as it does with those that are too large for memory.
func StreamParts(s *S3, size int64) {
	s.parting = parting{growing: []partStep{{maxParts, size}}, streamAbove: 0}
}

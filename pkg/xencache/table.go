package xencache

import (
	"iter"
	"slices"
)

// table holds the rows of one class. Rows are never changed in place: a reader may keep a pointer after the lock.
type table[R ~string, T any] struct {
	rows map[R]*T
	// uuid reads a row's uuid; nil for classes that nobody looks up by uuid.
	uuid    func(*T) string
	byUUID  map[string]R
	indexes []indexer[R, T]
}

// indexer keeps an index in step with its table.
type indexer[R ~string, T any] interface {
	add(ref R, row *T)
	remove(ref R, row *T)
}

func newTable[R ~string, T any](uuid func(*T) string, indexes ...indexer[R, T]) *table[R, T] {
	return &table[R, T]{rows: map[R]*T{}, uuid: uuid, byUUID: map[string]R{}, indexes: indexes}
}

// put stores row under ref in place of what was there, and returns that.
func (t *table[R, T]) put(ref R, row *T) (old *T) {
	old = t.drop(ref)
	t.rows[ref] = row
	if t.uuid != nil {
		t.byUUID[t.uuid(row)] = ref
	}
	for _, index := range t.indexes {
		index.add(ref, row)
	}
	return old
}

// drop removes ref and returns what was there.
func (t *table[R, T]) drop(ref R) (old *T) {
	old, found := t.rows[ref]
	if !found {
		return nil
	}
	delete(t.rows, ref)
	if t.uuid != nil && t.byUUID[t.uuid(old)] == ref {
		delete(t.byUUID, t.uuid(old))
	}
	for _, index := range t.indexes {
		index.remove(ref, old)
	}
	return old
}

// findUUID returns the row with the uuid.
func (t *table[R, T]) findUUID(uuid string) (ref R, row *T) {
	ref, found := t.byUUID[uuid]
	if !found {
		return "", nil
	}
	return ref, t.rows[ref]
}

// all ranges over the rows in no order.
func (t *table[R, T]) all() iter.Seq2[R, *T] {
	return func(yield func(R, *T) bool) {
		for ref, row := range t.rows {
			if !yield(ref, row) {
				return
			}
		}
	}
}

// index finds the rows that share a key. A row has at most one key.
type index[K comparable, R ~string, T any] struct {
	key  func(*T) (K, bool)
	refs map[K][]R
}

func newIndex[K comparable, R ~string, T any](key func(*T) (K, bool)) *index[K, R, T] {
	return &index[K, R, T]{key: key, refs: map[K][]R{}}
}

func (i *index[K, R, T]) add(ref R, row *T) {
	if key, ok := i.key(row); ok {
		i.refs[key] = append(i.refs[key], ref)
	}
}

func (i *index[K, R, T]) remove(ref R, row *T) {
	key, ok := i.key(row)
	if !ok {
		return
	}
	refs := i.refs[key]
	if at := slices.Index(refs, ref); at >= 0 {
		refs = slices.Delete(refs, at, at+1)
	}
	if len(refs) == 0 {
		delete(i.refs, key)
		return
	}
	i.refs[key] = refs
}

// find returns the references of the rows with the key, in a slice of the caller's own, in a stable order.
func (i *index[K, R, T]) find(key K) []R {
	refs := slices.Clone(i.refs[key])
	slices.Sort(refs)
	return refs
}

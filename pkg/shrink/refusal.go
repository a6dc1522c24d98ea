package shrink

import "fmt"

// Reason is why a disk is not made smaller.
type Reason string

// The reasons.
const (
	// UnknownTable is a disk without a partition table or file system that is known here.
	UnknownTable Reason = "UnknownTable"
	// ContradictoryTable is a partition table that says two things, or what cannot be.
	ContradictoryTable Reason = "ContradictoryTable"
	// HybridTable is a GPT with partitions in its MBR too.
	HybridTable Reason = "HybridTable"
	// OtherContent is a last partition with something else than ext2, ext3 or ext4 on it.
	OtherContent Reason = "OtherContent"
	// Damaged is a file system with faults that are not mended without someone to ask.
	Damaged Reason = "Damaged"
	// TooMuchData is more than goes into the new size.
	TooMuchData Reason = "TooMuchData"
)

// Refusal says why a disk is not made smaller. It is final: the same disk will be refused again.
type Refusal struct {
	Reason Reason
	// Where names the partition ("partition 2", "the whole disk"), "" if it is about the table.
	Where string
	// Found is what was found there.
	Found string
	// Needed is the least size of the whole disk in bytes, if Reason is TooMuchData and it is known.
	Needed int64
}

func (r *Refusal) Error() string {
	text := r.Found
	if r.Where != "" {
		text = r.Where + ": " + text
	}
	return text + "; " + r.advice()
}

// advice is what the owner of the disk can do.
func (r *Refusal) advice() string {
	switch {
	case r.Reason == TooMuchData && r.Needed > 0:
		return fmt.Sprintf("name a size of at least %d MiB, or remove data first", (r.Needed+mebibyte-1)/mebibyte)
	case r.Reason == TooMuchData:
		return "name a larger size, or remove data first"
	case r.Reason == Damaged:
		return "check and mend the file system in rescue mode (e2fsck -f), then ask again"
	case r.Reason == OtherContent:
		return "make the last file system and its partition smaller in rescue mode, or move the partition, so that all ends inside the new size; " +
			"then ask again and the disk is copied as it is"
	default:
		return "mend the partition table in rescue mode (sgdisk or sfdisk), then ask again"
	}
}

func refuse(reason Reason, where, format string, args ...any) error {
	return &Refusal{Reason: reason, Where: where, Found: fmt.Sprintf(format, args...)}
}

// SpaceError says that the scratch directory has too little room. It may have more later.
type SpaceError struct {
	Dir string
	// Needed and Free are bytes; Free is what the limit leaves, if that is less than the file system does.
	Needed, Free int64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("the scratch directory %s of the operator has %d MiB to spare and up to %d MiB are needed; give it more room (--scratch-dir, --scratch-limit)",
		e.Dir, e.Free/mebibyte, (e.Needed+mebibyte-1)/mebibyte)
}

// ToolError says that a program of e2fsprogs is missing, did not run to its end, or left something else behind than it was asked
// for. The disk may be at fault, or the machine.
type ToolError struct {
	Program string
	Err     error
}

func (e *ToolError) Error() string {
	return fmt.Sprintf("%s (of e2fsprogs, where the operator runs): %v", e.Program, e.Err)
}

// Unwrap returns the cause.
func (e *ToolError) Unwrap() error { return e.Err }

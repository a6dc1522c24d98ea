package transfer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kubexen/kubexen/pkg/xencache"
)

// efiVariables is the key of a VM's NVRAM under which its UEFI variables are: where it boots from, and the keys of secure boot.
const efiVariables = "EFI-variables"

// What a host takes as UEFI variables, from github.com/xapi-project/varstored (include/xapidb.h, include/handler.h): a header
// with a version, since version 2 what the firmware keeps beside the variables, and each variable's name and content with their
// lengths, and what is known of it. Numbers are little-endian, lengths are in bytes.
const (
	variablesMagic   = "VARS"
	variablesNewest  = 2
	variablesHeader  = 4 + 4 + 8 + 8
	variablesBeside  = 8 + 0x104
	variableFixed    = 8 + 8 + 16 + 4 + 16 + 32
	maxVariables     = 128 << 10
	maxVariable      = 56 << 10
	maxVariableName  = 4 << 10
	mostVariables    = maxVariables / 128
	maxVariablesText = 2 * maxVariables // as base64, with line breaks
)

// readNVRAM enters a UEFI guest's variables into the manifest: without them it may not find its boot loader again. The cache
// does without them, so that a call is needed. Those that a restore would refuse are left out.
func (u *upload) readNVRAM(ctx context.Context) error {
	if u.manifest.VM.BootParams["firmware"] != "uefi" {
		return nil
	}
	ref, err := find(u.handle, u.manifest.SnapshotUUID, xencache.View.VMByUUID)
	if err != nil {
		return err
	}
	nvram, err := u.handle.Client.VM.GetNVRAM(ctx, ref)
	if err != nil {
		return poolFailure(fmt.Errorf("read the NVRAM of snapshot %s: %w", u.manifest.SnapshotUUID, err))
	}
	if variables := nvram[efiVariables]; unfitVariables(variables) == "" { // a backup that can be restored is worth more than its boot entries
		u.manifest.VM.EFIVariables = variables
	}
	return nil
}

// NVRAM is what a VM is made with that is to boot as the captured one did, nil for nothing.
func (vm *ManifestVM) NVRAM() map[string]string {
	if vm.EFIVariables == "" {
		return nil
	}
	return map[string]string{efiVariables: vm.EFIVariables}
}

// unfitVariables says what is wrong with a text that is to be a VM's UEFI variables, "" for nothing. A program on the host reads
// them, and they come from whoever may write to a store.
func unfitVariables(text string) string {
	if len(text) > maxVariablesText {
		return fmt.Sprintf("they have %d characters, and at most %d are possible", len(text), maxVariablesText)
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	switch {
	case err != nil:
		return "they are not base64"
	case len(blob) > maxVariables:
		return fmt.Sprintf("they have %d bytes, and at most %d are possible", len(blob), maxVariables)
	case len(blob) < variablesHeader || !bytes.HasPrefix(blob, []byte(variablesMagic)):
		return "they do not begin as a host writes them"
	}
	le := binary.LittleEndian
	version, count := le.Uint32(blob[4:]), le.Uint64(blob[8:])
	rest := blob[variablesHeader:]
	switch {
	case version < 1 || version > variablesNewest:
		return fmt.Sprintf("they are of version %d, and 1 to %d are known", version, variablesNewest)
	case count > mostVariables:
		return fmt.Sprintf("they are %d, and at most %d are possible", count, mostVariables)
	case version >= 2 && len(rest) < variablesBeside:
		return "they end too early"
	case version >= 2:
		rest = rest[variablesBeside:]
	}
	for range count {
		if rest, err = afterVariable(rest); err != nil {
			return err.Error()
		}
	}
	if len(rest) > 0 {
		return fmt.Sprintf("%d bytes follow the last of them", len(rest))
	}
	return ""
}

// afterVariable steps over one.
func afterVariable(blob []byte) ([]byte, error) {
	if len(blob) < variableFixed {
		return nil, errors.New("they end too early")
	}
	left := uint64(len(blob) - variableFixed)
	for _, most := range []uint64{maxVariableName, maxVariable} {
		length := binary.LittleEndian.Uint64(blob)
		if length == 0 || length > min(left, most) {
			return nil, fmt.Errorf("a name or a content has %d bytes, where 1 to %d are possible", length, min(left, most))
		}
		left -= length
		blob = blob[8+length:]
	}
	return blob[variableFixed-16:], nil
}

package disk

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// tarHeader is the oldest form of a header, which every reader of a tar knows.
func tarHeader(name string, size int64) []byte {
	header := make([]byte, tarBlock)
	copy(header, name)
	copy(header[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00", 0o644, 0, 0, size, 0))
	copy(header[148:], "        ")
	total := 0
	for _, c := range header {
		total += int(c)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", total))
	return header
}

// WriteNovaTarball writes a compressed tar of VHDs as Nova's XenAPI driver made them: the leaf first, 0.vhd, then its parent. Each is
// read to its end, whose error (that of a *Checked, say) is the tarball's.
func WriteNovaTarball(w io.Writer, modified time.Time, vhds ...Image) error {
	compressor, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressor)
	for i, vhd := range vhds {
		header := &tar.Header{Name: fmt.Sprintf("%d.vhd", i), Mode: 0o644, Size: vhd.Len(), ModTime: modified, Format: tar.FormatGNU}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		n, err := io.Copy(archive, vhd)
		if err != nil {
			return fmt.Errorf("write %s: %w", header.Name, err)
		}
		if n != header.Size {
			return malformed(VHD, n, "end of "+header.Name, fmt.Sprintf("at %d", header.Size), n)
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return compressor.Close()
}

// TarballReader reads the VHDs of a Nova tarball that is in no compression (any more), leaf first. A chain is applied base first: read
// the tarball once for each layer, from the last to the first.
type TarballReader struct {
	tar     *tar.Reader
	counted *counter
	seen    int
}

// maxTarballVHDs is how long Nova let a chain become.
const maxTarballVHDs = 32

// NewTarballReader reads a tarball.
func NewTarballReader(r io.Reader) *TarballReader {
	counted := &counter{Reader: r}
	return &TarballReader{tar: tar.NewReader(counted), counted: counted}
}

// Next goes to the next VHD: its place in the chain, 0 for the leaf, and its length. io.EOF after the last.
func (t *TarballReader) Next() (layer int, length int64, err error) {
	for {
		header, err := t.tar.Next()
		if errors.Is(err, io.EOF) && t.seen > 0 && t.counted.ended() {
			return 0, 0, io.EOF
		}
		if err != nil {
			return 0, 0, t.fault(err)
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		want := fmt.Sprintf("%d.vhd", t.seen)
		name := strings.TrimPrefix(header.Name, "./")
		if header.Typeflag != tar.TypeReg || t.seen >= maxTarballVHDs || !t.isLayer(name, want) {
			return 0, 0, malformed(NovaTarball, t.counted.n-tarBlock, "member", want, fmt.Sprintf("%q", header.Name))
		}
		t.seen++
		return t.seen - 1, header.Size, nil
	}
}

// isLayer takes Nova's names in their order; a single VHD may have any name.
func (t *TarballReader) isLayer(name, want string) bool {
	return name == want || t.seen == 0 && isTarVHDName(name)
}

// Read reads the VHD that Next went to.
func (t *TarballReader) Read(p []byte) (int, error) {
	n, err := t.tar.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = t.fault(err)
	}
	return n, err
}

func (t *TarballReader) fault(err error) error { return t.counted.fault(NovaTarball, "member", err) }

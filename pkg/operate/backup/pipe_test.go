package backup

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestStream: an archive that went to a stream is one like any other.
func TestStream(t *testing.T) {
	t.Parallel()
	to, with := pair(t)
	path := filepath.Join(t.TempDir(), "archive")
	file, err := NewFile(path)
	require.NoError(t, err)
	w, err := Stream(file, to)
	require.NoError(t, err)
	_, err = w.Part("one", 0o600, func(out io.Writer) error { _, err := out.Write([]byte("first")); return err })
	require.NoError(t, err)
	require.NoError(t, w.Commit(&Manifest{Created: time.Unix(0, 0).UTC()}, testSigner(t)))
	require.NoFileExists(t, path, "it has no name yet")
	require.NoError(t, file.Complete())
	file.Discard()
	require.NoError(t, openAll(t, path, with))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	_, err = NewFile(path)
	require.ErrorContains(t, err, "exists already")
	file, err = NewFile(path + ".another")
	require.NoError(t, err)
	file.Discard()
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, left, 1, "nothing of a file that was given up")
}

// sent is what Send writes of an archive with these parts, in this order.
func sent(t *testing.T, names ...string) []byte {
	t.Helper()
	to, with := pair(t)
	r, err := Open(write(t, to, map[string][]byte{"a": []byte("the first"), "b": []byte("the second"), "c": nil}), with)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	var pipe bytes.Buffer
	require.NoError(t, r.Send(&pipe, names))
	require.ErrorIs(t, r.Send(io.Discard, []string{"d"}), ErrDamaged)
	return pipe.Bytes()
}

func TestSendAndReceive(t *testing.T) {
	t.Parallel()
	in, err := Receive(bytes.NewReader(sent(t, "b", "a", "c")))
	require.NoError(t, err)
	assert.Equal(t, "v1", in.Manifest.Version)
	for _, want := range []struct{ name, text string }{{"b", "the second"}, {"a", "the first"}, {"c", ""}} {
		assert.Equal(t, want.name, in.Next())
		assert.Equal(t, os.FileMode(0o640), in.Mode(want.name))
		require.ErrorContains(t, in.Part("another", nil), "the next part is")
		require.NoError(t, in.Part(want.name, func(part io.Reader) error {
			text, err := io.ReadAll(part)
			assert.Equal(t, want.text, string(text))
			return err
		}))
	}
	assert.Empty(t, in.Next())
	require.Error(t, in.Part("a", nil), "the end")
}

// A pipe that ends early is seen, wherever that is.
func TestReceiveSeesTheEnd(t *testing.T) {
	t.Parallel()
	whole := sent(t, "a", "b")
	read := func(text []byte) error {
		in, err := Receive(bytes.NewReader(text))
		if err != nil {
			return err
		}
		for _, name := range []string{"a", "b"} {
			if err := in.Part(name, func(part io.Reader) error { _, err := io.Copy(io.Discard, part); return err }); err != nil {
				return err
			}
		}
		return nil
	}
	require.NoError(t, read(whole), "the control")
	const trailer = 1024 // of a tar, and says nothing
	for cut := 0; cut < len(whole)-trailer-512; cut += 100 {
		require.Error(t, read(whole[:cut]), "cut at %d of %d", cut, len(whole))
	}
}

package volume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var names = []string{"data", "empty", "state"}

func volumes(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	return dir
}

// full are volumes with what servers have in theirs.
func full(t *testing.T) string {
	t.Helper()
	dir := volumes(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data/pgdata/pg_wal"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data/pgdata/table"), bytes.Repeat([]byte("row "), 1<<16), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data/pgdata/none"), nil, 0o640))
	require.NoError(t, os.Symlink("pgdata", filepath.Join(dir, "data/link")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state/key"), []byte("secret"), 0o400))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "data/pgdata"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
	require.NoError(t, os.Chmod(filepath.Join(dir, "data/pgdata/pg_wal"), 0o500))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "data/pgdata/pg_wal"), 0o700) })
	return dir
}

type entry struct {
	Mode    fs.FileMode
	Time    time.Time
	Content string
}

func tree(t *testing.T, dir string) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		e := entry{Mode: info.Mode()}
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			e.Content, e.Time = string(data), info.ModTime()
		case info.Mode()&fs.ModeSymlink != 0:
			e.Content, err = os.Readlink(path)
			require.NoError(t, err)
		case path != dir:
			e.Time = info.ModTime()
		}
		inside, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		all[inside] = e
		return nil
	}))
	return all
}

func saved(t *testing.T, dir string) []byte {
	t.Helper()
	stream := new(bytes.Buffer)
	_, err := Save(t.Context(), dir, names, stream)
	require.NoError(t, err)
	return stream.Bytes()
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	from, to := full(t), volumes(t)
	loaded, err := Load(t.Context(), to, names, bytes.NewReader(saved(t, from)))
	require.NoError(t, err)
	want := []Volume{{"data", 2, 4 << 16}, {"empty", 0, 0}, {"state", 1, 6}}
	assert.Equal(t, want, loaded)
	measured, err := Measure(t.Context(), from, names)
	require.NoError(t, err)
	assert.Equal(t, want, measured)
	before, after := tree(t, from), tree(t, to)
	for _, name := range names { // the mark was there, and is gone
		after[name] = entry{Mode: after[name].Mode, Time: before[name].Time}
	}
	assert.Equal(t, before, after)
	assert.False(t, Incomplete(to))
	require.NoError(t, os.Chmod(filepath.Join(to, "data/pgdata/pg_wal"), 0o700))
}

// What is not the whole stream fills nothing, wherever it ends.
func TestCut(t *testing.T) {
	t.Parallel()
	stream := saved(t, full(t))
	to := volumes(t)
	clean := tree(t, to)
	for length := range stream {
		if length%7 != 0 && length < len(stream)-64 {
			continue
		}
		_, err := Load(t.Context(), to, names, bytes.NewReader(stream[:length]))
		require.Error(t, err, "%d of %d bytes", length, len(stream))
	}
	after := tree(t, to)
	assert.Len(t, after, len(clean), "empty again")
	_, err := Load(t.Context(), to, names, bytes.NewReader(stream))
	require.NoError(t, err, "the control")
	require.NoError(t, os.Chmod(filepath.Join(to, "data/pgdata/pg_wal"), 0o700))
}

func TestOccupied(t *testing.T) {
	t.Parallel()
	stream := saved(t, full(t))
	to := volumes(t)
	require.NoError(t, os.WriteFile(filepath.Join(to, "state/other"), []byte("theirs"), 0o600))
	before := tree(t, to)
	_, err := Load(t.Context(), to, names, bytes.NewReader(stream))
	require.ErrorIs(t, err, ErrOccupied)
	require.ErrorContains(t, err, "state")
	assert.Equal(t, before, tree(t, to), "nothing was touched")
}

// While it loads, and after it was killed, the volumes say so.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	stream := saved(t, full(t))
	to := volumes(t)
	seen := false
	_, err := Load(t.Context(), to, names, readerFunc(func(p []byte) (int, error) {
		seen = Incomplete(to)
		n := copy(p, stream[:len(stream)/2])
		stream = stream[n:]
		if n == 0 {
			return 0, io.ErrClosedPipe
		}
		return n, nil
	}))
	require.ErrorIs(t, err, io.ErrClosedPipe)
	assert.True(t, seen)
	assert.False(t, Incomplete(to), "emptied")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestRefusals(t *testing.T) {
	t.Parallel()
	from := full(t)
	stream := saved(t, from)
	to := volumes(t)
	_, err := Load(t.Context(), to, names[:2], bytes.NewReader(stream))
	require.ErrorContains(t, err, "no such volume")

	require.NoError(t, syscall.Mkfifo(filepath.Join(from, "state/pipe"), 0o600))
	_, err = Save(t.Context(), from, names, new(bytes.Buffer))
	require.ErrorContains(t, err, "is no file, folder or link")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Save(ctx, from, names, new(bytes.Buffer))
	require.ErrorIs(t, err, context.Canceled)
}

// What comes out of a pipe is what Save wrote, or an error.
func TestCheck(t *testing.T) {
	t.Parallel()
	stream := saved(t, full(t))
	check := func(parts ...[]byte) error {
		got := new(bytes.Buffer)
		err := Check(got, func(w io.Writer) error {
			for _, part := range parts {
				if _, err := w.Write(part); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			assert.Equal(t, stream, got.Bytes())
		}
		return err
	}
	require.NoError(t, check(stream[:9], stream[9:]), "the control")
	for name, parts := range map[string][][]byte{
		"nothing": nil, "cut": {stream[:len(stream)/2]}, "cut at the end": {stream[:len(stream)-1]},
		"a line before it": {[]byte("pulling the image\n"), stream}, "a line behind it": {stream, []byte("done\n")},
	} {
		require.ErrorIs(t, check(parts...), ErrIncomplete, name)
	}
	require.ErrorIs(t, Check(io.Discard, func(w io.Writer) error {
		_, err := w.Write(stream)
		return errors.Join(err, io.ErrClosedPipe)
	}), io.ErrClosedPipe, "save fails at its end")
}

// A volume that is in use can be measured; one that could not be saved cannot.
func TestMeasure(t *testing.T) {
	t.Parallel()
	dir := full(t)
	growing := filepath.Join(dir, "data/growing")
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
			}
			file, err := os.OpenFile(growing, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				continue
			}
			_, _ = file.Write(make([]byte, 1<<16))
			_ = file.Close()
			_ = os.Rename(growing, growing+"-2")
			_ = os.Remove(growing + "-2")
		}
	}()
	for range 200 {
		_, err := Measure(t.Context(), dir, names)
		require.NoError(t, err)
	}
	close(done)
	<-stopped
	_, err := Measure(t.Context(), dir, append(names, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "state/pipe"), 0o600))
	_, err = Measure(t.Context(), dir, names)
	require.ErrorContains(t, err, "is no file, folder or link")
}

// Emptying may be killed, too: the mark is there as long as anything is.
func TestEmptyTakesTheMarkLast(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a folder that cannot be removed")
	}
	dir := volumes(t)
	kept := filepath.Join(dir, "state/kept")
	require.NoError(t, os.MkdirAll(kept, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state", mark), nil, 0o600))
	require.NoError(t, syscall.Mount("none", kept, "tmpfs", 0, ""))
	require.Error(t, empty(dir, names))
	assert.True(t, Incomplete(dir))
	require.NoError(t, syscall.Unmount(kept, 0))
	require.NoError(t, empty(dir, names), "the control")
	assert.False(t, Incomplete(dir))
}

package registrar

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestImport(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	list := "\ufeffserial_number; is not it,x\n" +
		"# a comment\n" +
		"E4:FD:45:F6:54:BE, SN-1\n" +
		"\n" +
		"no mac,SN-2\n" +
		"e4fd45f654bf\n" +
		"e4fd45f654b0,\"SN\n" +
		"e4fd45f654b1,SN-3\n"
	var got []string
	report := func(l ImportLine) {
		got = append(got, fmt.Sprintf("%d issued=%t refused=%t", l.Number, l.Result.Issued, errors.Is(l.Result.Err, ErrRefused)))
	}
	require.NoError(t, b.Preview(t.Context(), strings.NewReader(list), report))
	assert.Empty(t, b.registered(), "a preview changes nothing")
	foreseen := got

	got = nil
	require.NoError(t, b.Import(t.Context(), operator, strings.NewReader(list), report))
	assert.Equal(t, []string{
		"1 issued=false refused=true", "3 issued=true refused=false", "5 issued=false refused=true",
		"6 issued=false refused=true", "7 issued=false refused=true",
	}, got, "a quote that does not end takes the rest of the list with it")
	assert.Equal(t, got, foreseen)
	assert.Len(t, b.whole(), 1)

	got = nil
	named := "Name,Serial Number,MAC-Address\nkitchen,SN-1,e4-fd-45-f6-54-be\nhall,SN-9,e4fd45f654bf\nhall,SN-9,e4fd45f654bf\n"
	require.NoError(t, b.Preview(t.Context(), strings.NewReader(named), report))
	foreseen = got

	got = nil
	require.NoError(t, b.Import(t.Context(), operator, strings.NewReader(named), report))
	assert.Equal(t, got, foreseen)
	assert.Equal(t, []string{"2 issued=false refused=false", "3 issued=true refused=false", "4 issued=false refused=true"}, got)
	assert.Equal(t, "SN-9", b.whole()[1].SerialNumber)
}

// TestPreview foresees what Import does then, line by line, and does none of it.
func TestPreview(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.Register(t.Context(), operator, Request{MAC: "e4fd45f654be", SerialNumber: "SN-1"}, Request{MAC: "e4fd45f654bf", SerialNumber: "SN-2"}, Request{MAC: "e4fd45f654c0", SerialNumber: "SN-3"})
	require.NoError(t, err)
	_, err = b.Revoke(t.Context(), operator, Unspecified, "e4fd45f654c0")
	require.NoError(t, err)
	before, events := b.whole(), b.events(Issue)
	const list = "e4fd45f654be,SN-1\n" + // there
		"e4fd45f654bf,SN-9\n" + // a conflict
		"e4fd45f654c0,SN-3\n" + // revoked
		"e4fd45f654c1,SN-4\n" +
		"e4fd45f654c1,SN-4\n" + // twice
		"000000000000,SN-5\n" +
		"e4fd45f654c2,\n"
	type outcome struct {
		number int
		issued bool
		err    string
	}
	record := func(into *[]outcome) func(ImportLine) {
		return func(l ImportLine) {
			o := outcome{number: l.Number, issued: l.Result.Issued}
			if l.Result.Err != nil {
				o.err = l.Result.Err.Error()
			}
			*into = append(*into, o)
		}
	}
	var foreseen, done []outcome
	require.NoError(t, b.Preview(t.Context(), strings.NewReader(list), record(&foreseen)))
	assert.Equal(t, before, b.whole())
	assert.Equal(t, events, b.events(Issue))
	require.NoError(t, b.Import(t.Context(), operator, strings.NewReader(list), record(&done)))
	assert.Equal(t, done, foreseen)
	assert.NotEqual(t, before, b.whole(), "the control: Import changes something")
	require.Len(t, done, 7)
	assert.True(t, done[3].issued)
}

// What one batch would register the next finds registered.
func TestPreviewAcrossBatches(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var list strings.Builder
	for i := range importBatch {
		fmt.Fprintf(&list, "%s,SN-%d\n", macOf(i), i)
	}
	fmt.Fprintf(&list, "%s,SN-0\n%s,SN-0\n", macOf(0), macOf(1))
	var issued, there, conflicts int
	require.NoError(t, b.Preview(t.Context(), strings.NewReader(list.String()), func(l ImportLine) {
		switch {
		case errors.Is(l.Result.Err, ErrConflict):
			conflicts++
		case l.Result.Issued:
			issued++
		default:
			there++
		}
	}))
	assert.Equal(t, []int{importBatch, 1, 1}, []int{issued, there, conflicts})
	assert.Empty(t, b.registered())
}

// bulk is how many devices are registered from a list in the everyday test;
// F2MESH_BULK_DEVICES=5000 is the full size.
func bulk(t *testing.T) int {
	t.Helper()
	text := os.Getenv("F2MESH_BULK_DEVICES")
	if text == "" {
		return 1500
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// A list is registered, killed half-way, and registered again: nobody twice, nobody
// by half.
func TestImportIsKilledAndResumed(t *testing.T) { //nolint:paralleltest // it measures
	b := newBench(t).start()
	n := bulk(t)
	list := filepath.Join(b.dir, "devices.csv")
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "%s,SN-%d\n", macOf(i).Dashed(), i)
	}
	require.NoError(t, os.WriteFile(list, []byte(text.String()), 0o600))

	self, err := os.Executable()
	require.NoError(t, err)
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), crashVariable+"=nowhere", operationVariable+"="+list, dirVariable+"="+b.dir, dsnVariable+"="+b.dsn)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		return len(b.registered()) >= n/2
	}, 2*time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	require.Error(t, cmd.Wait(), "it was killed")
	half := len(b.registered())
	require.Less(t, half, n, "it was killed half-way")

	file, err := os.Open(list)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	issued, there := 0, 0
	require.NoError(t, b.Import(t.Context(), operator, file, func(l ImportLine) {
		require.NoError(t, l.Result.Err)
		if l.Result.Issued {
			issued++
		} else {
			there++
		}
	}))
	took := time.Since(began)
	t.Logf("%d devices in %s, killed with %d registered", n, took.Round(time.Millisecond), half)
	assert.Equal(t, half, there)
	assert.Equal(t, n-half, issued)
	assert.Len(t, b.whole(), n)
	assert.Equal(t, n, b.events(Issue))
	var certificates int
	require.NoError(t, b.cfg.Pool.QueryRow(t.Context(), "SELECT count(*) FROM certificate").Scan(&certificates))
	assert.Equal(t, n, certificates)
	assert.True(t, b.publishes(macOf(0)) && b.publishes(macOf(n-1)))
	if n >= 5000 {
		assert.Less(t, took, time.Minute)
	}
}

func (b *bench) registered() []topic.MAC {
	b.t.Helper()
	all, err := macs(b.t.Context(), b.cfg.Pool, "SELECT mac FROM device")
	require.NoError(b.t, err)
	return all
}

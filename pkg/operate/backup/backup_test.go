package backup

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pair is a new recipient and the identity that belongs to it.
func pair(t *testing.T) (write, read Key) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	write, err = Recipients([]string{identity.Recipient().String()})
	require.NoError(t, err)
	read, err = Identities(secretFile(t, identity.String()+"\n", 0o600))
	require.NoError(t, err)
	return write, read
}

func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	require.NoError(t, os.Chmod(path, mode))
	return path
}

const canary = "a password that must not be in clear"

// parts are of more than one chunk of age's.
func parts(t *testing.T) map[string][]byte {
	t.Helper()
	random := make([]byte, 200<<10)
	_, err := rand.Read(random)
	require.NoError(t, err)
	return map[string][]byte{"streams/RAW": random, "files/secrets/one": []byte(canary)}
}

func testSigner(t *testing.T) Signer {
	t.Helper()
	signer, err := NewSigner("a secret of tests")
	require.NoError(t, err)
	return signer
}

func write(t *testing.T, key Key, contents map[string][]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	w, err := Create(path, key)
	require.NoError(t, err)
	for name, data := range contents {
		_, err := w.Part(name, 0o640, func(out io.Writer) error { _, err := out.Write(data); return err })
		require.NoError(t, err)
	}
	require.NoError(t, w.Commit(&Manifest{Version: "v1", Created: time.Unix(0, 0).UTC()}, testSigner(t)))
	return path
}

// openAll opens and verifies, as a restore does.
func openAll(t *testing.T, path string, key Key) error {
	t.Helper()
	r, err := Open(path, key)
	if err != nil {
		return err
	}
	defer func() { assert.NoError(t, r.Close()) }()
	return r.Verify(t.Context(), nil)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	to, with := pair(t)
	contents := parts(t)
	path := write(t, to, contents)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing else is left")

	r, err := Open(path, with)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	var last, all int64
	require.NoError(t, r.Verify(t.Context(), func(done, total int64) { last, all = done, total }))
	assert.Equal(t, all, last)
	assert.Equal(t, "v1", r.Manifest.Version)
	assert.Len(t, r.Manifest.Parts, len(contents))
	for name, want := range contents {
		require.NoError(t, r.Part(name, func(in io.Reader) error {
			got, err := io.ReadAll(in)
			assert.Equal(t, want, got)
			return err
		}))
		assert.Equal(t, os.FileMode(0o640), r.Mode(name))
	}
	require.ErrorIs(t, r.Part("another", nil), ErrDamaged)
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	key, err := Passphrase(secretFile(t, "correct horse battery\n", 0o600))
	require.NoError(t, err)
	path := write(t, key, parts(t))
	require.NoError(t, openAll(t, path, key))
	other, err := Passphrase(secretFile(t, "correct horse batterz\n", 0o600))
	require.NoError(t, err)
	require.ErrorIs(t, openAll(t, path, other), ErrKey)
}

func TestWrongKey(t *testing.T) {
	t.Parallel()
	to, with := pair(t)
	_, other := pair(t)
	path := write(t, to, parts(t))
	require.NoError(t, openAll(t, path, with), "the control")
	require.ErrorIs(t, openAll(t, path, other), ErrKey)
}

func TestNothingInClear(t *testing.T) {
	t.Parallel()
	to, _ := pair(t)
	data, err := os.ReadFile(write(t, to, parts(t)))
	require.NoError(t, err)
	for _, text := range []string{canary, "files/secrets", manifestName} {
		assert.False(t, bytes.Contains(data, []byte(text)), text)
	}
	assert.True(t, bytes.Contains(data, []byte("age-encryption.org")), "the control: what is in clear is found")
}

// Wherever a byte is flipped, or the file cut or lengthened, it is noticed.
func TestDamage(t *testing.T) {
	t.Parallel()
	to, with := pair(t)
	path := write(t, to, parts(t))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, openAll(t, path, with), "the control")
	try := func(what string, data []byte) {
		spoilt := filepath.Join(t.TempDir(), "archive")
		require.NoError(t, os.WriteFile(spoilt, data, 0o600))
		err := openAll(t, spoilt, with)
		require.Error(t, err, what)
		if len(data) > 0 && data[0] == good[0] {
			assert.True(t, isTold(err), "%s: %v", what, err)
		}
	}
	for at := 0; at < len(good); at += 1 + len(good)/300 {
		data := bytes.Clone(good)
		data[at] ^= 1
		try(fmt.Sprintf("byte %d", at), data)
	}
	for _, length := range []int{0, 10, 300, len(good) / 2, 65536, len(good) - 65536, len(good) - 1} {
		try(fmt.Sprintf("%d bytes", length), good[:length])
	}
	try("a byte more", append(bytes.Clone(good), 0))
}

func isTold(err error) bool {
	for _, known := range []error{ErrKey, ErrDamaged} {
		if assert.ErrorIs(new(testing.T), err, known) {
			return true
		}
	}
	return false
}

// An archive whose encryption is sound may still not be what the manifest says.
func TestManifestIsCompared(t *testing.T) {
	t.Parallel()
	to, with := pair(t)
	for name, spoil := range map[string]func(*ArchiveWriter){
		"another sum":     func(w *ArchiveWriter) { w.parts[0].SHA256 = w.parts[1].SHA256 },
		"another size":    func(w *ArchiveWriter) { w.parts[0].Size++ },
		"a part too few":  func(w *ArchiveWriter) { w.parts[0].Name = "not there" },
		"a part too many": func(w *ArchiveWriter) { w.parts = w.parts[:1] },
		"none":            nil,
	} {
		path := filepath.Join(t.TempDir(), "archive")
		w, err := Create(path, to)
		require.NoError(t, err)
		for _, part := range []string{"one", "two"} {
			_, err := w.Part(part, 0o600, func(out io.Writer) error { _, err := io.WriteString(out, part); return err })
			require.NoError(t, err)
		}
		if spoil != nil {
			spoil(w)
		}
		require.NoError(t, w.Commit(&Manifest{}, testSigner(t)))
		if spoil == nil {
			require.NoError(t, openAll(t, path, with), "the control")
		} else {
			require.ErrorIs(t, openAll(t, path, with), ErrDamaged, name)
		}
	}
}

// Whoever has the public key can write an archive, but cannot sign it as another.
func TestSignature(t *testing.T) {
	t.Parallel()
	to, with := pair(t)
	signer := func(path string) (string, error) {
		r, err := Open(path, with)
		if err != nil {
			return "", err
		}
		defer func() { assert.NoError(t, r.Close()) }()
		return r.Signer, r.Verify(t.Context(), nil)
	}
	ours, err := signer(write(t, to, parts(t)))
	require.NoError(t, err)
	assert.Equal(t, testSigner(t).Public(), ours)
	other, err := NewSigner("another secret")
	require.NoError(t, err)
	assert.NotEqual(t, ours, other.Public())
	assert.Equal(t, "(signer)", fmt.Sprintf("%v", other))

	path := filepath.Join(t.TempDir(), "archive")
	forge := func(manifest string, last func(text []byte) []byte) string {
		w, err := Create(path, to)
		require.NoError(t, err)
		entry, err := w.zip.Create(manifestName)
		require.NoError(t, err)
		_, err = io.WriteString(entry, manifest)
		require.NoError(t, err)
		seal, err := other.sign([]byte(`{"format": 2}`))
		require.NoError(t, err)
		if seal = last(seal); seal != nil {
			entry, err = w.zip.Create(signatureName)
			require.NoError(t, err)
			_, err = entry.Write(seal)
			require.NoError(t, err)
		}
		require.NoError(t, errors.Join(w.zip.Close(), w.age.Close(), w.file.Close()))
		return w.file.Name()
	}
	asItIs := func(text []byte) []byte { return text }
	theirs, err := signer(forge(`{"format": 2}`, asItIs))
	require.NoError(t, err, "the control")
	assert.Equal(t, other.Public(), theirs)
	for name, forged := range map[string]string{
		"another manifest":  forge(`{"format": 2, "version": "v2"}`, asItIs),
		"no signature":      forge(`{"format": 2}`, func([]byte) []byte { return nil }),
		"no signature's":    forge(`{"format": 2}`, func([]byte) []byte { return []byte("{}") }),
		"our key, not ours": forge(`{"format": 2}`, func(text []byte) []byte { return bytes.Replace(text, []byte(other.Public()), []byte(ours), 1) }),
	} {
		_, err = signer(forged)
		require.ErrorIs(t, err, ErrDamaged, name)
	}
	_, err = signer(forge(`{"format": 1}`, asItIs))
	require.ErrorContains(t, err, "it has format 1")
}

func TestIncompleteIsNotThere(t *testing.T) {
	t.Parallel()
	to, _ := pair(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "archive")
	w, err := Create(path, to)
	require.NoError(t, err)
	_, err = w.Part("one", 0o600, func(io.Writer) error { return io.ErrClosedPipe })
	require.ErrorIs(t, err, io.ErrClosedPipe)
	assert.NoFileExists(t, path)
	w.Discard()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)

	require.NoError(t, os.WriteFile(path, []byte("the last backup"), 0o600))
	_, err = Create(path, to)
	require.ErrorContains(t, err, "exists already")
	_, err = Create(filepath.Join(dir, "new"), Key{})
	require.ErrorContains(t, err, "recipient")
}

func TestKeysAreRefused(t *testing.T) {
	t.Parallel()
	_, err := Recipients([]string{"age1nonsense"})
	require.ErrorContains(t, err, "not a public key")
	_, err = Identities(secretFile(t, "AGE-SECRET-KEY-1NONSENSE", 0o600))
	require.ErrorContains(t, err, "no age identity")
	assert.NotContains(t, err.Error(), "NONSENSE")
	_, err = Identities(secretFile(t, "", 0o644))
	require.ErrorContains(t, err, "chmod 600")
	_, err = Passphrase(secretFile(t, "correct horse battery", 0o640))
	require.ErrorContains(t, err, "chmod 600")
	_, err = Passphrase(secretFile(t, "short", 0o600))
	require.ErrorContains(t, err, "shorter")
	key, err := Passphrase(secretFile(t, "correct horse battery", 0o600))
	require.NoError(t, err)
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", key, key, key), "horse")
}

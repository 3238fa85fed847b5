package registrar

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/secret/account"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Folders beside the bundles: of those that wait for the registry, and of those
// that were replaced.
const (
	stagingFolder = ".staged"
	retiredFolder = ".retired"
)

// Bundle is the folder of a device's bundle.
func (r *Registrar) Bundle(mac topic.MAC) string {
	return filepath.Join(r.cfg.Devices, mac.Dashed())
}

// certified reports whether the certificate in a device's bundle is for the key of
// the request.
func (r *Registrar) certified(mac topic.MAC, csr *x509.CertificateRequest) bool {
	text, err := os.ReadFile(filepath.Join(r.Bundle(mac), identity.DeviceCertificateFile))
	if err != nil {
		return false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	key, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(csr.PublicKey)
}

// stage writes a bundle where nobody looks for it, under a name that tells whether
// the registry has it.
func (r *Registrar) stage(b *identity.Bundle) (name string, err error) {
	name = string(b.MAC) + "." + serialOf(b.Certificate)
	return name, b.Write(filepath.Join(r.cfg.Devices, stagingFolder, name))
}

// unstage takes back what this change has staged.
func (c *change) unstage() {
	for _, name := range c.staged {
		_ = os.RemoveAll(filepath.Join(c.cfg.Devices, stagingFolder, name)) // else the next operation does
	}
}

// syncsAtOnce bounds the files that flush syncs together: the file system writes those in
// one go, 500 bundles in 0.5 s instead of 1.8 s (measured).
const syncsAtOnce = 32

// flush returns once the bundles that were staged are on disk.
func (c *change) flush(done []*order) error {
	if len(done) == 0 {
		return nil
	}
	staging := filepath.Join(c.cfg.Devices, stagingFolder)
	var group errgroup.Group
	group.SetLimit(syncsAtOnce)
	for _, o := range done {
		group.Go(func() error { return syncBundle(filepath.Join(staging, o.staged)) })
	}
	if err := errors.Join(group.Wait(), account.SyncPath(staging), account.SyncPath(c.cfg.Devices)); err != nil {
		return fmt.Errorf("writing bundles: %w", err)
	}
	return nil
}

func syncBundle(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := account.SyncPath(filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	return account.SyncPath(folder)
}

// settleBundles puts the staged bundles in place that the registry has, and removes
// the others: those of an operation that died before its commit.
func (r *Registrar) settleBundles(ctx context.Context, q asker) error {
	root, err := os.OpenRoot(r.cfg.Devices)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("placing bundles: %w", err)
	}
	defer func() { _ = root.Close() }() // only read
	entries, err := fs.ReadDir(root.FS(), stagingFolder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("placing bundles: %w", err)
	}
	staged := make([]topic.MAC, len(entries))
	for i, e := range entries {
		mac, _, _ := strings.Cut(e.Name(), ".")
		staged[i] = topic.MAC(mac)
	}
	registered, err := known(ctx, q, staged)
	if err != nil {
		return err
	}
	for i, e := range entries {
		from := filepath.Join(stagingFolder, e.Name())
		device, ok := registered[staged[i]]
		if !ok || e.Name() != string(device.MAC)+"."+device.Certificate {
			err = root.RemoveAll(from)
		} else {
			err = r.place(root, from, device.MAC)
		}
		if err != nil {
			return fmt.Errorf("placing bundles: %w", err)
		}
	}
	return root.RemoveAll(retiredFolder)
}

// place puts a bundle where the device's is. A folder that is not empty cannot be
// renamed over, so that for a moment there is none; who dies then is finished by
// the next operation.
func (r *Registrar) place(root *os.Root, from string, mac topic.MAC) error {
	to := mac.Dashed()
	err := root.Rename(from, to)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := root.MkdirAll(retiredFolder, 0o700); err != nil {
		return err
	}
	if err := root.Rename(to, filepath.Join(retiredFolder, filepath.Base(from))); err != nil {
		return err
	}
	r.reached("bundle away")
	return root.Rename(from, to)
}

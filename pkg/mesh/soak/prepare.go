package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// Prepare checks what the machine can do, and returns the kinds of faults that it cannot.
func (c *Config) Prepare(ctx context.Context) (missing map[string]string, err error) {
	if c.Messages < 1 || c.Rate < 1 || c.Controllers < 1 {
		return nil, errors.New("messages, rate and controllers must be at least 1")
	}
	if c.Dir == "" {
		c.Dir = os.TempDir()
	}
	for _, name := range c.Kinds {
		if !slices.Contains(Kinds(), name) {
			return nil, fmt.Errorf("unknown kind of fault %q; known: %v", name, Kinds())
		}
	}
	if c.Compose == "" {
		c.diskProblem = tryDisk(ctx, c.Dir)
		c.Vault, c.vaultProblem = vault.FindProgram(c.Vault)
	}
	missing = map[string]string{}
	for _, k := range faultKinds() {
		if k.missing != nil {
			if why := k.missing(c); why != "" {
				missing[k.name] = why
			}
		}
	}
	if c.Faults > 0 && len(c.kinds()) == 0 {
		return nil, fmt.Errorf("none of these kinds of faults is possible: %v", missing)
	}
	return missing, nil
}

// tryDisk mounts a disk and has it lose power.
func tryDisk(ctx context.Context, dir string) error {
	for _, program := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	folder, err := os.MkdirTemp(dir, "soak-disk-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	d, err := createDisk(ctx, folder)
	if err != nil {
		return err
	}
	return errors.Join(d.cutPower(), d.restore(ctx), d.close(ctx))
}

// kinds are those that are asked for and that the machine can do.
func (c *Config) kinds() (chosen []faultKind) {
	for _, k := range faultKinds() {
		if (len(c.Kinds) == 0 || slices.Contains(c.Kinds, k.name)) && (k.missing == nil || k.missing(c) == "") {
			chosen = append(chosen, k)
		}
	}
	return chosen
}

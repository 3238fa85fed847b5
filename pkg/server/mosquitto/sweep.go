package mosquitto

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// trialPattern names the folders of throw-away brokers.
const trialPattern = ".trial-*"

// trialAttempts is how often a folder is made; a sweep may take one before it is held.
const trialAttempts = 5

// holdTrial makes a folder for a throw-away broker and holds it, for as long as this
// process lives or until held is closed: sweepTrials leaves it alone.
func holdTrial(folder string) (dir string, held *os.File, err error) {
	for range trialAttempts {
		if dir, err = os.MkdirTemp(folder, trialPattern); err != nil {
			return "", nil, err
		}
		if held, err = takeFolder(dir); err == nil {
			if _, err = os.Stat(dir); err == nil { //nolint:gosec // just made here
				return dir, held, nil
			}
			_ = held.Close()
		}
	}
	return "", nil, err
}

// takeFolder locks a folder against all others.
func takeFolder(dir string) (*os.File, error) {
	file, err := os.Open(dir) //nolint:gosec // of the broker's folder
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// sweepTrials removes what processes that were killed have left. Their brokers have
// ended with them.
func sweepTrials(folder string) error {
	left, err := filepath.Glob(filepath.Join(folder, trialPattern))
	if err != nil {
		return err
	}
	var problems error
	for _, dir := range left {
		held, err := takeFolder(dir)
		if err != nil {
			continue // in use, or swept by another
		}
		problems = errors.Join(problems, os.RemoveAll(dir), held.Close())
	}
	return problems
}

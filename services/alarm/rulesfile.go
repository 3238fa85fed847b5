package alarm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// rulesFile is the file of rules, which people change while the service runs.
type rulesFile struct {
	path     string // empty: the built-in rules
	optional bool   // the built-in rules apply while there is no file

	current *Rules
	sum     [sha256.Size]byte // of the content that was read last
	problem error             // of that content
}

// read reads the file, and reports whether current has changed. With an error it stays.
func (f *rulesFile) read() (changed bool, err error) {
	data := defaultRules
	if f.path != "" {
		data, err = os.ReadFile(f.path)
		if f.optional && errors.Is(err, fs.ErrNotExist) {
			data, err = defaultRules, nil
		}
		if err != nil {
			return false, fmt.Errorf("reading alarm rules: %w", err)
		}
	}
	sum := sha256.Sum256(data)
	if f.current != nil && sum == f.sum {
		return false, f.problem
	}
	f.sum = sum
	rules, err := ParseRules(data)
	if err != nil {
		f.problem = fmt.Errorf("%s: %w", f.path, err)
		return false, f.problem
	}
	f.current, f.problem = rules, nil
	return true, nil
}

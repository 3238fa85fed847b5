package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// maxToken bounds what is read of standard input, in bytes.
const maxToken = 4096

// AdministratorToken is the token on standard input, or what the vault CLI would use. It
// is no flag: those show in process listings.
func AdministratorToken(fromStdin bool) (secret.Value, error) {
	if fromStdin {
		data, err := io.ReadAll(io.LimitReader(os.Stdin, maxToken))
		if text := strings.TrimSpace(string(data)); err != nil || text != "" {
			return secret.NewValue(text, "standard input", ""), err
		}
		return secret.Value{}, errors.New("standard input has no token: pipe an administrator's into this command")
	}
	if text := os.Getenv("VAULT_TOKEN"); text != "" {
		return secret.NewValue(text, "environment", ""), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return secret.Value{}, fmt.Errorf("looking for the token of `vault login`: %w", err)
	}
	v, err := tokenFile(filepath.Join(home, ".vault-token"))
	if errors.Is(err, fs.ErrNotExist) {
		return v, errors.New("VAULT_TOKEN is not set, and `vault login` has left no token: set an administrator's")
	}
	return v, err
}

// tokenFile reads what `vault login` left, in a directory that need not be private.
func tokenFile(path string) (secret.Value, error) {
	info, err := os.Stat(path)
	if err != nil {
		return secret.Value{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Value{}, fmt.Errorf("%s can be read by others: chmod 600 %s", path, path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the vault CLI's own file
	if err != nil {
		return secret.Value{}, err
	}
	return secret.NewValue(string(data), "file", ""), nil
}

// Conclusion sums up the steps of a bootstrap.
func Conclusion(counts map[Change]int, dryRun bool) string {
	made, changed := counts[Made], counts[Changed]
	attention := ""
	if n := counts[Attention]; n > 0 {
		attention = fmt.Sprintf("; %d need attention", n)
	}
	switch {
	case made+changed == 0:
		return "Nothing to change" + attention + "."
	case dryRun:
		return fmt.Sprintf("Would make %d and change %d%s; nothing was written.", made, changed, attention)
	}
	return fmt.Sprintf("Made %d, changed %d%s.", made, changed, attention)
}

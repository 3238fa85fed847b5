package pgbouncer

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseLogin(f *testing.F) {
	for _, password := range []string{`plain`, `with "quotes"`, `"`, `" "`, `" "x`, "\\"} {
		f.Add(password)
	}
	f.Fuzz(func(t *testing.T, password string) {
		if strings.ContainsAny(password, "\n\r\x00") {
			return // a secret has none
		}
		user, got := parseLogin(string(userlist("pgbouncer", password)))
		require.Equal(t, "pgbouncer", user)
		require.Equal(t, password, got)
		_ = parseLine(password)
	})
}

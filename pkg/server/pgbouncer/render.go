package pgbouncer

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	conf "github.com/f2mesh/f2mesh/pgbouncer"
)

// imageConfig is the folder of the container image that the file names.
const imageConfig = "/etc/pgbouncer/"

var hostPort = regexp.MustCompile(`host=\S+ port=\d+`) //nolint:gochecknoglobals // compiled once

// render turns the shipped configuration file into that of one pooler. The file
// has no placeholders, so that a stand-alone PgBouncer takes it too.
func (c *Config) render(dir string, number int) (string, error) {
	own := map[string]string{"listen_addr": c.Host, "listen_port": strconv.Itoa(number)}
	maps.Copy(own, c.Settings)
	var file strings.Builder
	section := ""
	for line := range strings.Lines(conf.Conf) {
		name, value, isSetting := strings.Cut(strings.TrimSpace(line), " =")
		value = strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(line, "["):
			section = strings.TrimSpace(line)
		case !isSetting || strings.HasPrefix(line, ";"):
		case section == "[databases]":
			line = hostPort.ReplaceAllString(line, fmt.Sprintf("host=%s port=%d", c.ServerHost, c.ServerPort))
		case strings.HasPrefix(value, imageConfig):
			line = name + " = " + dir + "/" + strings.TrimPrefix(value, imageConfig) + "\n"
		}
		if replacement, ok := own[name]; ok && isSetting && section == "[pgbouncer]" {
			line = name + " = " + replacement + "\n"
			delete(own, name)
		}
		file.WriteString(line)
	}
	if section != "[pgbouncer]" {
		return "", fmt.Errorf("rendering pgbouncer.ini: its last section is %s", section)
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		fmt.Fprintf(&file, "%s = %s\n", name, own[name])
	}
	return withUser(file.String(), c.User), nil
}

// ownUser is where the file names the user that the pooler logs in as.
var ownUser = regexp.MustCompile(`auth_user=\S+`) //nolint:gochecknoglobals // compiled once

func withUser(text, user string) string { return ownUser.ReplaceAllString(text, "auth_user="+user) }

// userlist is auth_file: the pooler's own password, and no other.
func userlist(user, password string) []byte {
	quote := func(text string) string { return `"` + strings.ReplaceAll(text, `"`, `""`) + `"` }
	return []byte(quote(user) + " " + quote(password) + "\n")
}

// parseLogin reads a line of userlist. User names have no quotes.
func parseLogin(line string) (user, password string) {
	user, password, _ = strings.Cut(strings.TrimSuffix(line, "\n"), `" "`)
	return strings.TrimPrefix(user, `"`), strings.ReplaceAll(strings.TrimSuffix(password, `"`), `""`, `"`)
}

func address(host string, number int) string { return net.JoinHostPort(host, strconv.Itoa(number)) }

package console

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

//go:embed template
var templates embed.FS

// page is what every template gets.
type page struct {
	Title, At string // At: the path, for the menu
	Person    person
	SignedIn  bool
	Role      access.Role
	Admin     bool // may administer the mesh
	Now       time.Time
	Data      any
	Commands  []string // that give the same in a terminal
	CSV       string   // address of the same as CSV, "" if there is none
}

// titled are pages' data that name the page.
type titled interface{ title() string }

// commanded are pages' data with commands that give the same.
type commanded interface{ commands() []string }

func functions() template.FuncMap {
	return template.FuncMap{
		"time": timeElement, "number": number, "bytes": mebibytes, "span": span, "one": func(v ...any) []any { return v },
		"printable": plain.Text,
	}
}

func parsePages() (map[string]*template.Template, error) {
	base, err := template.New("base").Funcs(functions()).ParseFS(templates, "template/base.html", "template/part_*.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(templates, "template/page_*.html")
	if err != nil {
		return nil, err
	}
	pages := map[string]*template.Template{}
	for _, path := range names {
		clone, err := base.Clone()
		if err == nil {
			clone, err = clone.ParseFS(templates, path)
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(path, "template/page_"), ".html")
		pages[name] = clone
	}
	return pages, nil
}

// askToSignIn writes the page for who has not signed in.
func (c *Console) askToSignIn(w http.ResponseWriter, r *http.Request, code int, data signInPage) {
	c.write(w, code, "signin", page{Title: "Sign in", At: r.URL.Path, Now: time.Now(), Data: data})
}

// show writes a page for a person.
func (c *Console) show(w http.ResponseWriter, r *http.Request, s *session, name string, data titled) {
	c.write(w, http.StatusOK, name, c.pageOf(r, s, data))
}

func (c *Console) pageOf(r *http.Request, s *session, data titled) page {
	p := page{Title: data.title(), At: r.URL.Path, Person: s.person, SignedIn: true, Role: c.roleOf(s), Now: time.Now(), Data: data}
	p.Admin, _ = c.allowed(s, access.Administer, access.Place{})
	if d, ok := data.(commanded); ok {
		p.Commands = d.commands()
	}
	if _, ok := data.(tabular); ok {
		p.CSV = with(r.URL, "format", "csv", "page", "")
	}
	return p
}

func (c *Console) write(w http.ResponseWriter, code int, name string, p page) {
	var b bytes.Buffer
	if err := c.pages[name].ExecuteTemplate(&b, "base", p); err != nil {
		c.log.Error("a page cannot be shown", "page", name, "error", err)
		http.Error(w, "this page cannot be shown: the log has the reason", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w) // the caller has gone
}

// failure is a page that cannot be shown.
type failure struct {
	Code    int
	Problem string
}

func (f failure) title() string { return http.StatusText(f.Code) }

func (c *Console) fail(w http.ResponseWriter, r *http.Request, s *session, code int, problem string) {
	c.write(w, code, "failure", c.pageOf(r, s, failure{code, problem}))
}

// unavailable says that a source cannot be asked, and logs why.
func (c *Console) unavailable(w http.ResponseWriter, r *http.Request, s *session, what string, err error) {
	if errors.Is(err, r.Context().Err()) && r.Context().Err() != nil {
		return // nobody waits any more
	}
	c.log.Warn("a page cannot be shown", "path", r.URL.Path, "error", err)
	c.fail(w, r, s, http.StatusServiceUnavailable, what+" cannot be read now. The log of the health service has the reason.")
}

// timeElement is a moment, which a script shows in the viewer's zone.
func timeElement(t time.Time) template.HTML {
	if t.IsZero() {
		return "-"
	}
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, t.Format(time.RFC3339Nano), t.Format("2006-01-02 15:04:05Z"))) //nolint:gosec // a time has no markup
}

func number(v any) string {
	var f float64
	switch n := v.(type) {
	case float64:
		f = n
	case uint64:
		f = float64(n)
	case int:
		f = float64(n)
	default:
		return fmt.Sprint(v)
	}
	if f != 0 && f < 10 && f != float64(int64(f)) {
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(f, 'f', 0, 64)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "\u202f" + digits[at:]
	}
	return digits
}

func mebibytes(v any) string {
	var f float64
	switch n := v.(type) {
	case uint64:
		f = float64(n)
	case int64:
		f = float64(n)
	}
	if f <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f MiB", f/(1<<20))
}

// span is a number of seconds; 0 is unknown.
func span(seconds float64) string {
	switch {
	case seconds == 0:
		return "-"
	case seconds >= 86400:
		return fmt.Sprintf("%.1f days", seconds/86400)
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// with is an address with other parameters: names and values, "" to leave one out.
func with(u *url.URL, pairs ...string) string {
	q := u.Query()
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			q.Del(pairs[i])
		} else {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return u.Path
	}
	return u.Path + "?" + q.Encode()
}

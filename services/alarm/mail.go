package alarm

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
)

func tlsFor(host string) *tls.Config {
	return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
}

// text is a mail about an alarm. Its id is the same whenever it is sent again.
func (m *mailBox) text(e *alert.Entry) []byte {
	var b bytes.Buffer
	subject := fmt.Sprintf("[%s] %s %s: %s", e.Severity, cmp.Or(e.Rule, e.Kind), e.Status, where(e))
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s-%s@f2mesh>\r\n", m.From, strings.Join(m.To, ", "),
		mime.QEncoding.Encode("utf-8", subject), e.Time.Format(time.RFC1123Z), e.Occurrence, e.Status)
	fmt.Fprint(&b, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	w := quotedprintable.NewWriter(&b)
	fmt.Fprintf(w, "%s\r\n\r\n%s\r\n%s\r\nraised %s\r\n", e.Summary, where(e), e.Detail, e.RaisedAt.Format(time.RFC3339))
	if !e.ClearedAt.IsZero() {
		fmt.Fprintf(w, "cleared %s\r\n", e.ClearedAt.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "\r\nf2mesh alarm show %s\r\n", e.Handle())
	_ = w.Close() // to memory
	return b.Bytes()
}

package alarm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/mail"
	"net/smtp"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Receiver is somebody who is notified. What is secret, an address with a token or a password,
// is the secret alarm_receiver_<name>.
type Receiver struct {
	Name     string   `yaml:"name"`
	Severity patterns `yaml:"severity"` // only alarms of these
	Rule     patterns `yaml:"rule"`
	Webhook  *webHook `yaml:"webhook"`     // in the format of Alertmanager
	Events   *webHook `yaml:"cloudevents"` // CloudEvents 1.0, structured JSON
	Mail     *mailBox `yaml:"smtp"`
}

type webHook struct {
	URL string `yaml:"url"` // empty: it is the receiver's secret
}

type mailBox struct {
	Server string   `yaml:"server"` // host:port
	From   string   `yaml:"from"`
	To     []string `yaml:"to"`
	User   string   `yaml:"user"` // with the receiver's secret; empty: no login
}

var receiverName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`) //nolint:gochecknoglobals // a constant

func (r *Receiver) check() error {
	problem := func(text string, args ...any) error {
		return fmt.Errorf("receiver %q: "+text, append([]any{r.Name}, args...)...)
	}
	if !receiverName.MatchString(r.Name) {
		return problem("name must be 1 to 32 of a-z, 0-9 and _")
	}
	ways := 0
	for _, hook := range []*webHook{r.Webhook, r.Events} {
		if hook == nil {
			continue
		}
		ways++
		if u, err := url.Parse(hook.URL); hook.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			return problem("url must be an http or https address")
		}
	}
	if m := r.Mail; m != nil {
		ways++
		if _, _, err := net.SplitHostPort(m.Server); err != nil {
			return problem("smtp server %q must be host:port", m.Server)
		}
		for _, address := range append([]string{m.From}, m.To...) {
			if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address {
				return problem("%q is not a mail address", address)
			}
		}
		if len(m.To) == 0 {
			return problem("smtp needs a list of addresses in to")
		}
	}
	if ways != 1 {
		return problem("needs one of webhook, cloudevents and smtp")
	}
	return nil
}

func (r *Receiver) secret(ctx context.Context, secrets *secret.Store) (string, error) {
	v, err := secrets.Get(ctx, "alarm_receiver_"+r.Name)
	return v.Reveal(), err
}

// permanentError is a notification that the receiver never accepts.
type permanentError struct{ error }

func isPermanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok
}

// notify sends a notification once. Its error contains no secret.
func (r *Receiver) notify(ctx context.Context, secrets *secret.Store, e *alert.Entry) error {
	switch {
	case r.Webhook != nil:
		return r.post(ctx, secrets, r.Webhook, "application/json", alertmanager(r.Name, e))
	case r.Events != nil:
		return r.post(ctx, secrets, r.Events, "application/cloudevents+json", cloudEvent(e))
	}
	return r.mail(ctx, secrets, e)
}

// client follows no redirect: it could lead an address with a token elsewhere.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} //nolint:gochecknoglobals // it keeps connections

func (r *Receiver) post(ctx context.Context, secrets *secret.Store, hook *webHook, contentType string, content any) error {
	address := hook.URL
	if address == "" {
		var err error
		if address, err = r.secret(ctx, secrets); err != nil {
			return err
		}
	}
	body, err := json.Marshal(content)
	if err != nil {
		return permanentError{err}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSpace(address), bytes.NewReader(body))
	if err != nil {
		return errors.New("its address is not a URL") // the error would contain it
	}
	request.Header.Set("Content-Type", contentType)
	response, err := client.Do(request)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the address may contain a token
		}
		return fmt.Errorf("posting: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16)) // so that the connection can be used again
	switch code := response.StatusCode; {
	case code < 300:
		return nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return permanentError{fmt.Errorf("posting: the receiver returned %s", response.Status)}
	default:
		return fmt.Errorf("posting: the receiver returned %s", response.Status)
	}
}

// alertmanager is the body of a webhook of Alertmanager, version 4.
func alertmanager(receiver string, e *alert.Entry) any {
	status, ends := "firing", time.Time{}
	if e.Status == alert.Cleared {
		status, ends = "resolved", e.ClearedAt
	}
	labels := map[string]string{"alertname": cmp.Or(e.Rule, e.Kind), "severity": string(e.Severity)}
	for name, value := range map[string]string{
		"mac": e.MAC, "mode": e.Mode, "component": e.Component, "device": e.Device, "service": e.Service, "about": e.About,
	} {
		if value != "" {
			labels[name] = value
		}
	}
	if e.MAC != "" {
		labels["connector"] = fmt.Sprint(e.Connector)
	}
	annotations := map[string]string{"summary": e.Summary, "description": e.Detail, "alarm": e.ID(), "occurrence": e.Occurrence}
	return map[string]any{
		"version": "4", "groupKey": e.ID(), "truncatedAlerts": 0, "status": status, "receiver": receiver,
		"groupLabels": map[string]string{"alertname": labels["alertname"]}, "commonLabels": labels, "commonAnnotations": annotations, "externalURL": "",
		"alerts": []any{map[string]any{
			"status": status, "labels": labels, "annotations": annotations, "startsAt": e.RaisedAt, "endsAt": ends,
			"generatorURL": "", "fingerprint": e.Occurrence,
		}},
	}
}

// cloudEvent is a CloudEvent. Its id is the same whenever it is sent again.
func cloudEvent(e *alert.Entry) any {
	return map[string]any{
		"specversion": "1.0", "id": e.Occurrence + "-" + string(e.Status), "source": "/f2mesh/alarm", "type": "f2mesh.alarm." + string(e.Status),
		"subject": e.ID(), "time": e.Time, "datacontenttype": "application/json", "data": e,
	}
}

// mail sends a mail, over TLS if the server offers it. A password goes over TLS alone.
func (r *Receiver) mail(ctx context.Context, secrets *secret.Store, e *alert.Entry) error {
	m := r.Mail
	host, _, _ := net.SplitHostPort(m.Server)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.Server)
	if err != nil {
		return fmt.Errorf("mailing: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return fmt.Errorf("mailing: %w", err)
	}
	if ok, _ := c.Extension("STARTTLS"); ok {
		if err := c.StartTLS(tlsFor(host)); err != nil {
			return fmt.Errorf("mailing: %w", err)
		}
	}
	if m.User != "" {
		password, err := r.secret(ctx, secrets)
		if err != nil {
			return err
		}
		if err := c.Auth(smtp.PlainAuth("", m.User, password, host)); err != nil {
			return fmt.Errorf("mailing: logging in: %w", err)
		}
	}
	if err := c.Mail(m.From); err != nil {
		return fmt.Errorf("mailing: %w", err)
	}
	for _, to := range m.To {
		if err := c.Rcpt(to); err != nil {
			return fmt.Errorf("mailing: %w", err)
		}
	}
	w, err := c.Data()
	if err == nil {
		_, err = w.Write(m.text(e))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("mailing: %w", err)
	}
	_ = c.Quit() // it was accepted
	return nil
}

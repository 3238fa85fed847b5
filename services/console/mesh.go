package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// meshStatus is what GET /status answers, as far as pages show it.
type meshStatus struct {
	Time   time.Time `json:"time"`
	Ready  bool      `json:"ready"`
	Stages []struct {
		Stage       string  `json:"stage"`
		Ready       bool    `json:"ready"`
		Cause       string  `json:"cause"`
		Instances   int     `json:"instances"`
		Rate        float64 `json:"messages_per_second"`
		Lag         uint64  `json:"lag"`
		Redelivered int     `json:"redelivered"`
		Dead        float64 `json:"dead_letters"`
	} `json:"stages"`
	Streams []struct {
		Stream   string  `json:"stream"`
		Messages uint64  `json:"messages"`
		Bytes    uint64  `json:"bytes"`
		MaxBytes int64   `json:"max_bytes"`
		FullIn   float64 `json:"seconds_to_full"`
		Room     float64 `json:"seconds_of_room"`
	} `json:"streams"`
	Ledger struct {
		Received float64 `json:"received"`
		Stored   float64 `json:"stored"`
		Decoded  float64 `json:"decoded"`
		Rows     float64 `json:"rows"`
		Dead     float64 `json:"dead_letters"`
	} `json:"ledger"`
	Secrets []struct {
		Service    string    `json:"service"`
		Name       string    `json:"name"`
		Source     string    `json:"source"`
		Version    string    `json:"version"`
		Since      time.Time `json:"since"`
		Downgraded bool      `json:"downgraded"`
		Problem    string    `json:"problem"`
	} `json:"secrets"`
	Certificates []struct {
		Name     string    `json:"name"`
		NotAfter time.Time `json:"not_after"`
	} `json:"certificates"`
	Alarms []struct {
		Kind    string    `json:"alarm"`
		Service string    `json:"service"`
		Subject string    `json:"subject"`
		Since   time.Time `json:"since"`
		Detail  string    `json:"detail"`
	} `json:"alarms"`
	AlarmsRaised int       `json:"alarms_raised"`
	Watching     []string  `json:"watching"`
	CRLEnds      time.Time `json:"crl_ends"`
	Dropped      float64   `json:"broker_dropped"`
	FailedLogins uint64    `json:"failed_logins"`
}

// meshStatus reads the last look at the mesh.
func (c *Console) meshStatus() (*meshStatus, error) {
	text, err := c.status()
	if err != nil {
		return nil, err
	}
	s := &meshStatus{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("reading the status of the mesh: %w", err)
	}
	return s, nil
}

type meshPage struct {
	*meshStatus
	PerSecond float64
}

func (meshPage) title() string { return "Mesh" }

func (meshPage) commands() []string {
	return []string{"f2mesh status", "nats stream ls", "nats consumer report RAW", `curl -K "$F2MESH_HTTP_CURL" "$F2MESH_HTTP_URL/status"`}
}

func (c *Console) serveMesh(w http.ResponseWriter, r *http.Request, s *session) {
	now, err := c.meshStatus()
	if err != nil {
		c.unavailable(w, r, s, "The state of the mesh", err)
		return
	}
	c.show(w, r, s, "mesh", meshPage{now, c.live.rate(time.Now())})
}

func (c *Console) liveMesh(w http.ResponseWriter, r *http.Request, s *session) {
	first := func(add func(string, update)) { add("mesh", update{}); add("rate", update{}) }
	c.follow(w, r, s, meshTopic, first, func(event string, _ update) ([]byte, error) {
		if event == "rate" {
			return []byte(number(c.live.rate(time.Now()))), nil
		}
		now, err := c.meshStatus()
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		err = c.pages["mesh"].ExecuteTemplate(&b, "state", now)
		return b.Bytes(), err
	})
}

type secretsPage struct{ *meshStatus }

func (secretsPage) title() string { return "Secrets" }

func (secretsPage) commands() []string {
	return []string{"f2mesh secret status", "f2mesh secret rotate --all", "nats request f2.secrets.writer ''"}
}

func (p secretsPage) rows() [][]string {
	all := [][]string{{"service", "secret", "source", "version", "since", "downgraded", "problem"}}
	for i := range p.Secrets {
		s := &p.Secrets[i]
		all = append(all, []string{s.Service, s.Name, s.Source, s.Version, stamp(s.Since), fmt.Sprint(s.Downgraded), s.Problem})
	}
	return all
}

func (c *Console) serveSecrets(w http.ResponseWriter, r *http.Request, s *session) {
	now, err := c.meshStatus()
	if err != nil {
		c.unavailable(w, r, s, "The state of the mesh", err)
		return
	}
	if p := (secretsPage{now}); !asCSV(w, r, "secrets", p) {
		c.show(w, r, s, "secrets", p)
	}
}

type ledgerPage struct{ *meshStatus }

func (ledgerPage) title() string { return "Ledger" }

func (ledgerPage) commands() []string {
	return []string{"f2mesh audit", "f2mesh redecode --from 2d --to 1d --dry-run", "psql -c 'SELECT count(*) FROM measurement'"}
}

func (c *Console) serveLedger(w http.ResponseWriter, r *http.Request, s *session) {
	now, err := c.meshStatus()
	if err != nil {
		c.unavailable(w, r, s, "The state of the mesh", err)
		return
	}
	c.show(w, r, s, "ledger", ledgerPage{now})
}

// choices are the values of a filter, one of which is chosen.
type choices struct {
	Name, Label, Chosen string
	All                 []string
}

// contains reports whether a text has what somebody seeks, in any case.
func contains(sought string, texts ...string) bool {
	for _, text := range texts {
		if strings.Contains(strings.ToLower(text), sought) {
			return true
		}
	}
	return sought == ""
}

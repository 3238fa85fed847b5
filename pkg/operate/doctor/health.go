package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// healthSecret lets people and Prometheus ask the health API.
const healthSecret = "health_password"

func healthChecks() []Check {
	return []Check{
		{
			"health-anonymous", "Authentication tests", "the health API without a password: only /healthz answers, and tells nothing",
			"run the health service as built; nothing but it may listen on that port", healthAnonymous,
		},
		{
			"health-password", "Authentication tests", "the health API with wrong passwords, as Basic and as Bearer",
			"run the health service as built; nothing but it may listen on that port", healthPassword,
		},
		{
			"health-failed-logins", "Production Hardening: Failed logins logged", "the health API with a wrong password: it is counted on /status",
			"run the health service as built; nothing but it may listen on that port", healthFailedLogins,
		},
		{
			"health-limits", "Resource limits", "the health API with slow, oversized and malformed requests, and with many connections of one address",
			"run the health service as built; nothing but it may listen on that port",
			func(ctx context.Context, m *Mesh) Finding {
				return m.strict(ctx, m.Ports.HTTP, "health service", "/healthz")
			},
		},
	}
}

// closedPaths are some that only answer who knows the password.
func closedPaths() []string { return []string{"/status", "/readyz", "/metrics", "/debug/pprof/", "/"} }

func healthAnonymous(ctx context.Context, m *Mesh) Finding {
	return m.healthRefused(ctx, func(ask *http.Client) (problems []string) {
		for _, path := range closedPaths() {
			problems = append(problems, m.closed(ctx, ask, path, "")...)
		}
		status, body, err := m.askHealth(ctx, ask, "/healthz", "")
		switch {
		case err != nil:
			problems = append(problems, fmt.Sprintf("/healthz: %v", err))
		case status != http.StatusOK || strings.TrimSpace(body) != "ok":
			problems = append(problems, fmt.Sprintf("/healthz answers %d and not just ok", status))
		}
		return problems
	})
}

func healthPassword(ctx context.Context, m *Mesh) Finding {
	return m.healthRefused(ctx, func(ask *http.Client) (problems []string) {
		for _, authorization := range []string{"Basic ZjJtZXNoOg==", "Bearer ", "Bearer " + marker(), basic(marker())} { // the first two are empty
			problems = append(problems, m.closed(ctx, ask, "/status", authorization)...)
		}
		return problems
	})
}

func healthFailedLogins(ctx context.Context, m *Mesh) Finding {
	return m.healthRefused(ctx, func(ask *http.Client) (problems []string) {
		before, err := m.failedLogins(ctx, ask)
		if err != nil {
			return []string{err.Error()}
		}
		problems = m.closed(ctx, ask, "/status", basic(marker()))
		after, err := m.failedLogins(ctx, ask)
		if err != nil {
			return []string{err.Error()}
		}
		if after <= before {
			problems = append(problems, "a wrong password was not counted")
		}
		return problems
	})
}

// failedLogins is what the API itself has counted.
func (m *Mesh) failedLogins(ctx context.Context, ask *http.Client) (uint64, error) {
	_, password, err := m.LogIn(ctx, healthSecret)
	if err != nil {
		return 0, err
	}
	_, body, err := m.askHealth(ctx, ask, "/status", basic(password))
	if err != nil {
		return 0, err
	}
	var seen struct {
		FailedLogins *uint64 `json:"failed_logins"`
	}
	if err := json.Unmarshal([]byte(body), &seen); err != nil || seen.FailedLogins == nil {
		return 0, errors.New("/status counts no failed logins")
	}
	return *seen.FailedLogins, nil
}

// healthRefused looks for problems where the right password is let in.
func (m *Mesh) healthRefused(ctx context.Context, look func(*http.Client) []string) Finding {
	if m.Ports.HTTP == 0 {
		return notChecked("this mesh runs no health service")
	}
	config, err := m.tls()
	if err != nil {
		return failed("%v", err)
	}
	_, password, err := m.LogIn(ctx, healthSecret)
	if err != nil {
		return failed("%v", err)
	}
	ask := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
	status, _, err := m.askHealth(ctx, ask, "/status", basic(password))
	switch {
	case err != nil:
		return failed("cannot be tried: %v", err)
	case status != http.StatusOK:
		return failed("cannot be tried, the right password was answered %d", status)
	}
	return verdict(look(ask), "refused, and the right password was let in")
}

// closed is empty if the answer is that a password is needed.
func (m *Mesh) closed(ctx context.Context, ask *http.Client, path, authorization string) []string {
	status, _, err := m.askHealth(ctx, ask, path, authorization)
	switch {
	case err != nil:
		return []string{fmt.Sprintf("%s cannot be tried: %v", path, err)}
	case status != http.StatusUnauthorized:
		return []string{fmt.Sprintf("%s: answered %d", path, status)}
	}
	return nil
}

func basic(password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth("f2mesh", password)
	return r.Header.Get("Authorization")
}

func (m *Mesh) askHealth(ctx context.Context, ask *http.Client, path, authorization string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.address(m.Ports.HTTP)+path, nil)
	if err != nil {
		return 0, "", err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := ask.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	return response.StatusCode, string(text), err
}

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

const healthGood = "refused; the correct password was accepted"

// healthAPI returns the health API and the header of a valid login, which it tries.
func (t *Target) healthAPI(ctx context.Context) (api web, valid http.Header) {
	need(t.Ports.HTTP != 0, "this mesh runs no health service")
	api, valid = t.web(t.Ports.HTTP), basic("f2mesh", t.login(ctx, credential.HealthAPI).password)
	status, _, err := api.request(ctx, http.MethodGet, "/status", valid, "")
	ensure(err)
	if status != http.StatusOK {
		ensure(fmt.Errorf("the correct password returned status %d", status))
	}
	return api, valid
}

func healthLimits(ctx context.Context, t *Target) Finding {
	need(t.Ports.HTTP != 0, "this mesh runs no health service")
	return t.web(t.Ports.HTTP).limits(ctx, "/healthz")
}

func healthAnonymous(ctx context.Context, t *Target) Finding {
	api, _ := t.healthAPI(ctx)
	var problems []string
	for _, path := range []string{"/status", "/readyz", "/metrics", "/debug/pprof/", "/"} {
		problems = append(problems, api.open(ctx, path, http.Header{})...)
	}
	text, err := api.get(ctx, "/healthz")
	if err == nil && text != "ok" {
		err = errors.New("/healthz returned more than ok")
	}
	if err != nil {
		problems = append(problems, err.Error())
	}
	return verdict(problems, healthGood)
}

func healthPassword(ctx context.Context, t *Target) Finding {
	api, _ := t.healthAPI(ctx)
	var problems []string
	for _, header := range []http.Header{
		basic("f2mesh", ""), basic("f2mesh", marker()), {"Authorization": {"Bearer "}}, {"Authorization": {"Bearer " + marker()}},
	} {
		problems = append(problems, api.open(ctx, "/status", header)...)
	}
	return verdict(problems, healthGood)
}

func healthFailedLogins(ctx context.Context, t *Target) Finding {
	api, valid := t.healthAPI(ctx)
	before := api.failedLogins(ctx, valid)
	problems := api.open(ctx, "/status", basic("f2mesh", marker()))
	if api.failedLogins(ctx, valid) <= before {
		problems = append(problems, "a wrong password was not counted")
	}
	return verdict(problems, healthGood)
}

// open returns a problem unless the path needs another password.
func (w web) open(ctx context.Context, path string, header http.Header) []string {
	status, _, err := w.request(ctx, http.MethodGet, path, header, "")
	switch {
	case err != nil:
		return []string{fmt.Sprintf("%s: not tested: %v", path, err)}
	case status != http.StatusUnauthorized:
		return []string{fmt.Sprintf("%s: returned status %d", path, status)}
	}
	return nil
}

// failedLogins is what the API itself counts.
func (w web) failedLogins(ctx context.Context, valid http.Header) uint64 {
	_, text, err := w.request(ctx, http.MethodGet, "/status", valid, "")
	ensure(err)
	var status struct {
		FailedLogins *uint64 `json:"failed_logins"`
	}
	if json.Unmarshal([]byte(text), &status) != nil || status.FailedLogins == nil {
		ensure(errors.New("/status counts no failed logins"))
	}
	return *status.FailedLogins
}

package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
)

// Limits of a server that strangers reach.
const (
	attackTimeout = 30 * time.Second // by when it has closed any connection that is misused
	oversizedHeld = 4 * time.Second  // by when it has closed one that sends too much
	manyIdle      = 128              // connections of one address, not all of which may stay open
)

// web is an HTTPS server of the mesh.
type web struct {
	client *http.Client
	url    string
	server hostile.Victim
}

func (t *Target) web(port int, certificates ...tls.Certificate) web {
	config := t.tls(certificates...)
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}
	return web{
		&http.Client{Timeout: 30 * time.Second, Transport: transport},
		"https://" + t.address(port),
		hostile.Victim{Address: t.address(port), TLS: config},
	}
}

// request sends a request and returns the beginning of the response.
func (w web) request(ctx context.Context, method, path string, header http.Header, body string) (status int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, w.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header = header
	response, err := w.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	return response.StatusCode, strings.TrimSpace(string(data)), err
}

// get requests a path that needs no password, and requires status 200.
func (w web) get(ctx context.Context, path string) (text string, err error) {
	status, text, err := w.request(ctx, http.MethodGet, path, http.Header{}, "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s returned status %d", path, status)
	}
	return text, err
}

func basic(user, password string) http.Header {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header
}

// limits carries out all attacks, and requests a path that needs no password beside them.
func (w web) limits(ctx context.Context, path string) Finding {
	must(w.get(ctx, path))
	w.server.Path = path
	problems := attack(ctx, w.server)
	_, more := idle(ctx, w.server)
	for range 50 { // until the server has seen their end, or it refuses the next check
		if _, err := w.get(ctx, path); ctx.Err() != nil || err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return verdict(append(problems, more...), "the server ended %d attacks within %s, and served a valid request", len(hostile.Attacks(path))+1, attackTimeout)
}

// idle opens many idle connections from one address, some of which the server must close.
func idle(ctx context.Context, server hostile.Victim) (closed int, problems []string) {
	closed, end, err := hostile.Open(ctx, server, manyIdle, time.Second)
	ensure(err)
	end()
	if closed == 0 {
		problems = append(problems, fmt.Sprintf("the server accepts %d idle connections of one address", manyIdle))
	}
	return closed, problems
}

// attack carries out all attacks, concurrently since most of them wait.
func attack(ctx context.Context, server hostile.Victim) []string {
	ctx, cancel := context.WithTimeout(ctx, attackTimeout)
	defer cancel()
	attacks := hostile.Attacks(server.Path)
	seen := make([]string, len(attacks))
	var attackers sync.WaitGroup
	for i, a := range attacks {
		attackers.Go(func() {
			out, err := a.Do(ctx, server)
			switch {
			case errors.Is(err, hostile.ErrHeld):
				seen[i] = fmt.Sprintf("%s: %v", a.Name, err)
			case err != nil:
				seen[i] = fmt.Sprintf("%s: the attack could not run: %v", a.Name, err)
			case a.Oversized && out.Held > oversizedHeld:
				seen[i] = fmt.Sprintf("%s: connection open for %s", a.Name, out.Held.Round(time.Second))
			}
		})
	}
	attackers.Wait()
	return slices.DeleteFunc(seen, func(problem string) bool { return problem == "" })
}

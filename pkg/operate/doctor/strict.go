package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
)

// Bounds of a server that strangers reach.
const (
	attackTimeout = 30 * time.Second // until it has closed any connection that is misused
	oversizedHeld = 4 * time.Second  // until it has closed one that sends too much
	manyIdle      = 128              // connections of one address that are not all taken
)

// strict tries bad clients, beside a good one, whose path answers without a password.
func (m *Mesh) strict(ctx context.Context, port int, service, path string) Finding {
	if port == 0 {
		return notChecked("this mesh runs no %s that is reached from here", service)
	}
	config, err := m.tls()
	if err != nil {
		return failed("%v", err)
	}
	ask := &http.Client{Timeout: mqttTimeout, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
	if err := m.answers(ctx, ask, port, path); err != nil {
		return failed("cannot be tried: %v", err)
	}
	target := hostile.Server{Address: m.address(port), TLS: config, Path: path}
	problems := attacked(ctx, target)
	closed, end, err := hostile.Open(ctx, target, manyIdle, time.Second)
	if err != nil {
		return failed("cannot be tried: %v", err)
	}
	end()
	for range 50 { // or the next check is refused for these, until the server has seen them end
		if ctx.Err() != nil || m.answers(ctx, ask, port, path) == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if closed == 0 {
		problems = append(problems, fmt.Sprintf("it takes %d connections of one address that ask nothing", manyIdle))
	}
	return verdict(problems, "%d attacks ended by the server within %s, and a request as it should be was answered", len(hostile.Attacks(path))+1, attackTimeout)
}

// attacked carries out all attacks, at once since most of them wait.
func attacked(ctx context.Context, target hostile.Server) (problems []string) {
	ctx, cancel := context.WithTimeout(ctx, attackTimeout)
	defer cancel()
	attacks := hostile.Attacks(target.Path)
	seen := make([]string, len(attacks))
	var attackers sync.WaitGroup
	for i, a := range attacks {
		attackers.Go(func() {
			out, err := a.Do(ctx, target)
			switch {
			case errors.Is(err, hostile.ErrHeld):
				seen[i] = fmt.Sprintf("%s: %v", a.Name, err)
			case err != nil:
				seen[i] = fmt.Sprintf("%s: cannot be tried: %v", a.Name, err)
			case a.Oversized && out.Held > oversizedHeld:
				seen[i] = fmt.Sprintf("%s: kept for %s", a.Name, out.Held.Round(time.Second))
			}
		})
	}
	attackers.Wait()
	for _, problem := range seen {
		if problem != "" {
			problems = append(problems, problem)
		}
	}
	return problems
}

// answers is nil if a path is answered.
func (m *Mesh) answers(ctx context.Context, ask *http.Client, port int, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.address(port)+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := ask.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", path, response.Status)
	}
	return nil
}

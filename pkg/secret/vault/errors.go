package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

var (
	// ErrPermission is what a policy of Vault's refuses, with a token that is valid.
	ErrPermission = errors.New("vault's policy does not permit it")
	// ErrLogin is a refused login. It stays until the files change.
	ErrLogin = errors.New("vault refuses the login")
	// ErrConflict is a write whose check-and-set parameter is not the current version.
	ErrConflict = errors.New("the secret was changed in Vault at the same time")
)

// saidLimit is how many bytes of Vault's words an error quotes.
const saidLimit = 300

// explain turns an error of the library into one line, and into one of the
// errors that callers tell apart. It never holds a request's body.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[*api.ResponseError](err); ok {
		return explainAnswer(answer)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("checking Vault's certificate, which VAULT_CACERT is for: %w", err)
	}
	if _, ok := errors.AsType[*url.Error](err); ok && !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("asking Vault: %w: %w", secret.ErrUnavailable, err)
	}
	return fmt.Errorf("asking Vault: %w", err)
}

func explainAnswer(answer *api.ResponseError) error {
	said := strings.Join(strings.Fields(strings.Join(answer.Errors, "; ")), " ") // they come with line breaks and bullets
	if len(said) > saidLimit {                                                   // a page of some proxy's
		said = said[:saidLimit] + "…"
	}
	path := answer.URL
	if u, err := url.Parse(answer.URL); err == nil {
		path = strings.TrimPrefix(u.Path, "/v1/")
	}
	kind := error(nil)
	switch code := answer.StatusCode; {
	case code == http.StatusForbidden:
		kind = ErrPermission
	case code == http.StatusNotFound && len(answer.Errors) == 0:
		kind = secret.ErrNotFound
	case code == http.StatusBadRequest && strings.Contains(said, "check-and-set parameter did not match"):
		kind = ErrConflict
	case code >= http.StatusInternalServerError, // 503: sealed
		code == http.StatusTooManyRequests, code == http.StatusPreconditionFailed, code == 472, code == 473: // standby
		kind = secret.ErrUnavailable
	}
	if kind == nil {
		return fmt.Errorf("vault returned %d to %s: %s", answer.StatusCode, path, said)
	}
	return fmt.Errorf("%w: %d to %s: %s", kind, answer.StatusCode, path, said)
}

// explainVault is explain for errors of which some are not of Vault's.
func explainVault(err error) error {
	if _, ok := errors.AsType[*url.Error](err); ok || status(err) != 0 {
		return explain(err)
	}
	return err
}

// status is the HTTP status of Vault's response, 0 if there was none.
func status(err error) int {
	if answer, ok := errors.AsType[*api.ResponseError](err); ok {
		return answer.StatusCode
	}
	return 0
}

package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/text/secure/precis"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

const (
	// rounds is PostgreSQL's own number (scram_iterations).
	rounds     = 4096
	saltLength = 16
)

// EnsureRole makes a role that may log in, and its alternate (credential.Alternate),
// as far as they are not there; neither has a password before SetPassword. A session
// of the alternate acts as the role itself: what it makes is the role's, and what
// is granted to the role is its own. conn is a superuser's.
func EnsureRole(ctx context.Context, conn *pgx.Conn, role string) error {
	alternate := credential.Alternate(role)
	for _, name := range []string{role, alternate} {
		var exists bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).Scan(&exists); err != nil {
			return fmt.Errorf("looking for role %s: %w", name, err)
		}
		if exists {
			continue
		}
		if _, err := conn.Exec(ctx, "CREATE ROLE "+quote(name)+" LOGIN"); err != nil {
			return fmt.Errorf("making role %s: %w", name, err)
		}
	}
	for _, statement := range []string{
		"GRANT " + quote(role) + " TO " + quote(alternate),
		"ALTER ROLE " + quote(alternate) + " SET role = " + quote(role),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("making role %s: %w", alternate, err)
		}
	}
	return nil
}

// SetPassword gives a role a password; with "" nobody can log in as the role any
// more, and its sessions are ended. With a password they stay. A role that has the
// password already keeps its verifier: PgBouncer logs in with a key that fits this
// verifier alone, and would be refused. The server never sees the password itself.
// conn is a superuser's.
func SetPassword(ctx context.Context, conn *pgx.Conn, role, password string) error {
	value := "NULL"
	if password != "" {
		there, err := hasPassword(ctx, conn, role, password)
		if there || err != nil {
			return err
		}
		salt := make([]byte, saltLength)
		_, _ = rand.Read(salt) // never fails, see crypto/rand
		verifier, err := scramVerifier(password, salt, rounds)
		if err != nil {
			return fmt.Errorf("setting the password of role %s: %w", role, err)
		}
		value = "'" + verifier + "'" // base64, digits, $ and : have nothing to escape
	}
	if _, err := conn.Exec(ctx, "ALTER ROLE "+quote(role)+" PASSWORD "+value); err != nil {
		return fmt.Errorf("setting the password of role %s: %w", role, withoutStatement(err))
	}
	if password != "" {
		return nil
	}
	if _, err := conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()", role); err != nil {
		return fmt.Errorf("ending the sessions of role %s: %w", role, err)
	}
	return nil
}

// Sessions counts the connections that logged in as a role, but for conn itself.
func Sessions(ctx context.Context, conn *pgx.Conn, role string) (n int, err error) {
	err = conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()", role).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting the sessions of role %s: %w", role, err)
	}
	return n, nil
}

// Refused tells whether PostgreSQL, or a PgBouncer before it, did not take a user
// name or password.
func Refused(err error) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch refusal.Code {
	case invalidPassword, "28000":
		return true
	case "08P01": // PgBouncer 1.18 has one code for everything
		return refusal.Message == "SASL authentication failed" || refusal.Message == "no such user"
	}
	return false
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// withoutStatement keeps what PostgreSQL quotes of a statement out of an error.
func withoutStatement(err error) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return errors.New("SQLSTATE " + refused.Code)
	}
	return err
}

// hasPassword tells whether the password is the one that a role has.
func hasPassword(ctx context.Context, conn *pgx.Conn, role, password string) (bool, error) {
	var has string
	err := conn.QueryRow(ctx, "SELECT COALESCE((SELECT rolpassword FROM pg_authid WHERE rolname = $1), '')", role).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("looking for the password of role %s: %w", role, err)
	}
	var iterations int
	var salt string
	if fields := strings.Split(has, "$"); len(fields) == 3 && fields[0] == scramName {
		number, text, _ := strings.Cut(fields[1], ":")
		iterations, _ = strconv.Atoi(number)
		salt = text
	}
	decoded, err := base64.StdEncoding.DecodeString(salt)
	if err != nil || iterations < 1 {
		return false, nil //nolint:nilerr // it has none, or one of another kind
	}
	want, err := scramVerifier(password, decoded, iterations)
	return err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(has)) == 1, err
}

const scramName = "SCRAM-SHA-256"

// scramVerifier is what PostgreSQL stores of a password (RFC 5802, RFC 7677).
func scramVerifier(password string, salt []byte, iterations int) (string, error) {
	// As PostgreSQL does: what cannot be prepared is taken as it is.
	if prepared, err := precis.OpaqueString.String(password); err == nil {
		password = prepared
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("deriving key: %w", err)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(scramName+"$%d:%s$%s:%s", iterations, encode(salt), encode(stored[:]), encode(mac(salted, "Server Key"))), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

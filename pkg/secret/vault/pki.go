package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/vault/api"
)

// PKI is the engine that signs devices' certificates (design 9).
type PKI struct {
	Mount  string // path of the engine, such as pki
	Import string // directory with issuer.crt, issuer.key and root.crt; "": Vault makes a root and an issuer
}

const (
	year       = 365 * 24 * time.Hour
	rootLife   = 20 * year
	issuerLife = 10 * year // and the engine's longest lease
	deviceLife = year
	backdate   = time.Hour
	rootSuffix = "-root" // the engine that holds the root which Vault makes
)

func (a *admin) pki(ctx context.Context) ([]item, error) {
	if a.PKI == nil {
		return nil, nil
	}
	has, err := a.hasIssuers(ctx, a.PKI.Mount)
	if err != nil {
		return nil, fmt.Errorf("listing the issuers of %s/: %w", a.PKI.Mount, explain(err))
	}
	items := []item{pkiEngine(a, a.PKI.Mount, issuerLife)}
	switch root := a.PKI.Mount + rootSuffix; {
	case has:
		items = append(items, item{what: "issuer of " + a.PKI.Mount + "/", look: func(context.Context) (Change, error) { return Unchanged, nil }})
	case a.PKI.Import != "":
		items = append(items, a.importIssuer())
	default: // No key leaves Vault.
		items = append(items, pkiEngine(a, root, rootLife), item{
			what: "root of " + root + "/",
			look: func(ctx context.Context) (Change, error) {
				has, err := a.hasIssuers(ctx, root)
				return unless(has), err
			},
			write: func(ctx context.Context, _ Change) error {
				return a.put(ctx, root+"/root/generate/internal", map[string]any{
					"common_name": "f2mesh root", "key_type": "ec", "key_bits": 256, "ttl": rootLife.String(), "max_path_length": 1,
				})
			},
		}, item{what: "issuer of " + a.PKI.Mount + "/, signed by " + root + "/", look: func(context.Context) (Change, error) { return Made, nil }, write: a.signIssuer})
	}
	return append(items,
		a.object("PKI role "+roleDevice, a.PKI.Mount+"/roles/"+roleDevice, deviceRole("ec", 256)),
		a.object("PKI role "+roleDeviceRSA, a.PKI.Mount+"/roles/"+roleDeviceRSA, deviceRole("rsa", 2048))), nil
}

func pkiEngine(a *admin, path string, life time.Duration) item {
	return a.engine(path, api.MountInput{
		Type: "pki", Description: "certificates of f2mesh's devices", Config: api.MountConfigInput{MaxLeaseTTL: life.String()},
	})
}

// hasIssuers returns false also where the engine is not mounted yet.
func (a *admin) hasIssuers(ctx context.Context, mount string) (bool, error) {
	names, err := listKeys(ctx, a.api, mount+"/issuers")
	if status(err) == http.StatusNotFound {
		err = nil
	}
	return len(names) > 0, err
}

// Roles that sign devices' certificates. One that takes any kind of key would also
// take weak ones.
const (
	roleDevice    = "device"
	roleDeviceRSA = "device-rsa"
)

// deviceRole signs what a device may have: its MAC with dashes as the common
// name, no other names, client authentication alone; bits are the least.
func deviceRole(keyType string, bits int) map[string]any {
	return map[string]any{
		"allowed_serial_numbers":      []string{"*"}, // of the subject: the device's, not the certificate's
		"allow_wildcard_certificates": false,
		"allowed_domains":             []string{"*-*-*-*-*-*"},
		"allow_glob_domains":          true,
		"allow_bare_domains":          true,
		"allow_any_name":              false,
		"allow_localhost":             false,
		"allow_ip_sans":               false,
		"allow_subdomains":            false,
		"enforce_hostnames":           true,
		"use_csr_common_name":         false, // the registrar names the device, not its request
		"use_csr_sans":                false,
		"server_flag":                 false,
		"client_flag":                 true,
		"code_signing_flag":           false,
		"key_type":                    keyType,
		"key_bits":                    bits,
		"key_usage":                   []string{"DigitalSignature"},
		"require_cn":                  true,
		"ttl":                         int(deviceLife.Seconds()),
		"max_ttl":                     int(deviceLife.Seconds()),
		"not_before_duration":         int(backdate.Seconds()),
	}
}

// importIssuer gives the mesh's own issuing CA to Vault.
func (a *admin) importIssuer() item {
	var bundle []byte
	return item{
		what: "issuer of " + a.PKI.Mount + "/, from " + a.PKI.Import,
		look: func(context.Context) (Change, error) {
			for _, name := range []string{"issuer.key", "issuer.crt", "root.crt"} {
				data, err := os.ReadFile(filepath.Join(a.PKI.Import, name)) //nolint:gosec // the operator names the directory
				if err != nil {
					return "", err
				}
				bundle = append(bundle, data...)
			}
			return Made, nil
		},
		write: func(ctx context.Context, _ Change) error {
			return a.addIssuer(ctx, "issuers/import/bundle", map[string]any{"pem_bundle": string(bundle)})
		},
	}
}

// signIssuer has the engine of the root sign a new issuer.
func (a *admin) signIssuer(ctx context.Context, _ Change) error {
	request, err := a.api.Logical().WriteWithContext(ctx, a.PKI.Mount+"/intermediate/generate/internal", map[string]any{
		"common_name": "f2mesh issuer", "key_type": "ec", "key_bits": 256,
	})
	if err != nil {
		return err
	}
	csr, _ := field(request, "csr")
	signed, err := a.api.Logical().WriteWithContext(ctx, a.PKI.Mount+rootSuffix+"/root/sign-intermediate", map[string]any{
		"csr": csr, "common_name": "f2mesh issuer", "ttl": issuerLife.String(), "max_path_length": 0, "format": "pem_bundle",
	})
	if err != nil {
		return err
	}
	bundle, _ := field(signed, "certificate")
	return a.addIssuer(ctx, "intermediate/set-signed", map[string]any{"certificate": bundle})
}

// addIssuer adds certificates to the engine. The one whose key is there signs from now
// on; the root comes without its key.
func (a *admin) addIssuer(ctx context.Context, path string, fields map[string]any) error {
	answer, err := a.api.Logical().WriteWithContext(ctx, a.PKI.Mount+"/"+path, fields)
	if err != nil {
		return err
	}
	keys, _ := answer.Data["mapping"].(map[string]any)
	for issuer, key := range keys {
		if text, _ := key.(string); text != "" {
			return a.put(ctx, a.PKI.Mount+"/config/issuers", map[string]any{"default": issuer})
		}
	}
	return errors.New("the issuer's key does not belong to its certificate")
}

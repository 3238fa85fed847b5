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

func (a *admin) pki(ctx context.Context) error {
	if a.PKI == nil {
		return nil
	}
	if err := a.pkiEngine(ctx, a.PKI.Mount, issuerLife); err != nil {
		return err
	}
	issuers, err := a.issuers(ctx, a.PKI.Mount)
	if err != nil {
		return err
	}
	switch {
	case len(issuers) > 0:
		err = a.step("issuer of "+a.PKI.Mount+"/", Unchanged, nil)
	case a.PKI.Import != "":
		err = a.importIssuer(ctx)
	default:
		err = a.generate(ctx)
	}
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name, keyType string
		bits          int
	}{{roleDevice, "ec", 256}, {roleDeviceRSA, "rsa", 2048}} {
		if err := a.object(ctx, "PKI role "+r.name, a.PKI.Mount+"/roles/"+r.name, deviceRole(r.keyType, r.bits)); err != nil {
			return err
		}
	}
	return nil
}

func (a *admin) pkiEngine(ctx context.Context, path string, life time.Duration) error {
	return a.engine(ctx, path, api.MountInput{
		Type: "pki", Description: "certificates of f2mesh's devices", Config: api.MountConfigInput{MaxLeaseTTL: life.String()},
	})
}

// issuers is empty also where the engine is not mounted yet.
func (a *admin) issuers(ctx context.Context, mount string) ([]string, error) {
	names, err := a.list(ctx, mount+"/issuers")
	if status(err) == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the issuers of %s/: %w", mount, explain(err))
	}
	return names, nil
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

// importIssuer hands the mesh's own issuing CA to Vault.
func (a *admin) importIssuer(ctx context.Context) error {
	var bundle []byte
	for _, name := range []string{"issuer.key", "issuer.crt", "root.crt"} {
		data, err := os.ReadFile(filepath.Join(a.PKI.Import, name)) //nolint:gosec // the operator names the directory
		if err != nil {
			return fmt.Errorf("reading the issuer to import: %w", err)
		}
		bundle = append(bundle, data...)
	}
	what := fmt.Sprintf("issuer of %s/, from %s", a.PKI.Mount, a.PKI.Import)
	return a.step(what, Made, func() error {
		answer, err := a.api.Logical().WriteWithContext(ctx, a.PKI.Mount+"/issuers/import/bundle", map[string]any{"pem_bundle": string(bundle)})
		if err != nil {
			return err
		}
		keys, _ := answer.Data["mapping"].(map[string]any)
		for issuer, key := range keys {
			if text, _ := key.(string); text != "" { // the root comes without its key
				return a.useIssuer(ctx, issuer)
			}
		}
		return errors.New("issuer.key does not belong to issuer.crt")
	})
}

// generate makes a root in an engine of its own, which signs one issuer. No key
// leaves Vault.
func (a *admin) generate(ctx context.Context) error {
	root := a.PKI.Mount + rootSuffix
	if err := a.pkiEngine(ctx, root, rootLife); err != nil {
		return err
	}
	roots, err := a.issuers(ctx, root)
	if err != nil {
		return err
	}
	change := Made
	if len(roots) > 0 {
		change = Unchanged
	}
	err = a.step("root of "+root+"/", change, func() error {
		_, err := a.api.Logical().WriteWithContext(ctx, root+"/root/generate/internal", map[string]any{
			"common_name": "f2mesh root", "key_type": "ec", "key_bits": 256, "ttl": rootLife.String(), "max_path_length": 1,
		})
		return err
	})
	if err != nil {
		return err
	}
	return a.step("issuer of "+a.PKI.Mount+"/, signed by "+root+"/", Made, func() error { return a.issuer(ctx, root) })
}

func (a *admin) issuer(ctx context.Context, root string) error {
	request, err := a.api.Logical().WriteWithContext(ctx, a.PKI.Mount+"/intermediate/generate/internal", map[string]any{
		"common_name": "f2mesh issuer", "key_type": "ec", "key_bits": 256,
	})
	if err != nil {
		return err
	}
	csr, _ := field(request, "csr")
	signed, err := a.api.Logical().WriteWithContext(ctx, root+"/root/sign-intermediate", map[string]any{
		"csr": csr, "common_name": "f2mesh issuer", "ttl": issuerLife.String(), "max_path_length": 0, "format": "pem_bundle",
	})
	if err != nil {
		return err
	}
	bundle, _ := field(signed, "certificate")
	set, err := a.api.Logical().WriteWithContext(ctx, a.PKI.Mount+"/intermediate/set-signed", map[string]any{"certificate": bundle})
	if err != nil {
		return err
	}
	keys, _ := set.Data["mapping"].(map[string]any)
	for issuer, key := range keys {
		if text, _ := key.(string); text != "" {
			return a.useIssuer(ctx, issuer)
		}
	}
	return errors.New("vault has not matched the issuer with its key")
}

func (a *admin) useIssuer(ctx context.Context, id string) error {
	_, err := a.api.Logical().WriteWithContext(ctx, a.PKI.Mount+"/config/issuers", map[string]any{"default": id})
	return err
}

// Package vault holds the policies of the mesh's services, one file each.
// `f2mesh vault bootstrap` writes them to a Vault; `vault policy write` takes
// them as they are.
package vault

import "embed"

// Policies holds <service>.hcl, for the KV engine at secret/, the PKI engine at
// pki/ and the database engine at database/.
//
//go:embed *.hcl
var Policies embed.FS

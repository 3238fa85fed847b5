package main

import (
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

// issuerFlags say who signs devices' certificates.
type issuerFlags struct {
	Issuer string `help:"Who signs devices' certificates (${enum})." env:"F2MESH_ISSUER" default:"files" enum:"files,vault"`
}

func (f *issuerFlags) open(st state, _ *keeper, _ *slog.Logger) (identity.Issuer, error) {
	return identity.OpenAuthority(st.path("pki"))
}

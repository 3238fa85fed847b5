package identity

import (
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseRequest parses the request of somebody who is not trusted yet, and lists.
func FuzzParseRequest(f *testing.F) {
	_, csr, err := NewRequest()
	require.NoError(f, err)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n\n-----END CERTIFICATE REQUEST-----\n"))
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		csr, err := ParseRequest(text)
		if err != nil {
			require.ErrorIs(t, err, ErrRequest)
		} else {
			require.NotNil(t, csr)
		}
		_, _ = ParseLists(text)
	})
}

package est

import (
	"bytes"
	"encoding/base64"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is accepted has a key, a right signature, and is small; nothing panics, and
// no error repeats what was sent.
func FuzzRequest(f *testing.F) {
	good := base64.StdEncoding.EncodeToString(newCSR(f, newKey(f), named(device.Dashed())))
	for _, seed := range []string{"", good, good[:40], "\r\n" + good + " ", "-----BEGIN CERTIFICATE REQUEST-----", "MIIB\x00", strings.Repeat("=", 9)} {
		f.Add([]byte(seed), "application/pkcs10")
	}
	f.Add([]byte(good), "application/pkcs10; a=\xff")
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		read, refusal := readBody(r)
		if refusal != nil {
			assert.GreaterOrEqual(t, refusal.status, 400)
			return
		}
		csr, err := parseCSR(read)
		if err != nil {
			assert.Contains(t, []error{errBase64, errCSR, errKey}, err)
			return
		}
		assert.NotNil(t, csr.PublicKey)
		require.NoError(t, csr.CheckSignature())
		_ = namesDevice(csr.Subject, device)
		assert.True(t, sameName(csr.Subject, csr.Subject))
	})
}

package est

import (
	"bytes"
	"crypto/tls"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
)

func tlsVersion(v uint16) *tls.Config {
	return &tls.Config{MinVersion: v, MaxVersion: v, InsecureSkipVerify: true} // looks at versions alone
}

func (b *bench) dial(config *tls.Config) error {
	conn, err := (&tls.Dialer{Config: config}).DialContext(b.t.Context(), "tcp", b.address)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

func (b *bench) serverSerial() string {
	conn, err := (&tls.Dialer{Config: tlsVersion(tls.VersionTLS13)}).DialContext(b.t.Context(), "tcp", b.address)
	require.NoError(b.t, err)
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// shell runs commands in dir as a person would.
func (b *bench) shell(script string) (string, error) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), "sh", "-euc", script)
	cmd.Dir = b.dir
	cmd.Env = append(cmd.Environ(), "EST="+strings.TrimSuffix(b.url, "/"), "MAC="+device.Dashed())
	cmd.Stdin = strings.NewReader("user = \"" + device.Dashed() + ":" + code + "\"\n") // for curl --config -
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// A device that has nothing but curl and openssl enrols, and enrols again.
func TestCurlAndOpenSSL(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			accounttest.SkipMissing(t, err)
		}
	}
	b := newBench(t, wide)
	out, err := b.shell(`
curl -sSf --cacert ca.crt "$EST/cacerts" | openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out trusted.pem
grep -c 'BEGIN CERTIFICATE' trusted.pem

openssl ecparam -name prime256v1 -genkey -noout -out device.key
openssl req -new -key device.key -subj "/CN=$MAC" -outform DER | openssl base64 > device.p10
curl -sSf --cacert trusted.pem --config - -H 'Content-Type: application/pkcs10' --data-binary @device.p10 "$EST/simpleenroll" |
  openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out device.crt
openssl verify -CAfile trusted.pem -purpose sslclient device.crt

openssl ecparam -name prime256v1 -genkey -noout -out next.key
subject=$(openssl x509 -in device.crt -noout -subject -nameopt compat | sed 's/^subject=//')
openssl req -new -key next.key -subj "$subject" -outform DER | openssl base64 > next.p10
curl -sSf --cacert trusted.pem --cert device.crt --key device.key -H 'Content-Type: application/pkcs10' --data-binary @next.p10 "$EST/simplereenroll" |
  openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out next.crt
openssl verify -CAfile trusted.pem -purpose sslclient next.crt
openssl x509 -in next.crt -noout -subject
`)
	require.NoError(t, err, out)
	assert.Contains(t, out, "2\n")
	assert.Contains(t, out, "device.crt: OK")
	assert.Contains(t, out, "next.crt: OK")
	assert.Contains(t, out, device.Dashed())
	assert.FileExists(t, filepath.Join(b.dir, "next.crt"))

	out, err = b.shell(`curl -sSf --cacert ca.crt --config - -H 'Content-Type: application/pkcs10' --data-binary @device.p10 "$EST/simpleenroll"`)
	require.Error(t, err, "the control: the code was used")
	assert.Contains(t, out, "401")
}

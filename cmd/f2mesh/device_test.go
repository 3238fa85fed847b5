package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/services/registrar"
)

// devicesFromCommandLine enrols, looks at, exports and shuts out devices of the
// running mesh, as people and standard tools do.
func devicesFromCommandLine(t *testing.T, f2mesh func(...string) (string, error)) {
	t.Helper()
	works := func(args ...string) string {
		t.Helper()
		out, err := f2mesh(append([]string{"device"}, args...)...)
		require.NoError(t, err, "%v: %s", args, out)
		return out
	}
	fails := func(cause string, args ...string) {
		t.Helper()
		out, err := f2mesh(append([]string{"device"}, args...)...)
		require.Error(t, err, "%v: %s", args, out)
		assert.Contains(t, out, cause)
	}
	dir := t.TempDir()
	const mac, number = "e4fd45f65401", "--serial-number=SN-1"
	fails("serial-number", "register", mac)
	fails("not a MAC", "register", "e4fd45f6540", number)
	assert.Contains(t, works("register", mac, number, "--dry-run"), "would be registered")
	assert.Contains(t, works("register", "E4:FD:45:F6:54:01", number), "e4-fd-45-f6-54-01 is registered: certificate")
	assert.Contains(t, works("register", mac, number), "nothing changed")
	fails("--force", "register", mac, "--serial-number=SN-2")
	fails("--force", "register", mac, "--serial-number=SN-2", "--dry-run")
	assert.Contains(t, works("register", mac, "--serial-number=SN-2", "--force", "--dry-run"), "would be revoked")
	assert.Regexp(t, `serial number +SN-1`, works("show", mac))
	assert.Contains(t, works("renew", mac), "renewed")
	assert.Empty(t, works("renew", "--due"))

	bundle := filepath.Join(dir, "bundle")
	works("export", mac, "--to="+bundle)
	publish := func() error {
		env, err := f2mesh("env")
		require.NoError(t, err)
		port := shellVariable(env, "MQTT_TLS_PORT")
		cmd := exec.CommandContext(t.Context(), "mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-q", "1",
			"--cafile", filepath.Join(bundle, "ca.crt"), "--cert", filepath.Join(bundle, "device.crt"), "--key", filepath.Join(bundle, "device.key"),
			"-t", "tele/f2-"+mac+"/alarm-mode/J1/motion-sensor-1", "-m", fmt.Sprintf(`{"timestamp":%q,"status":true}`, time.Now().UTC().Format(time.DateTime)))
		return cmd.Run()
	}
	require.NoError(t, publish(), "mosquitto_pub with an exported bundle")

	assert.Contains(t, works("rotate-ca", "--dry-run"), "nothing was done")
	assert.Contains(t, works("rotate-ca"), "f2mesh issuing CA 2")
	require.NoError(t, publish(), "the old issuing CA is still trusted")

	list := filepath.Join(dir, "list.csv")
	require.NoError(t, os.WriteFile(list, []byte("mac,serial_number\ne4fd45f65402,SN-2\nnonsense,SN-3\ne4fd45f65403,SN-4\n"), 0o600))
	fails("name each controller that is to be replaced", "register", "--from="+list, "--force")
	fails("2 would be registered, 0 are registered already, 1 lines would be refused; nothing was done", "register", "--from="+list, "--dry-run")
	fails("list.csv:3:", "register", "--from="+list, "--dry-run")
	assert.NotContains(t, works("list"), "SN-4", "the dry run registered")
	fails("2 registered, 0 were registered already, 1 lines refused", "register", "--from="+list)
	fails("list.csv:3:", "register", "--from="+list)
	fails("0 would be registered, 2 are registered already", "register", "--from="+list, "--dry-run")

	var devices []registrar.Device
	out := works("list", "--json")
	require.NoError(t, json.Unmarshal([]byte(out), &devices), out)
	require.Len(t, devices, 2+3)
	assert.NotEqual(t, devices[1].Issuer, devices[2].Issuer, "the list came after the rotation")

	assert.Contains(t, works("revoke", mac, "--dry-run"), "would be revoked")
	require.NoError(t, publish())
	fails("not registered", "revoke", "e4fd45f654ff")
	assert.Contains(t, works("revoke", mac, "--reason=key-compromise"), "is revoked since")
	require.Error(t, publish())
	fails("was revoked", "register", mac, number)
	assert.Regexp(t, `e4-fd-45-f6-54-01 +SN-1 +revoked`, works("list"))
}

// shellVariable takes a value out of what `f2mesh env` prints.
func shellVariable(env, name string) string {
	for line := range strings.Lines(env) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "export "+name+"="); ok {
			return strings.Trim(value, "'")
		}
	}
	return ""
}

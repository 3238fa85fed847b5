package doctor

import "os"

// VulncheckCommand is the command that looks this program up, in a clone of the project.
func VulncheckCommand() []string {
	self, err := os.Executable()
	if err != nil || !exists("tools/run") || !exists("tools/govulncheck/go.mod") {
		return nil
	}
	return []string{"tools/run", "govulncheck", "-mode=binary", self}
}

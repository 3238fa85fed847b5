package mosquitto

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Version is a release of Mosquitto.
type Version struct{ Major, Minor, Patch int }

var versionPattern = regexp.MustCompile(`mosquitto version (\d+)\.(\d+)\.(\d+)`) //nolint:gochecknoglobals // a constant

// Installed returns the version of the program that Start would run.
func Installed(ctx context.Context) (Version, error) {
	program, err := find()
	if err != nil {
		return Version{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// It prints its usage and exits with a status of its own choice.
	output, err := exec.CommandContext(ctx, program, "-h").CombinedOutput() //nolint:gosec // the program that find found
	v, ok := ParseVersion(string(output))
	if !ok {
		return Version{}, errors.Join(fmt.Errorf("asking %s for its version: no version in its answer", program), err)
	}
	return v, nil
}

// ParseVersion finds the version in what a Mosquitto says of itself, such as
// "mosquitto version 2.0.11".
func ParseVersion(text string) (v Version, ok bool) {
	match := versionPattern.FindStringSubmatch(text)
	if match == nil {
		return Version{}, false
	}
	for i, part := range []*int{&v.Major, &v.Minor, &v.Patch} {
		n, err := strconv.Atoi(match[i+1])
		if err != nil {
			return Version{}, false
		}
		*part = n
	}
	return v, true
}

// AllSpellings reports whether a broker of this version is granted all spellings
// of a controller's MAC. Before 2.1 the reading of an ACL takes a time that grows
// with the square of its length, so such a broker gets two.
func (v Version) AllSpellings() bool { return v.Major > 2 || v.Major == 2 && v.Minor >= 1 }

// spellings are those of a controller's MAC that an ACL grants.
type spellings func(topic.MAC) []string

// allSpellings are the six of the design.
func allSpellings(mac topic.MAC) []string { return mac.Spellings() }

// twoSpellings are lower case, bare and with dashes.
func twoSpellings(mac topic.MAC) []string { return []string{string(mac), mac.Dashed()} }

// granted returns the spellings for the installed broker; without one those that
// every version can afford.
func granted(ctx context.Context) (spellings, error) {
	v, err := Installed(ctx)
	switch {
	case errors.Is(err, ErrNotInstalled):
		return twoSpellings, nil
	case err != nil:
		return nil, err
	case v.AllSpellings():
		return allSpellings, nil
	}
	return twoSpellings, nil
}

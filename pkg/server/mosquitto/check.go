package mosquitto

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// checkACL reads a list of controllers as the broker does, and more strictly: each
// is named once, and is granted topics of its own MAC and nothing else.
func checkACL(list []byte) error {
	c := aclChecker{seen: map[topic.MAC]bool{}}
	lines := bufio.NewScanner(bytes.NewReader(list))
	for number := 1; lines.Scan(); number++ {
		if err := c.line(lines.Text()); err != nil {
			return fmt.Errorf("line %d of the ACL: %w", number, err)
		}
	}
	return lines.Err()
}

type aclChecker struct {
	seen map[topic.MAC]bool
	mac  topic.MAC // whose entry we are in
}

func (c *aclChecker) line(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
		return nil
	case word == "user":
		return c.user(rest)
	case word == "topic":
		access, name, _ := strings.Cut(rest, " ")
		return c.grant(access, name)
	}
	return fmt.Errorf("%q is neither a user nor a topic", word)
}

func (c *aclChecker) user(name string) error {
	mac, err := topic.ParseMAC(name)
	switch {
	case err != nil || mac.Dashed() != name:
		return fmt.Errorf("%q is not a MAC with dashes", name)
	case c.seen[mac]:
		return fmt.Errorf("%s has two entries", name)
	}
	c.mac, c.seen[mac] = mac, true
	return nil
}

// grant accepts what a controller's components need (design 2).
func (c *aclChecker) grant(access, name string) error {
	root, rest, _ := strings.Cut(name, "/")
	device, below, _ := strings.Cut(rest, "/")
	if c.mac == "" || !slices.Contains(c.mac.Spellings(), strings.TrimPrefix(device, "f2-")) || !strings.HasPrefix(device, "f2-") {
		return fmt.Errorf("%q is not a topic of %q", name, c.mac)
	}
	switch access + " " + root + " " + below {
	case "write tele #", "write stat #", "write cmnd sensor-mode/+/+", "read cmnd #":
		return nil
	}
	return fmt.Errorf("%q is not for a controller to %s", name, access)
}

// checkTrust tells whether the CAs and revocation lists are some that OpenSSL lets
// controllers in by: each issuing CA has a list that it signed and that holds now.
func checkTrust(cas, crl []byte, now time.Time) error {
	authorities, err := parseCertificates(cas)
	if err != nil {
		return fmt.Errorf("CAs: %w", err)
	}
	lists, err := identity.ParseLists(crl)
	if err != nil {
		return err
	}
	for _, ca := range authorities {
		if err := checkList(ca, lists, now); err != nil {
			return err
		}
	}
	for _, list := range lists {
		if !signedByOne(list, authorities) {
			return errors.New("revocation list: signed by none of the CAs")
		}
	}
	return nil
}

// checkList is about CAs that sign devices: a root that does not needs no list.
func checkList(ca *x509.Certificate, lists []*x509.RevocationList, now time.Time) error {
	for _, list := range lists {
		if list.CheckSignatureFrom(ca) != nil {
			continue
		}
		if now.Before(list.ThisUpdate) || !now.Before(list.NextUpdate) {
			return fmt.Errorf("revocation list of %q: it holds from %s to %s", ca.Subject.CommonName, list.ThisUpdate, list.NextUpdate)
		}
		return nil
	}
	if ca.CheckSignatureFrom(ca) == nil && ca.MaxPathLen > 0 {
		return nil
	}
	return fmt.Errorf("revocation list of %q is missing", ca.Subject.CommonName)
}

func signedByOne(list *x509.RevocationList, authorities []*x509.Certificate) bool {
	for _, ca := range authorities {
		if list.CheckSignatureFrom(ca) == nil {
			return true
		}
	}
	return false
}

func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate")
	}
	return all, nil
}

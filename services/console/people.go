package console

import (
	"regexp"

	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// administrator may do everything, also where the access file is not as it should be. The
// password is that of the health API. An access file may name somebody else so.
const administrator = "admin"

// person is somebody who may sign in.
type person struct {
	Name string
	// secret is the name of the secret that is the password.
	secret string
	// named is set for the people of the access file.
	named bool
}

// secretName is what a name must be to be part of the name of a secret.
var secretName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`) //nolint:gochecknoglobals // a constant

// find returns the person of a name; false if nobody has it.
func (c *Console) find(name string) (person, bool) {
	for _, one := range c.access.Policy().People() {
		if one.Name == name && secretName.MatchString(name) {
			return person{Name: name, secret: "person_" + name + "_password", named: true}, true
		}
	}
	return person{Name: administrator, secret: credential.HealthAPI}, name == administrator
}

// allowed reports whether somebody may do something, and why not.
func (c *Console) allowed(s *session, right access.Right, of access.Place) (ok bool, reason string) {
	policy := c.access.Policy()
	if !s.person.named {
		return true, ""
	}
	if !policy.Restricted() {
		return false, "the access file is gone"
	}
	return policy.Allowed(s.person.Name, right, of)
}

// sees returns what tells whether somebody may look at a controller.
func (c *Console) sees(s *session) func(*device) bool {
	policy := c.access.Policy()
	return func(d *device) bool {
		if !s.person.named {
			return true
		}
		ok, _ := policy.Allowed(s.person.Name, access.View, access.Place{MAC: d.MAC, Name: d.Name})
		return ok
	}
}

// roleOf is a person's role, for people to read.
func (c *Console) roleOf(s *session) access.Role {
	if !s.person.named {
		return access.Admin
	}
	for _, one := range c.access.Policy().People() {
		if one.Name == s.person.Name {
			return one.Role
		}
	}
	return ""
}

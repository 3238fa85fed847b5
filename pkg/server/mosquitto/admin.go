package mosquitto

import (
	"context"
	"errors"
)

// Admin changes the users of a running broker, which this or any other process
// started from our files. It is safe for concurrent use, also by several processes.
type Admin struct {
	// Dir is the broker's folder; Address and People are host and port of its listeners
	// for services and for people's tools.
	Dir, Address, People string
}

// SetPassword is the package's function of that name.
func (a Admin) SetPassword(_ context.Context, user, password string) error {
	return SetPassword(a.Dir, user, password)
}

// LogIn tells whether the broker lets a user in.
func (a Admin) LogIn(ctx context.Context, user, password string) (bool, error) {
	address := a.Address
	if !isService(user) {
		address = a.People
	}
	err := LogIn(ctx, address, user, password)
	if errors.Is(err, ErrRefused) {
		return false, nil
	}
	return err == nil, err
}

// Package mosquitto holds the broker's configuration files, which a stand-alone
// Mosquitto takes as they are. pkg/server/mosquitto runs a broker from them.
package mosquitto

import _ "embed"

// Conf is the configuration file, with the folders of the container image.
//
//go:embed mosquitto.conf
var Conf string

// InternalACL is the access control list of the listeners for services.
//
//go:embed internal.acl
var InternalACL []byte

// Package pgbouncer holds the connection pooler's configuration, which a
// stand-alone PgBouncer takes as it is. pkg/server/pgbouncer runs a pooler from it.
package pgbouncer

import _ "embed"

// Conf is the configuration file, with the folders of the container image.
//
//go:embed pgbouncer.ini
var Conf string

// AuthSQL lets the pooler look up the passwords of those who may come through it.
// A superuser runs it in each database of Conf, as often as he likes.
//
//go:embed auth.sql
var AuthSQL string

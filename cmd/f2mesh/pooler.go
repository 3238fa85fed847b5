package main

// poolingFlags choose between the two ways to PostgreSQL.
type poolingFlags struct {
	Pooling bool `help:"Connect to PostgreSQL through PgBouncer, except where a session is needed." env:"USE_CONNECTION_POOLING" default:"true" negatable:"" name:"connection-pooling"`
}

// choose answers the DSN of the pooler, or none if it is not to be used.
func (f poolingFlags) choose(pooledDSN string) string {
	if !f.Pooling {
		return ""
	}
	return pooledDSN
}

# The health service reads its API's and its NATS password; the console, which it serves, its own
# NATS password, that of the databases' reader, and those of the people who sign in.
path "secret/data/f2mesh/health_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/nats_health_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/nats_console_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/postgres_reader_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/person_*" {
  capabilities = ["read"]
}

# Its own token: keep it alive, look whether it still is, give it back.
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

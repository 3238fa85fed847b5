# The keeper reads its NATS password, and nothing else.
path "secret/data/f2mesh/nats_keeper_password" {
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

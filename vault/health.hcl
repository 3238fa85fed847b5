# The health service reads its API's and its NATS password, and nothing else.
path "secret/data/f2mesh/health_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/nats_health_password" {
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

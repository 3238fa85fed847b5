# The alarm service reads its NATS password and its receivers' addresses and passwords, and nothing else.
path "secret/data/f2mesh/nats_alarm_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/alarm_receiver_*" {
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

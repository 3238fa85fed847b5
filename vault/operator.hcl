# The operator rotates: reads every secret of the mesh and writes new versions. It cannot delete or
# destroy one: an old version stays as long as KV keeps it.
path "secret/data/f2mesh/*" {
  capabilities = ["create", "read", "update"]
}
path "secret/metadata/f2mesh" {
  capabilities = ["list"]
}
path "secret/metadata/f2mesh/*" {
  capabilities = ["list", "read"]
}

# Short-lived users of the database for people (--database).
path "database/creds/reader" {
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

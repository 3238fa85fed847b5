# The registrar reads its MQTT, NATS and registry passwords, and has devices' certificates signed.
path "secret/data/f2mesh/mqtt_registrar_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/nats_registrar_password" {
  capabilities = ["read"]
}
path "secret/data/f2mesh/registry_password" {
  capabilities = ["read"]
}

# Where Vault is the issuer (--pki): sign a device's request, with what the roles `device` and, for
# RSA keys, `device-rsa` permit, and the lists of revoked certificates: also that of an issuer before
# the present one.
path "pki/sign/device" {
  capabilities = ["update"]
}
path "pki/sign/device-rsa" {
  capabilities = ["update"]
}
path "pki/issuer/+/sign-revocation-list" {
  capabilities = ["update"]
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

# The Vault of compose.yaml: one server, its data on its own volume, TLS only.
ui            = false
cluster_name  = "f2mesh"
api_addr      = "https://vault:8200"
cluster_addr  = "https://vault:8201"

# Locking memory takes a capability that the container does not have. What keeps secrets from the
# disk instead is that the container has no swap (memswap_limit).
disable_mlock = true

storage "raft" {
  path    = "/vault/file"
  node_id = "vault"
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "127.0.0.1:8201"
  tls_cert_file   = "/vault/tls/server.crt"
  tls_key_file    = "/vault/tls/server.key"
  tls_min_version = "tls12"
}

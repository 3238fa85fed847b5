package doctor

import (
	"context"
	"fmt"
)

// Checks returns all checks, in the order in which they run.
func Checks() List {
	const (
		authentication = "Authentication tests"
		privilege      = "Best practices: least privilege"
		certificates   = "Production Hardening: Certificate management"
		encryption     = "Production Hardening: TLS encryption"
		passwords      = "Secrets Management: Password Requirements"
		brokerLogin    = "MQTT Authentication: Testing"
		brokerDesign   = "MQTT Authentication: Security Architecture"
		deviceLogin    = "mTLS Device Authentication"
		databaseLogin  = "Database Security: Access Control"
		loginsLogged   = "Monitoring: failed authentication attempts logged"
		limits         = "Resource limits"
		losses         = "Known loss defaults" // the guide has no section for them

		restart  = "Restart the mesh with `f2mesh down` and `f2mesh up`."
		rewrite  = restart + " This writes " // and the file that has to be as shipped
		reload   = ", and run `SELECT pg_reload_conf()`."
		onlyHTTP = restart + " No other program may listen on the health API's port."
		onlyEST  = restart + " Keep the defaults of --est-…. No other program may listen on EST's port."
	)
	return List{
		check("secret-modes", "Secrets Management: Access Control", secretModes,
			"Read the modes of secret files, keys and their directories.",
			"Run `chmod 700` for directories and `chmod 600` for files. Run `f2mesh secret rotate NAME` for what others could have read."),
		check("secret-entropy", passwords, secretEntropy,
			"Count the characters of each password.",
			"Run `f2mesh secret rotate NAME`, which generates a random one."),
		check("secret-unique", passwords, secretUnique,
			"Compare the passwords with each other.",
			"Run `f2mesh secret rotate NAME` for one of them."),
		check("secret-logs", "Security Validation: Logging security", secretLogs,
			"Search the mesh's logs for each password.",
			"Run `f2mesh secret rotate NAME`, delete the log, and report how the password came there."),
		check("secret-arguments", "Credential Management", secretArguments,
			"Search the arguments of all processes for each password.",
			"Run `f2mesh secret rotate NAME`. Pass the name of its file instead of the password."),

		check("mqtt-anonymous", brokerLogin, mqttAnonymous,
			"Connect to 1883, 1884 and 9001 without user and password, and to 8883 without a certificate.",
			rewrite+"mosquitto.conf, with `allow_anonymous false`."),
		check("mqtt-password", brokerLogin, mqttPassword,
			"Connect to 1883, 1884 and 9001 with a wrong password.",
			rewrite+"mosquitto.conf, with `password_file`."),
		check("mqtt-listeners", brokerDesign, mqttListeners,
			"Connect as the operator to 1883, which is for services, and as a service to 1884 and 9001, which are for people.",
			"Run the broker with `f2mesh up` or `f2mesh broker`, and the shipped mosquitto.conf. Then run `f2mesh secret rotate mqtt_operator_password`."),
		check("mqtt-client-id", brokerDesign, mqttClientID,
			"Connect one user twice to 1884 and 9001, with two client ids. The broker replaces both by the user's name, so that the second connection ends the first.",
			rewrite+"mosquitto.conf, with `use_username_as_clientid true` on the socket's listener."),
		check("mqtt-origin", brokerDesign, mqttOrigin,
			"Connect to 9001 from a web page of another host.",
			"Remove the hosts that are not yours from F2MESH_MQTT_ORIGINS. "+restart),
		check("mqtt-connections", limits, mqttConnections,
			"Open many idle connections to 9001 from one address. Read how many files Mosquitto may open: each connection is one.",
			restart+" Only f2mesh may listen on 9001. The hard limit of open files (`ulimit -Hn`) must be above 21,000."),
		check("mqtt-no-certificate", deviceLogin, mqttNoCertificate,
			"Connect to 8883 with a valid password, but without a certificate.",
			rewrite+"mosquitto.conf, with `require_certificate true` on listener 8883."),
		check("mqtt-wrong-certificate", deviceLogin, mqttWrongCertificate,
			"Connect to 8883 with a self-signed certificate of a controller's name.",
			rewrite+"the `cafile` of listener 8883, with the mesh's CAs only."),
		check("mqtt-topic-publish", brokerDesign, mqttPublish,
			"Publish as one controller on the topics of another, and on topics of none.",
			rewrite+"the broker's ACL from the registry."),
		check("mqtt-topic-subscribe", brokerDesign, mqttSubscribe,
			"Subscribe as one controller to the topics of another.",
			rewrite+"the broker's ACL from the registry."),
		check("mqtt-failed-logins", loginsLogged, mqttFailedLogins,
			"Connect with a wrong password, and wait for the line in the broker's log.",
			rewrite+"mosquitto.conf, with `log_type notice`."),

		check("nats-anonymous", authentication, natsAnonymous,
			"Connect without user and password.",
			rewrite+"nats-server.conf, without no_auth_user."),
		check("nats-password", authentication, natsPassword,
			"Connect with a wrong password.",
			rewrite+"passwords.conf."),
		check("nats-tls", encryption, natsTLS,
			"Log in without TLS.",
			rewrite+"nats-server.conf, with its tls block."),
		check("nats-permissions", privilege, natsPermissions,
			"Publish and subscribe as each user on subjects that its work does not need.",
			rewrite+"nats-server.conf, with its accounts."),
		check("nats-replies", privilege, natsReplies,
			"As each user, send a request and create a consumer whose replies go to a subject that the user may not publish on.",
			rewrite+"nats-server.conf: each user is alone in an account, and no account but the operator's may create consumers."),

		check("database-ports", "Database Security: Network Isolation", databasePorts,
			"List the addresses on which PostgreSQL and PgBouncer listen.",
			restart+" PostgreSQL and PgBouncer listen on loopback then. For a PostgreSQL of your own, set listen_addresses."),
		check("database-tls", databaseLogin, databaseTLS,
			"Log in without TLS.",
			"Keep only hostssl lines in pg_hba.conf"+reload),
		check("database-password", authentication, databasePassword,
			"Log in without a password, and with a wrong one.",
			"Set scram-sha-256 in every line of pg_hba.conf"+reload),
		check("database-privileges", privilege, databasePrivileges,
			"Run statements as each role that its work does not need.",
			"Run `REVOKE` for each privilege that is named."),
		check("database-failed-logins", loginsLogged, failedLogins,
			"Log in to PostgreSQL and NATS with wrong passwords, and wait for the lines in the mesh's log.",
			"Set log_min_messages of PostgreSQL to warning or lower, and the log level of f2mesh to error or lower."),
		check("database-pooler", databaseLogin, databasePooler,
			"Log in to PgBouncer without a password, with a wrong one, without TLS, to its console, and as roles that must not use it.",
			"Run `REVOKE f2mesh_pooled FROM ROLE` for each role that is named. "+rewrite+"pgbouncer.ini."),

		check("health-anonymous", authentication, healthAnonymous,
			"Request the health API without a password. Only /healthz returns status 200, and only the word ok.", onlyHTTP),
		check("health-password", authentication, healthPassword,
			"Request the health API with wrong passwords, as Basic and as Bearer.", onlyHTTP),
		check("health-failed-logins", "Production Hardening: Failed logins logged", healthFailedLogins,
			"Request the health API with a wrong password. /status counts it.", onlyHTTP),
		check("health-limits", limits, healthLimits,
			"Send slow, oversized and malformed requests to the health API. Open many connections from one address.", onlyHTTP),

		check("est-limits", limits, estLimits,
			"Send slow, oversized and malformed requests to EST. Open many connections from one address.", onlyEST),
		check("est-guessing", authentication, estGuessing,
			fmt.Sprintf("Send %d wrong claiming codes for one MAC to EST.", mostGuesses), onlyEST),
		check("est-renewal", certificates, estRenewal,
			"Renew a certificate at EST that is not due. The request has no CSR, so that nothing is issued.", onlyEST),

		check("tls-root-key", certificates, tlsRootKey,
			"Look for the root CA's key on this machine.",
			"Move root.key off the machine (docs/operations.md, Install). If it is next to the issuing CA's key: "+restart),
		check("tls-versions", encryption, tlsVersions,
			"Connect to every server with TLS 1.0 and 1.1.",
			"Set `tls_version tlsv1.2` (Mosquitto), `min_version` (NATS) or `ssl_min_protocol_version` (PostgreSQL). "+restart),
		check("tls-ciphers", encryption, tlsCiphers,
			"Connect to every server with RC4, 3DES and key exchange without forward secrecy.",
			"Set `ciphers` (Mosquitto), `cipher_suites` (NATS) or `ssl_ciphers` (PostgreSQL) to AES-GCM and ChaCha20 with ECDHE. "+restart),
		check("tls-certificates", certificates, tlsCertificates,
			"Verify chain, name and dates of each server's certificate, and the dates of the devices' certificates.",
			restart+" This renews the servers' certificates. Run `f2mesh device renew MAC` for each device that is named."),
		check("tls-revocation", certificates, tlsRevocation,
			"Read the broker's revocation lists: one for each issuing CA, none of them expired.",
			restart+" Keep the registrar running: it renews the lists."),

		check("network-listeners", "Network Policies", networkListeners,
			"List the addresses on which the mesh's ports and processes listen.",
			restart+" Only 8883, 8443, 9001 and 8000 listen where --host says, all others on loopback."),
		check("process-users", "Container Security: Non-Root Users", processUsers,
			"Read the users that run Mosquitto, PostgreSQL and f2mesh.",
			"Run `f2mesh up` as an ordinary user, or in its image, which has one."),
		check("container-hardening", "Container Security", containerHardening,
			"Read users, limits, capabilities, file systems, health checks and published ports of the containers.",
			"Run `docker compose up --detach --force-recreate` with compose.yaml as shipped."),

		check("loss-nats-sync", losses, natsSync,
			"Read sync_interval of the running JetStream.",
			rewrite+"nats-server.conf, with `sync_interval: always`."),
		check("loss-broker-queue", losses, brokerQueue,
			"Read persistence, autosave, and the limits of queues and memory in mosquitto.conf.",
			rewrite+"mosquitto.conf. Keep the settings that are named as in mosquitto/mosquitto.conf."),
		check("loss-broker-version", losses, brokerVersion,
			"Publish as a controller with its MAC in upper case, which only Mosquitto 2.1 grants.",
			"Install Mosquitto 2.1. "+restart),
		check("loss-stream-limits", losses, streamLimits,
			"Read each stream's storage, discard policy and limit. Compare all limits with the free disk space.",
			"Run `f2mesh setup --streams`. If the disk is too small, enlarge it, or lower max_bytes in nats/stream_*.json."),
		check("loss-postgres-sync", losses, postgresSync,
			"Read fsync, synchronous_commit and full_page_writes of the running PostgreSQL.",
			"Run `ALTER SYSTEM RESET SETTING` for each setting that is named"+reload),
		check("loss-stream-files", losses, streamFiles,
			"Compare each stream and consumer with its file in nats/.",
			"Run `f2mesh setup --streams`, which creates what is missing. What you changed on purpose may stay."),
		check("loss-days-to-full", losses, daysToFull,
			"Calculate how long RAW and DECODED accept new messages while their readers are stopped.",
			"Declare the fleet's rate with `f2mesh up --rate RATE` (F2MESH_RATE), and provide a disk that is large enough."),

		check("input-injection", "SQL Injection Prevention", inputInjection,
			"Publish SQL in topics and payloads as a controller, wait for the dead letters, and compare the tables before and after.",
			"Run `f2mesh status`: a stage that does not run makes no dead letters. Restore missing tables with `f2mesh restore`."),
		check("program-vulnerabilities", "Best practices: Regular Updates", vulnerabilities,
			"Look this program up in Go's vulnerability database.",
			"Run `go get` for the fixed versions that govulncheck names, and build again."),
		check("vault-secret-ids", "Secrets: access control", vaultSecretIDs,
			"Read how long, and from which networks, the services' SecretIDs are valid.",
			"Run `f2mesh vault bootstrap --cidr NETWORK --reissue all` with an administrator's token."),
		check("vault-audit", "Production Hardening: Audit logging", vaultAudit,
			"Count Vault's audit devices.",
			"Run `f2mesh vault bootstrap` with an administrator's token: it creates an audit device."),
	}
}

func check(name, guide string, run func(context.Context, *Target) Finding, try, fix string) Check {
	return Check{Name: name, Guide: guide, Run: run, Try: try, Fix: fix}
}

#!/bin/sh
# Makes what compose.yaml hands to its containers as files: passwords, tokens, the URLs that hold them and a certificate
# of its own. What is there already stays, so that it can be run again; a URL of a store of Compose's follows the profile
# it is given.
#   sh make-secrets.sh minimal|full [DOMAIN]
set -eu
profile=${1:-}
domain=${2:-localhost}
case "$profile" in minimal | full) ;; *)
	echo "usage: sh make-secrets.sh minimal|full [DOMAIN]" >&2
	exit 2
	;;
esac
cd "${SECRETS_DIR:-$(dirname "$0")/secrets}" 2>/dev/null || {
	mkdir -p "${SECRETS_DIR:-$(dirname "$0")/secrets}"
	cd "${SECRETS_DIR:-$(dirname "$0")/secrets}"
}
# The folder is closed to others; in it, the accounts of containers must be able to read what is mounted for them.
chmod 700 .
umask 022

made() { # NAME: a random word of 32 letters and digits, the first time
	[ -s "$1" ] || head -c 512 /dev/urandom | tr -dc 'A-Za-z0-9' | head -c 32 >"$1"
	cat "$1"
}

owner=$(made postgres_password)
serving=$(made serving_password)
pipelines=$(made pipelines_password)
mlflow=$(made mlflow_password)
replication=$(made replication_password)
redis=$(made redis_password)
made web_token >/dev/null
made grafana_password >/dev/null
made receiver_token >/dev/null
made person_salt >/dev/null
: "$replication"

url() { # NAME TEXT: what follows the passwords and the profile, unless somebody put the URL of a store of theirs there
	if [ ! -s "$1" ] || grep -qE '@(postgres|pgbouncer|redis):' "$1"; then printf '%s' "$2" >"$1"; fi
}

url owner_database_url "postgresql://duet:$owner@postgres:5432/duet"
url pipelines_database_url "postgresql://duet_pipelines:$pipelines@postgres:5432/duet"
url mlflow_database_url "postgresql://duet_mlflow:$mlflow@postgres:5432/duet"
url redis_url "redis://:$redis@redis:6379/0"
printf 'user default on >%s ~* &* +@all\n' "$redis" >redis_users
printf '"duet_serving" "%s"\n' "$serving" >pgbouncer_users
if [ "$profile" = full ]; then
	url serving_database_url "postgresql://duet_serving:$serving@pgbouncer:6432/duet"
	url replica_url "postgresql://duet_serving:$serving@pgbouncer:6432/duet_replica"
else
	url serving_database_url "postgresql://duet_serving:$serving@postgres:5432/duet"
	url replica_url ""
fi

# The object store knows one account, and MLflow's client reads the same one.
[ -s object_store_credentials ] || printf '[default]\naws_access_key_id = duet\naws_secret_access_key = %s\n' \
	"$(made object_store_password)" >object_store_credentials
key=$(cat object_store_password)
printf '{"identities": [{"name": "duet", "credentials": [{"accessKey": "duet", "secretKey": "%s"}], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}\n' \
	"$key" >object_store_config

# A certificate of its own, for a first start: put one of your authority, with its key, in its place.
if [ ! -s proxy_certificate ]; then
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=$domain" \
		-addext "subjectAltName=DNS:$domain,DNS:*.$domain,IP:127.0.0.1" -keyout key.pem -out certificate.pem 2>/dev/null
	cat certificate.pem key.pem >proxy_certificate
	rm key.pem
fi

#!/bin/sh
# Runs a streaming standby: copies the primary the first time, then follows it. Ends with it only by an order.
set -eu
umask 077
passwords="${PGDATA%/*}/.pgpass"
printf 'postgres:5432:*:replicator:%s\n' "$(cat /run/secrets/replication_password)" >"$passwords"
export PGPASSFILE="$passwords"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	rm -rf "${PGDATA:?}"/*
	pg_basebackup --host postgres --username replicator --pgdata "$PGDATA" --write-recovery-conf --slot standby \
		--wal-method stream --checkpoint fast --no-password
fi
exec postgres -D "$PGDATA" -c config_file=/etc/duet/postgres/postgresql.conf

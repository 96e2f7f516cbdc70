#!/bin/sh
# Takes a base backup into the archive while PostgreSQL runs, keeps the newest two (KEEP), and deletes the segments of the
# log that only older ones needed. Run it every night:
#   docker compose exec --user postgres postgres sh /etc/duet/postgres/base-backup.sh
set -eu
umask 077
archive=${ARCHIVE:-/var/lib/postgresql/archive}
secret=/run/secrets/replication_password
[ ! -r "$secret" ] || PGPASSWORD=$(cat "$secret")
export PGHOST="${PGHOST:-127.0.0.1}" PGUSER="${PGUSER:-replicator}" PGPASSWORD="${PGPASSWORD:-}"
name=base-$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$archive/wal" # from here on segments are kept
rm -rf "$archive"/.base-*
pg_basebackup --pgdata "$archive/.$name" --checkpoint fast --wal-method stream --no-password
mv "$archive/.$name" "$archive/$name"
cd "$archive"
ls -d base-* | sort | head -n "-${KEEP:-2}" | while read -r old; do rm -rf "./$old"; done
oldest=$(ls -d base-* | sort | head -n 1)
segment=$(sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]*\))$/\1/p' "$oldest/backup_label")
pg_archivecleanup -x .gz wal "$segment"
echo "$archive/$name"

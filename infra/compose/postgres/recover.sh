#!/bin/sh
# Brings the database back to a moment: puts the newest base backup from before it into an empty PGDATA and has the next
# start roll it forward from the archive. PostgreSQL must not be running; move the old PGDATA aside, never delete it first.
#   recover.sh '2026-06-01 12:00:00+00'
set -eu
umask 077
moment=$1
archive=${ARCHIVE:-/var/lib/postgresql/archive}
data=${PGDATA:-/var/lib/postgresql/data}
[ -z "$(ls -A "$data" 2>/dev/null)" ] || {
	echo "$data is not empty: move what is in it aside" >&2
	exit 1
}
last=base-$(date -u -d "$moment" +%Y%m%dT%H%M%SZ)
base=$(cd "$archive" && { ls -d base-*; echo "$last"; } | sort | sed "/^$last\$/q" | grep -v "^$last\$" | tail -n 1 || true)
[ -n "$base" ] || {
	echo "there is no base backup from before $moment" >&2
	exit 1
}
mkdir -p "$data"
chmod 700 "$data"
cp -a "$archive/$base/." "$data/"
cat >>"$data/postgresql.auto.conf" <<CONF
restore_command = 'gzip -dc "$archive/wal/%f.gz" > "%p"'
recovery_target_time = '$moment'
recovery_target_action = 'promote'
CONF
touch "$data/recovery.signal"
echo "$base is in place: start PostgreSQL, which rolls it forward to $moment"

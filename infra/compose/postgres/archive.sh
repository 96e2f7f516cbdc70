#!/bin/sh
# The archive_command of PostgreSQL: keeps a finished segment of the log, packed, beside the base backups. Before the first
# base backup it keeps nothing, because nothing could be recovered with it.
#   archive.sh PATH NAME
set -eu
archive=${ARCHIVE:-/var/lib/postgresql/archive}
ls -d "$archive"/base-* "$archive"/.base-* >/dev/null 2>&1 || [ -e "$archive/wal" ] || exit 0
kept="$archive/wal/$2.gz"
if [ -e "$kept" ]; then
	gzip -dc "$kept" | cmp -s - "$1" # told again after a crash: the same, or an error
	exit
fi
umask 077
mkdir -p "$archive/wal"
gzip -c "$1" >"$kept.partial"
sync "$kept.partial"
mv "$kept.partial" "$kept"

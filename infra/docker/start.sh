#!/bin/sh
# The entry point of both images. The root file system may be read-only, and numba uses compiled loops only where it
# could write new ones: they are copied to a place that is writable.
set -eu
if [ ! -e "$NUMBA_CACHE_DIR" ]; then cp -r /opt/duet/compiled "$NUMBA_CACHE_DIR"; fi
exec "$@"

#!/bin/sh
# Runs a command of the build with the variables (PIP_…, UV_…) of the secret `package-index`, if one is given. They are in
# no layer and no history of the image.
set -eu
if [ -f /run/secrets/package-index ]; then
	set -a
	. /run/secrets/package-index
	set +a
fi
if [ -f /run/secrets/certificates ]; then
	export PIP_CERT=/run/secrets/certificates SSL_CERT_FILE=/run/secrets/certificates
fi
exec "$@"

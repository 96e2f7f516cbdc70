#!/bin/sh
# Makes the code that was copied to /opt/duet importable, takes the installer out again, and compiles ahead: bytecode,
# and the loops of the request path, which would cost every start of a container most of a minute of CPU.
set -eu
cd /opt/duet
chmod -R a+rX ./[!.]*
if [ ! -d pipelines ]; then sed -i '/^pipelines = "pipelines\./d' pyproject.toml; fi # nor are its commands there
uv=/build/installer/bin/uv
$uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
$uv pip uninstall --quiet --python .venv/bin/python uv setuptools
rm -rf ./*.egg-info build
.venv/bin/python -m compileall -q --invalidation-mode unchecked-hash infra feature_repo registry serving
if [ -d pipelines ]; then .venv/bin/python -m compileall -q --invalidation-mode unchecked-hash pipelines; fi
NUMBA_CACHE_DIR=/opt/duet/compiled DUET_ENVIRONMENT=development .venv/bin/python -m serving.warm_up

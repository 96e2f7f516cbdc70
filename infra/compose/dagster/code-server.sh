#!/bin/sh
# Dagster's code server, which also works on the runs. Runs that an earlier container left open have no worker any more:
# they are closed once the code answers, so that Dagster's retry of them finds it. Only here can that be known: a worker
# of another container is not seen.
set -eu
dagster code-server start --host 0.0.0.0 --port 4266 --module-name pipelines.definitions --location-name duet \
	--use-python-environment-entry-point --heartbeat-ttl 604800 --log-format json &
server=$!
until dagster api grpc-health-check --port 4266 >/dev/null 2>&1; do
	kill -0 $server || exit 1
	sleep 1
done
python -m pipelines.runs.orphans
wait $server

#!/bin/sh
# Run once, on an empty database, by the image of PostgreSQL: the roles beside the owner of everything. They may do nothing
# until `duet db-roles`, which runs after each migration, gives them what they need.
# `duet_serving` is who comes through PgBouncer, which passes no options of a connection on: what the service sets for
# each of its connections is set for the role here.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
	--set serving="$(cat /run/secrets/serving_password)" \
	--set pipelines="$(cat /run/secrets/pipelines_password)" \
	--set mlflow="$(cat /run/secrets/mlflow_password)" \
	--set replication="$(cat /run/secrets/replication_password)" <<'SQL'
create role replicator login replication password :'replication';
create role duet_serving login password :'serving';
alter role duet_serving set search_path = feast;
alter role duet_serving set statement_timeout = '10min';
create role duet_pipelines login password :'pipelines';
create role duet_mlflow login password :'mlflow';
select pg_create_physical_replication_slot('standby');
SQL

"""Rows into Postgres: staged, merged, quarantined and recorded in one transaction."""

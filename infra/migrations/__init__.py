"""Alembic's environment and revisions; run them through `infra.db.migrate`."""

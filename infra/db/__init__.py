"""PostgreSQL: connections, pools, migrations, and rows as arrays."""

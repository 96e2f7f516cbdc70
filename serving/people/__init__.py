"""One person at a time: what only Postgres may say, newcomers, the read replica, and what people do."""

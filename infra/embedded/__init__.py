"""Real servers from PyPI wheels, started on demand on loopback and stopped by their last user.

PostgreSQL, Redis and MLflow keep their data below `settings.data_dir`. Nothing here runs when URLs are configured.
"""

"""Everybody in memory: read, written to disk, mapped by every worker, and kept up to date."""

"""Offline: imported data to a candidate release, one folder per domain, wired by Dagster."""

"""Tells an app of matches and blocks, by signed deliveries to a URL of its own."""

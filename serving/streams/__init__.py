"""Stores what apps put on Redis Streams, each entry once: interactions by event id, people in their order."""

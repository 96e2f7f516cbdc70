"""Answers kept for a while: in memory and in Redis, made once for a herd, and checked for safety at every read."""

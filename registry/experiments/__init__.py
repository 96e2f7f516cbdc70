"""Experiments: the rows that serving workers poll, and interleaved lists."""

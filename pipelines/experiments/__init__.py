"""Judging experiments and fresh releases by what people answered: the read-out, and the guard that acts on its own."""

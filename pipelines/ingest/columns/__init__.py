"""Whose column is which: a mapping held against a file's columns, and every row against the contract."""

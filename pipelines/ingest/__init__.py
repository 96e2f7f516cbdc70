"""Imports of people and interactions: every row lands or is quarantined with its reason."""

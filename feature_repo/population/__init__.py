"""People as columns in memory, and who of them is near."""

"""Great Expectations suites on the snapshots: what must be true of people and interactions before anybody learns."""

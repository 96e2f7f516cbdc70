"""The release candidate: what is registered, and under which conditions."""

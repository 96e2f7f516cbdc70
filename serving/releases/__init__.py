"""Which release serves: looked up, tried, loaded, swapped, and told to the other workers."""

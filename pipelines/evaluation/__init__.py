"""How good the recommendations are, on held-out data and against the oracle of a synthetic world."""

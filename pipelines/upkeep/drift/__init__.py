"""How far the world has moved from the rows that the ranker in Production learned from."""

"""Stage 2 offline: from labelled pairs to a ranker."""

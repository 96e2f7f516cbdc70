"""Stage 1 offline: from likes to embeddings to a candidate index."""

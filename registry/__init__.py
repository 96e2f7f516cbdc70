"""What an embedding, an index and a ranker are; how they are written, verified, logged, promoted and resolved."""

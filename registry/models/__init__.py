"""The three artefacts: embedding, index and ranker, how each is written, verified and read."""

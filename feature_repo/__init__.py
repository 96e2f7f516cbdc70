"""The Feast catalogue and the pure feature transformations that both training and serving call."""

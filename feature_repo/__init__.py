"""The Feast catalogue and the pure feature transformations that both training and serving call."""

from feature_repo.unchecked import leave_feast_unchecked

leave_feast_unchecked()

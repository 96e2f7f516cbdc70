"""Errors of the ranker's training.

DuetError
└── RankingError
    ├── NoLabels      the window holds no decision
    ├── OneClass      all labels are the same, so there is nothing to tell apart
    ├── BadFeatures   the feature matrix does not fit its labels or its names
    └── OutdatedRows  the rows on disk were made of other features than today's
"""

from infra.errors import DuetError


class RankingError(DuetError):
    """The ranker cannot be trained."""


class NoLabels(RankingError):
    """The ranker's window holds no decision."""


class OneClass(RankingError):
    """Every label is the same."""


class BadFeatures(RankingError):
    """The feature matrix does not fit its labels or its names."""


class OutdatedRows(RankingError):
    """The training rows on disk were made of other features than today's."""

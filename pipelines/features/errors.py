"""Errors of the feature snapshots.

DuetError
└── FeatureError
    ├── MalformedEvents   the interactions frame is not what the contract promises
    └── NoSnapshots       no instant can be drawn from the given span
"""

from infra.errors import DuetError


class FeatureError(DuetError):
    """Feature snapshots cannot be computed or written."""


class MalformedEvents(FeatureError):
    """The interactions frame lacks a column, a time zone or a known kind."""


class NoSnapshots(FeatureError):
    """The span or the interval leaves no instant to snapshot."""

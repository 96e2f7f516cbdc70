"""Errors of the feature snapshots.

DuetError
└── FeatureSnapshotError
    ├── MalformedEvents   the interactions frame is not what the contract promises
    └── NoSnapshots       no instant can be drawn from the given span
"""

from infra.errors import DuetError


class FeatureSnapshotError(DuetError):
    """Feature snapshots cannot be computed or written."""


class MalformedEvents(FeatureSnapshotError):
    """The interactions frame lacks a column, a time zone or a known kind."""


class NoSnapshots(FeatureSnapshotError):
    """The span or the interval leaves no instant to snapshot."""

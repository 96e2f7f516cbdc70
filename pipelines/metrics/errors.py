"""Errors of the measures.

DuetError
└── MeasureError          a measure cannot be computed from these arrays
    └── BadPropensity     a logged choice has no chance of having been made
"""

from infra.errors import DuetError


class MeasureError(DuetError):
    """A measure cannot be computed from these arrays."""


class BadPropensity(MeasureError):
    """A logged propensity lies outside (0, 1]: whoever logged it did not draw by it."""

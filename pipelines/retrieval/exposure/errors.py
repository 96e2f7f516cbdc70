"""Errors of the exposure prices.

DuetError
└── ExposureError         prices or their oracle cannot be computed
    └── UnsolvedMarket    the linear programme of a small market was not solved
"""

from infra.errors import DuetError


class ExposureError(DuetError):
    """Prices or their oracle cannot be computed."""


class UnsolvedMarket(ExposureError):
    """The linear programme of a small market was not solved."""

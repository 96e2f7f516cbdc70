"""Errors of erasing people.

DuetError
└── ErasureError          an erasure cannot be begun or told of
    └── NobodyToErase     nobody has the id, and nobody with it was erased
"""

from infra.errors import DuetError


class ErasureError(DuetError):
    """An erasure cannot be begun or told of."""


class NobodyToErase(ErasureError):
    """Nobody has the id, and nobody with it was ever erased."""

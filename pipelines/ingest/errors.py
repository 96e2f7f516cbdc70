"""What an import refuses, as a tree.

    infra.errors.DuetError
    └── IngestError          an import could not be done; nothing was written
        ├── RefusedFile      the file is not what it claims to be
        ├── RefusedMapping   the mapping names what is not there or does not fit the contract
        └── RefusedWorld     the synthetic world asked for is out of bounds

A bad *row* is never an exception: it is quarantined with its line and its reason.
"""

from __future__ import annotations

from infra.errors import DuetError


class IngestError(DuetError):
    """An import could not be done; nothing was written."""


class RefusedFile(IngestError):
    """The file is not what it claims to be."""


class RefusedMapping(IngestError):
    """The mapping names what is not there or does not fit the contract."""


class RefusedWorld(IngestError):
    """The synthetic world asked for is out of bounds."""

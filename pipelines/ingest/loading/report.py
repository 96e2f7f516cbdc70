"""What one import did, in numbers that add up: read = landed + unchanged + quarantined.

Nothing is counted twice and nothing is left out; a property test holds every import to that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID


@dataclass
class Counts:
    """The fate of the rows of one file."""

    read: int = 0
    new: int = 0
    updated: int = 0
    unchanged: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)

    @property
    def n_quarantined(self) -> int:
        """Rows that broke the contract."""
        return self.quarantined.total()

    @property
    def landed(self) -> int:
        """Rows that changed the database."""
        return self.new + self.updated

    @property
    def adds_up(self) -> bool:
        """Whether every row read is accounted for."""
        return self.read == self.landed + self.unchanged + self.n_quarantined


@dataclass
class ImportReport:
    """The outcome of one committed import."""

    import_id: UUID
    people: Counts = field(default_factory=Counts)
    interactions: Counts = field(default_factory=Counts)
    quarantine_file: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def n_quarantined(self) -> int:
        """Rows of both files that broke the contract."""
        return self.people.n_quarantined + self.interactions.n_quarantined

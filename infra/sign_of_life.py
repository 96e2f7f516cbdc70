"""Files by which others see whether a consumer of streams is at work: touched in each round of each stream."""

from pathlib import Path
from typing import Final

SIGNS: Final = ("interactions", "people")
SILENT_S: Final = 60.0
"""Longer than any round: a statement has ten seconds, and a pause five."""


class SignOfLife:
    """The file of one stream."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self._file = data_dir / "stream" / f"{name}.alive"

    def give(self) -> None:
        """Say that a round begins."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.touch()

    def take_away(self) -> None:
        """Say that there will be no other round."""
        self._file.unlink(missing_ok=True)

    def given_at(self) -> float | None:
        """Return when the last round began, unix seconds; None before the first."""
        try:
            return self._file.stat().st_mtime
        except FileNotFoundError:
            return None


def silent_streams(data_dir: Path, now: float, since: float = 0.0) -> list[str]:
    """Return the streams on which no round began within `SILENT_S` before `now`, or after `since`; unix seconds."""
    given = {name: SignOfLife(data_dir, name).given_at() for name in SIGNS}
    return [name for name, at in given.items() if at is None or at < max(since, now - SILENT_S)]

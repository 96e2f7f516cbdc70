"""Files by which a container sees whether its consumer of streams is at work: touched in each round of each stream."""

from datetime import datetime
from typing import Final

from infra.settings import Settings
from serving.errors import NotConsuming

SIGNS: Final = ("interactions", "people")
SILENT_S: Final = 60.0
"""Longer than any round: a statement has ten seconds, and a pause five."""


class SignOfLife:
    """The file of one stream."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._file = settings.data_dir / "stream" / f"{name}.alive"

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


def require_life(settings: Settings, now: datetime) -> None:
    """Return where a consumer of this data folder is at work on both streams; raises NotConsuming."""
    for name in SIGNS:
        at = SignOfLife(settings, name).given_at()
        if at is None or now.timestamp() - at > SILENT_S:
            raise NotConsuming(f"No consumer is at work on the stream of {name}: start one with `duet stream`.")

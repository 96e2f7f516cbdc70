"""Prices of exposure: one number per person, subtracted from their score so that nobody is shown to everybody.

Few people are in more demand than there is room for, so only those with a price are kept. The unit is the standard
deviation of the scores of one request's candidates: a price means the same under every order of lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from registry.contracts import Manifest
from registry.errors import CorruptArtifact
from registry.models.arrays import Floats, Ids, npy_writer, read_npy
from registry.models.artifacts import FileWriter

_IDS, _PRICES = "exposure_user_ids.npy", "exposure_prices.npy"


@dataclass(frozen=True, eq=False)
class Prices:
    """Prices float32[n] > 0 of the people `user_ids` int64[n], ascending; everybody else has the price 0."""

    user_ids: Ids
    prices: Floats

    def __len__(self) -> int:
        return len(self.user_ids)

    @classmethod
    def of_everybody(cls, user_ids: Ids, prices: NDArray[np.floating]) -> Self:
        """Keep the prices above zero of people whose ids ascend."""
        kept = np.flatnonzero(prices.astype(np.float32) > 0)
        return cls(np.asarray(user_ids[kept], dtype=np.int64), prices[kept].astype(np.float32))

    def of(self, user_ids: Ids) -> Floats:
        """Return the price of each person, float32[m]."""
        if not len(self):
            return np.zeros(len(user_ids), dtype=np.float32)
        rows = np.minimum(np.searchsorted(self.user_ids, user_ids), len(self) - 1)
        return np.where(self.user_ids[rows] == user_ids, self.prices[rows], np.float32(0.0))

    def writers(self) -> Mapping[str, FileWriter]:
        """Return a writer for each file, by its name inside the artefact."""
        return {_IDS: npy_writer(self.user_ids), _PRICES: npy_writer(self.prices)}

    @classmethod
    def load(cls, directory: Path, manifest: Manifest) -> Self | None:
        """Map what `writers` wrote; None where the artefact has no prices.

        Raises:
            CorruptArtifact: the files do not belong together.
        """
        if _IDS not in manifest.files or _PRICES not in manifest.files:
            return None
        found = cls(read_npy(directory / _IDS, np.int64, 1), read_npy(directory / _PRICES, np.float32, 1))
        if len(found.user_ids) != len(found.prices) or np.any(np.diff(found.user_ids) <= 0):
            raise CorruptArtifact(f"`{directory}`: the prices of exposure are not one for each of {len(found)} people.")
        if not np.isfinite(found.prices).all() or np.any(found.prices < 0):
            raise CorruptArtifact(f"`{directory}`: prices of exposure are negative, NaN or infinite.")
        return found

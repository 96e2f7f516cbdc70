"""What the ranker's service is asked and answers: feature matrices in, probabilities out."""

import base64
import binascii
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from registry.errors import InvalidFeatures
from registry.scoring.list_policy import ForwardModel

PROBABILITIES: Final = "/v1/probabilities"
COLUMNS: Final = "/v1/columns"
_LITTLE = np.dtype("<f4")


class FeatureMatrix(BaseModel):
    """Rows for one model of one release; its columns are those of the model, in the model's order."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    release: str = Field(max_length=40, description="The release whose ranker is asked.", examples=["e3-i5-r2"])
    features: list[list[float | None]] | str = Field(
        description="Rows of numbers, null for a missing one; or base64 of float32, little-endian, row after row."
    )
    model: ForwardModel = Field(ForwardModel.LIKE, description="The probability of a like, or of being chosen.")
    digest: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of the ranker's manifest; without it, the number of its version says which one it is.",
    )

    def rows(self, width: int) -> NDArray[np.float32]:
        """Return the features, float32[n, width]; raise InvalidFeatures for those of another width."""
        if isinstance(self.features, str):
            try:
                flat = np.frombuffer(base64.b64decode(self.features, validate=True), dtype=_LITTLE)
            except (binascii.Error, ValueError):
                raise InvalidFeatures("`features` is text, but not base64 of whole float32 numbers.") from None
            if len(flat) % width:
                raise InvalidFeatures(f"`features` holds {len(flat)} numbers, which are no whole rows of {width}.")
            return flat.reshape(-1, width).astype(np.float32, copy=False)
        wrong = next((len(row) for row in self.features if len(row) != width), None)
        if wrong is not None:
            raise InvalidFeatures(f"A row of `features` has {wrong} numbers, the model has {width} columns.")
        return np.array(self.features, dtype=np.float32).reshape(-1, width)


class Probabilities(BaseModel):
    """The answer for one matrix: a probability for each row, or why there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    values: list[float] | None = Field(None, description="float32[n], one for each row; null with a problem.")
    problem: str | None = Field(None, description="Why there are no values, as a sentence.")


def packed(features: NDArray[np.float32]) -> str:
    """Return float32[n, k] as FeatureMatrix takes it in its short form."""
    return base64.b64encode(np.ascontiguousarray(features, dtype=_LITTLE).tobytes()).decode("ascii")

"""The report of an erasure as the API answers it: what was found of a person in each place, and what is left."""

from typing import Literal

from pydantic import AwareDatetime, Field

from serving.api.models import AnswerModel, OfThisRequest
from serving.profiles.models import PERSON

ERASURE = f"{PERSON}/erasure"


class ErasedPlace(AnswerModel):
    """A table, store or kind of file that held the person."""

    place: str = Field(examples=["duet.interactions"])
    before: int = Field(ge=0, description="Rows, keys or files that were found.")
    after: int = Field(ge=0, description="How many were left at the last look.")
    looked_at: AwareDatetime
    waits: str | None = Field(default=None, description="What is still waited for; absent where nothing is.")
    datasets: list[str] = Field(default=[], description="Digests of the data sets for training that were removed.")


class SawModel(AnswerModel):
    """A registered version of a model that may have learned from the person."""

    model: str = Field(examples=["duet-embedding"])
    version: int
    stage: str


class ErasureReport(AnswerModel):
    """What became of an erasure. It names the person by a salted hash, as the logs do."""

    erasure_id: int
    person: str = Field(description="Salted hash of the id that was asked for.")
    status: Literal["running", "finished"] = Field(
        description="From the first moment on, the person is in no answer; `finished` when nothing is left anywhere."
    )
    way: Literal["api", "cli", "restore"]
    actor: str = Field(description="Name of the API key, or the account, that asked for it.")
    requested_at: AwareDatetime
    rows_erased_at: AwareDatetime | None = Field(description="When the profile and all interactions were gone.")
    finished_at: AwareDatetime | None
    places: list[ErasedPlace]
    models: list[SawModel] = Field(description="Versions that may have seen them: the next training is without them.")
    request_id: OfThisRequest

"""Load a snapshot the way the science reads it: people as packed vectors, interactions as compact arrays.

A snapshot is named by the pointer of its interactions, which names the people photographed in the same transaction.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from pipelines.ingest.snapshots import (
    INTERACTIONS_FILE,
    PEOPLE_FILE,
    SLOTS_FILE,
    people_parts,
    read_interactions,
    read_people,
)
from pipelines.results.store import ResultStore, StepResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from feature_repo.population.people import People
    from pipelines.features.events import Events
    from pipelines.features.profiles import ProfileRows


@dataclass(frozen=True)
class DataSnapshot:
    """People and interactions as of one instant; everything is read when it is first asked for."""

    people_pointer: StepResult
    interactions_pointer: StepResult

    @classmethod
    def of(cls, results: ResultStore, interactions: StepResult) -> "DataSnapshot":
        """Return the snapshot whose interactions are `interactions`; they name the people photographed with them."""
        people = interactions.model_copy(
            update={"asset": "people", "digest": interactions.inputs["people"], "inputs": {}, "facts": {}}
        )
        return cls(people.within(results), interactions)

    @property
    def as_of(self) -> datetime:
        """Return the instant that bounds the interactions."""
        return self.interactions_pointer.as_of

    @property
    def digests(self) -> dict[str, str]:
        """Return the digest of each file of the snapshot by asset."""
        return {"people": self.people_pointer.digest, "interactions": self.interactions_pointer.digest}

    @cached_property
    def users(self) -> "pd.DataFrame":
        """Return `user_id` and `visible` of everybody, ascending by id."""
        return read_people(self.people_pointer.path / PEOPLE_FILE, ["user_id", "visible"])

    @cached_property
    def slots(self) -> dict[str, int]:
        """Return which numeric attribute owns which slot."""
        return dict(json.loads((self.people_pointer.path / SLOTS_FILE).read_text()))

    @cached_property
    def rows(self) -> "ProfileRows":
        """Return everybody's packed profile and attributes, and since when each person is known."""
        from pipelines.features.profiles import profile_rows

        return profile_rows(people_parts(self.people_pointer.path / PEOPLE_FILE), self.slots, self.events)

    @cached_property
    def people(self) -> "People":
        """Return everybody with profile and attributes and without activity."""
        return self.rows.people()

    @cached_property
    def events(self) -> "Events":
        """Return the interactions, numbered over the people."""
        from pipelines.features.events import Events

        frame = read_interactions(self.interactions_pointer.path / INTERACTIONS_FILE)
        return Events.from_frame(frame, self.users["user_id"].to_numpy())

    def content_inputs(self) -> "npt.NDArray[np.float32]":
        """Return the inputs of the content-to-factor map for everybody, float32[n, CONTENT_WIDTH]."""
        from feature_repo.transforms import content_inputs

        return content_inputs(self.people, self.as_of.timestamp())


def before_window(lineage: Mapping[str, object]) -> int | None:
    """Return the last microsecond before what was learned from, by an artefact's lineage or a snapshot's facts."""
    since = lineage.get("since")
    return None if since is None else microseconds_of(datetime.fromisoformat(str(since))) - 1


def microseconds_of(at: datetime) -> int:
    """Return an aware instant as whole microseconds since 1970."""
    return round(at.timestamp() * 1_000_000)

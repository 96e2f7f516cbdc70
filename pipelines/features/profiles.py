"""People of a snapshot as packed profile and attribute rows, stamped with the instant they became known.

A person is stamped with the creation of the profile or the first interaction, whichever is earlier, so that a
point-in-time join sees the profile at every decision. Imports often know no creation time but "now".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.population.people import People
from feature_repo.transforms import attribute_vectors, profile_vectors
from pipelines.features.events import Events

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ProfileRows:
    """ids int64[n] ascending, when each became known in microseconds int64[n], packed rows float32[n, width]."""

    user_ids: npt.NDArray[np.int64]
    at_us: npt.NDArray[np.int64]
    profile: Floats
    attributes: Floats

    def people(self) -> People:
        """Return these people without any activity; their positions are the positions of `user_ids`."""
        return People.build(self.user_ids, profile=self.profile, attributes=self.attributes)


def profile_rows(
    users: pd.DataFrame | Iterable[pd.DataFrame], slots: Mapping[str, int], interactions: pd.DataFrame | Events
) -> ProfileRows:
    """Pack users of the contract's columns; `slots` maps attribute names to their slots.

    Users may come in parts, of which only the packed rows are kept; the parts must ascend by id.
    """
    whole = (
        [users.sort_values("user_id", kind="stable", ignore_index=True)] if isinstance(users, pd.DataFrame) else users
    )
    parts = [_packed(part, slots) for part in whole]
    ids, at_us, profile, attributes = (np.concatenate(column) for column in zip(*parts, strict=True))
    events = interactions if isinstance(interactions, Events) else Events.from_frame(interactions, ids)
    # Times ascend, so the first occurrence is the earliest.
    for people in (events.actor, events.target):
        seen, first = np.unique(people, return_index=True)
        who = events.user_ids[seen]
        at = np.searchsorted(ids, who)
        here = np.isin(who, ids)  # events may name others too
        at_us[at[here]] = np.minimum(at_us[at[here]], events.at_us[first[here]])
    return ProfileRows(ids, at_us, profile, attributes)


def _packed(
    users: pd.DataFrame, slots: Mapping[str, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats, Floats]:
    ids = users["user_id"].to_numpy(dtype=np.int64)
    created = users["created_at"].dt.tz_convert("UTC").dt.tz_localize(None)
    at_us = created.to_numpy().astype("datetime64[us]").astype(np.int64)
    return ids, at_us, profile_vectors(users), attribute_vectors(users, slots)

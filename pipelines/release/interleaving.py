"""Compare two releases by team-draft interleaving, offline: whose people did the requesters like afterwards?

Both releases list people for everybody who liked somebody after the instant up to which both have learned; the two
lists are interleaved, and a requester's later likes among the people of the mixed list are credited to the release
that put them there. Nobody is shown anything: likes of people whom neither release would have shown say nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.release.errors import NothingToCompare
from pipelines.release.replay import TOP, Contender, answer, contenders_at
from pipelines.results.inputs import microseconds_of
from pipelines.retrieval.dataset import first_decisions
from registry.experiments.interleaving import InterleavingOutcome, credit, outcome, team_draft
from registry.release import Release

if TYPE_CHECKING:
    from infra.settings import Settings
    from pipelines.results.inputs import DataSnapshot

Positions = npt.NDArray[np.int64]
MOST_REQUESTERS = 1_000
_SEED = 7


@dataclass(frozen=True)
class Interleaving:
    """Who won how many lists, of how many requesters, by likes after which instant."""

    after: datetime
    requesters: int
    outcome: InterleavingOutcome

    @property
    def sentence(self) -> str:
        """Say who is ahead and how surely."""
        found = self.outcome
        lead = "the first" if found.first_wins > found.second_wins else "the second"
        who = "neither release is" if found.first_wins == found.second_wins else f"{lead} release is"
        return (
            f"{who} ahead: {found.first_wins} lists to {found.second_wins}, {found.draws} undecided "
            f"(p = {found.p_value:.3g})."
        )


def interleave_releases(
    first: Release,
    second: Release,
    snapshot: "DataSnapshot",
    settings: "Settings",
    after: datetime,
) -> Interleaving:
    """Compare two releases on the likes of a snapshot after an instant: up to then both may have learned.

    Raises:
        NothingToCompare: nobody liked anybody new since.

    """
    after_us = microseconds_of(pd.Timestamp(after))
    likes = first_decisions(snapshot.events).between(after_us, microseconds_of(snapshot.as_of))
    likes = likes.take(likes.is_like)
    if not len(likes):
        raise NothingToCompare(
            f"Nobody liked anybody new between {after:%Y-%m-%d %H:%M:%S} and "
            f"{snapshot.as_of:%Y-%m-%d %H:%M:%S}, the end of the newest snapshot: "
            "compare them after the next `duet train --job rebuild_index`, which takes a new one."
        )
    requesters = _sampled(np.unique(likes.actor).astype(np.int64))
    one, other = contenders_at([first, second], snapshot, settings, after_us + 1)
    won = [
        _credited(one, other, requester, likes.target[likes.actor == requester].astype(np.int64))
        for requester in requesters.tolist()
    ]
    return Interleaving(after, int(requesters.size), outcome(np.array(won, dtype=np.int64)))


def learned_until(release: Release) -> datetime:
    """Return the end of the newest data that any part of a release was made from.

    Raises:
        NothingToCompare: a part does not say.

    """
    ends = [manifest.lineage.get("as_of") for manifest in release.manifests.values()]
    known = [datetime.fromisoformat(end) for end in ends if end is not None]
    if len(known) < len(ends):
        raise NothingToCompare(f"{release.release_id} does not say up to when it has learned: train it again.")
    return max(known)


def credited(lists: Sequence[Positions], liked: Positions, rng: np.random.Generator) -> int:
    """Return 1 where the first of two lists puts more of the liked into their mixed list, -1 the second, 0 neither."""
    drawn = team_draft(lists[0], lists[1], TOP, rng)
    return credit(drawn.team, np.isin(drawn.user_ids, liked))


def _credited(one: Contender, other: Contender, requester: int, liked: Positions) -> int:
    lists = [answer(contender, requester) for contender in (one, other)]
    return credited(lists, liked, np.random.default_rng([_SEED, requester]))


def _sampled(requesters: Positions) -> Positions:
    if requesters.size <= MOST_REQUESTERS:
        return requesters
    return np.sort(np.random.default_rng(_SEED).choice(requesters, MOST_REQUESTERS, replace=False))

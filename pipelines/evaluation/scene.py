"""Everything the evaluation may know at T1, and what happened after it: the ground both protocols stand on.

Positions are into the ids of `people` throughout; events, factors and people are numbered alike. Whoever orders
people here sees only what lies at or before the instant of the order.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_repo.population.people import People
from feature_repo.population.population import Population
from pipelines.evaluation.config import EvaluationConfig
from pipelines.evaluation.windows import Windows
from pipelines.features.events import Events
from pipelines.ranking.context import EverybodysFactors, LikeHistory
from pipelines.ranking.requests import PastRequests
from registry.release import Release

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """People as of T1 (`visible` bool[n] or everybody), their factors fitted up to T1, and all events to the end.

    `judged` is the release whose lists are compared, all of its parts fitted up to T1, and `population` what it is
    shown from; without them only the simpler orders can be compared.
    """

    people: People
    events: Events
    windows: Windows
    factors: EverybodysFactors
    config: EvaluationConfig
    pending_likes: bool = False
    visible: npt.NDArray[np.bool_] | None = None
    judged: Release | None = None
    population: Population | None = None

    @property
    def at_s(self) -> float:
        """Return T1 in unix seconds."""
        return self.windows.t1_us / 1e6

    @cached_property
    def before(self) -> Events:
        """Return the events up to and including T1."""
        return self.events.between(None, self.windows.t1_us)

    @cached_property
    def likes(self) -> LikeHistory:
        """Return all likes; look-ups say before when."""
        return LikeHistory(self.events)

    @cached_property
    def likes_received(self) -> npt.NDArray[np.int64]:
        """Return how many likes each person received up to T1, int64[n]."""
        before = self.before
        return np.bincount(before.target[before.is_like], minlength=before.n_people)

    @cached_property
    def closed(self) -> "Lookup":
        """Return whom each person may not be shown any more at T1: decided, or separated in either direction."""
        before = self.before
        apart = before.take(before.is_separation)
        decided = before.take(before.is_decision)
        person = np.concatenate([decided.actor, apart.actor, apart.target])
        other = np.concatenate([decided.target, apart.target, apart.actor])
        if before.is_undo.any():
            closed = ~before.are_open(person, other, np.full(person.size, self.windows.t1_us, dtype=np.int64))
            person, other = person[closed], other[closed]
        return Lookup.of(person, other, before.n_people)

    @cached_property
    def held_out(self) -> Events:
        """Return the decisions after T1 on pairs that the actor had not decided before: each pair's first."""
        from pipelines.retrieval.dataset import first_decisions

        return first_decisions(self.events).between(self.windows.t1_us, self.windows.end_us)

    @cached_property
    def held_out_matched(self) -> npt.NDArray[np.bool_]:
        """Say which held-out decisions are likes of people who are a match at the end, bool[len(held_out)]."""
        held_out = self.held_out
        end = np.full(len(held_out), self.windows.end_us, dtype=np.int64)
        low, high = np.minimum(held_out.actor, held_out.target), np.maximum(held_out.actor, held_out.target)
        return held_out.is_like & self.events.matches.hold(low, high, end)

    @cached_property
    def requests(self) -> PastRequests:
        """Return who asks, as of any instant."""
        return PastRequests(self.people, self.events, self.pending_likes)


@dataclass(frozen=True)
class Lookup:
    """Per person a list of positions, laid end to end."""

    start: npt.NDArray[np.int64]
    values: npt.NDArray[np.int32]

    @classmethod
    def of(cls, keys: npt.NDArray[np.int32], values: npt.NDArray[np.int32], n: int) -> "Lookup":
        """Group values by key."""
        order = np.argsort(keys, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=n))])
        return cls(start.astype(np.int64), values[order])

    def __getitem__(self, key: int) -> npt.NDArray[np.int32]:
        return self.values[self.start[key] : self.start[key + 1]]

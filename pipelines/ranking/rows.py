"""Training rows of one window: what was decided, and whom people chose out of the first stage's own candidates.

Two kinds of rows, each with what the first stage knew at the begin of the visit in which it belongs:

* like rows: the first decision on a pair, 1 for a like and 0 for a pass; they teach P(like) once two people meet.
* choice rows: candidates that the first stage would have shown, 1 for those the person liked later in the window, 0
  for the others; an explicit pass weighs more than somebody who was perhaps never seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.layout import CONTEXT_COLUMNS, EVIDENCE_COLUMNS, TASTE_COLUMNS
from feature_repo.population.population import Population
from feature_repo.transforms import PairContext
from pipelines.features.events import Events
from pipelines.ranking.config import DatasetConfig
from pipelines.ranking.errors import NoLabels
from pipelines.ranking.requests import PastRequests, PastTaste
from pipelines.ranking.sessions import Requests, Sessions
from registry.models.ranker import ListPolicy
from registry.scoring.candidates import requester_factors, taste_of
from registry.scoring.context import pair_context
from registry.scoring.first_stage import FirstStage
from registry.scoring.two_stages import find_candidates

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Tell = Callable[[int, int], None]


class RowKind(IntEnum):
    """What a row teaches."""

    LIKE = 0
    CHOICE = 1


@dataclass(frozen=True)
class WindowRows:
    """n rows: positions of both people, the instant of their features, label, weight, kind, context [n, c]."""

    requester: Ids
    candidate: Ids
    at_us: Ids
    label: Floats
    weight: Floats
    kind: npt.NDArray[np.int8]
    context: Floats

    def __len__(self) -> int:
        return int(self.requester.size)

    @classmethod
    def concat(cls, parts: "list[WindowRows]") -> "WindowRows":
        """Put rows one after the other."""
        none = np.empty(0, dtype=np.int64)
        floats = np.empty(0, dtype=np.float32)
        context = np.empty((0, len(CONTEXT_COLUMNS)), dtype=np.float32)
        empty = cls(none, none, none, floats, floats, np.empty(0, dtype=np.int8), context)
        every = [empty, *parts]
        return cls(*(np.concatenate([getattr(part, name) for part in every]) for name in cls.__dataclass_fields__))

    def frame(self, user_ids: Ids) -> pd.DataFrame:
        """Return the entity rows of the point-in-time join: ids, event_timestamp in UTC, context.

        Raises:
            NoLabels: there is no row.
        """
        if not len(self):
            raise NoLabels(
                "No pair was decided for the first time after T0: import later decisions, or lower `embedding_share`."
            )
        ids = pd.DataFrame(
            {
                "requester_id": user_ids[self.requester],
                "candidate_id": user_ids[self.candidate],
                "event_timestamp": pd.to_datetime(self.at_us, unit="us", utc=True).as_unit("us"),
            }
        )
        return pd.concat([ids, pd.DataFrame(self.context, columns=list(CONTEXT_COLUMNS))], axis=1)


@dataclass(frozen=True)
class Window:
    """A first stage fitted up to an instant, people and population as of then, and decisions made after it.

    `decided` are the first decisions on pairs in the window, in order of time; `has_history` bool[n_people] says who
    had decided on somebody before it.
    """

    stage: FirstStage
    population: Population
    requests: PastRequests
    decided: Events
    has_history: npt.NDArray[np.bool_]


def like_rows(window: Window, config: DatasetConfig, tell: Tell | None = None) -> WindowRows:
    """Return a row per first decision of the window, at most `max_rows` of them, whole visits at a time."""
    sessions = Sessions.of(window.decided)
    chosen = _sampled(np.arange(len(sessions)), np.diff(sessions.start), config.max_rows, config.seed)
    parts = []
    for number, session in enumerate(chosen.tolist()):
        if tell is not None:
            tell(number, chosen.size)
        rows = sessions.rows(session)
        requester, at_us = int(sessions.actor[session]), int(sessions.at_us[session])
        targets = sessions.decided.target[rows].astype(np.int64)
        context = _context_of(window, requester, at_us, targets)
        n = targets.size
        parts.append(
            WindowRows(
                np.full(n, requester, dtype=np.int64),
                targets,
                sessions.decided.at_us[rows],
                sessions.decided.is_like[rows].astype(np.float32),
                np.ones(n, dtype=np.float32),
                np.full(n, RowKind.LIKE, dtype=np.int8),
                context,
            )
        )
    return WindowRows.concat(parts)


def choice_rows(
    window: Window, config: DatasetConfig, policy: ListPolicy, n_candidates: int, tell: Tell | None = None
) -> WindowRows:
    """Return candidates of one request per person in the window, with whom they liked among them until its end."""
    requests = Requests.drawn(window.decided, window.has_history, config.max_lists, config.seed)
    rng = np.random.default_rng([config.seed, 1])
    parts = []
    for number in range(len(requests)):
        if tell is not None:
            tell(number, len(requests))
        after = requests.after(number)
        decided = requests.decided.target[after], requests.decided.is_like[after]
        if decided[1].any():
            who = int(requests.actor[number]), int(requests.at_us[number])
            parts.append(_list_of(window, config, policy, n_candidates, who=who, decided=decided, rng=rng))
    return WindowRows.concat([part for part in parts if len(part)])


def _list_of(
    window: Window,
    config: DatasetConfig,
    policy: ListPolicy,
    n_candidates: int,
    *,
    who: tuple[int, int],
    decided: tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]],
    rng: np.random.Generator,
) -> WindowRows:
    position, at_us = who
    requester = window.requests.at(position, at_us)
    at_s = at_us / 1e6
    people = window.requests.people
    found = find_candidates(
        window.stage,
        window.population,
        requester,
        requester.terms(at_s),
        PastTaste(people, window.requests.history, at_us),
        policy=policy,
        n=n_candidates,
        at=at_s,
        rng=rng,
    )
    candidates = people.positions(found.pool.people.user_ids)
    targets, liked = decided
    is_liked, is_passed = np.isin(candidates, targets[liked]), np.isin(candidates, targets[~liked])
    if not is_liked.any():
        return WindowRows.concat([])
    others = np.flatnonzero(~is_liked & ~is_passed)
    kept = rng.choice(others, size=min(config.negatives, others.size), replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(is_liked | is_passed), kept]))
    n = rows.size
    return WindowRows(
        np.full(n, position, dtype=np.int64),
        candidates[rows],
        np.full(n, at_us, dtype=np.int64),
        is_liked[rows].astype(np.float32),
        np.where(is_passed[rows], np.float32(config.pass_weight), np.float32(1.0)),
        np.full(n, RowKind.CHOICE, dtype=np.int8),
        columns_of(found.context.take(rows)),
    )


def _context_of(window: Window, position: int, at_us: int, targets: Ids) -> Floats:
    """Return the context of pairs that stand alone, as the first stage knew them at the begin of a visit."""
    requester = window.requests.at(position, at_us)
    people = window.requests.people
    at_s = at_us / 1e6
    context = pair_context(
        window.stage,
        requester,
        requester_factors(window.stage, requester, at_s),
        taste_of(window.stage, requester, at_s),
        people.take(targets),
        others=PastTaste(people, window.requests.history, at_us),
        at=at_s,
        listed=False,
    )
    return columns_of(context)


def columns_of(context: PairContext) -> Floats:
    """Return the columns of a context by CONTEXT_COLUMNS, float32[n, c]."""
    taste = np.column_stack([getattr(context, name) for name in TASTE_COLUMNS])
    n = len(taste)
    evidence = np.broadcast_to(context.evidence, (n, len(EVIDENCE_COLUMNS)))
    return np.concatenate([taste, evidence], axis=1).astype(np.float32)


def _sampled(sessions: Ids, sizes: Ids, most: int, seed: int) -> Ids:
    """Return sessions drawn at random until they hold `most` rows, ascending."""
    if int(sizes.sum()) <= most:
        return sessions
    order = np.random.default_rng(seed).permutation(sessions)
    return np.sort(order[np.cumsum(sizes[order]) <= most])

"""Who asked, as they were at any instant: whom they had decided on, whom they must not see, who liked them.

What serving reads from Postgres for one request is read here from the events of a snapshot, before the instant.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_repo.population.people import People
from feature_repo.transforms import Terms
from pipelines.features.events import UNBLOCK, UNLIKE, Events
from pipelines.ranking.context import LikeHistory
from registry.models.embedding import Embedding

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_NOBODY: Ids = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class PastRequester:
    """A requester of `registry.scoring`, as of a past instant; ids int64, the newest decisions first.

    As serving reads them, `liked_by` ever liked this person and `waiting` did so in their latest decision; neither has
    an answer.
    """

    user_id: int
    person: People
    liked: Ids
    passed: Ids
    excluded: Ids
    liked_by: Ids = field(default_factory=lambda: _NOBODY)
    waiting: Ids = field(default_factory=lambda: _NOBODY)

    def terms(self, at_s: float) -> Terms:
        """Return on which terms people may be shown to this person at unix seconds `at_s`."""
        return Terms.of(self.person, at_s, exclude=self.excluded)


@dataclass(frozen=True)
class PastRequests:
    """Events over the people of a snapshot; `pending_likes` lets a requester know whose like waits for an answer."""

    people: People
    events: Events
    pending_likes: bool = False

    def at(self, position: int, at_us: int) -> PastRequester:
        """Return the person at `position` as they stood just before an instant."""
        ids = self.events.user_ids
        targets, likes = self._decisions.before(position, at_us)
        _, first = np.unique(targets, return_index=True)
        first.sort()  # the newest first still
        targets, likes = targets[first], likes[first]
        blocked = self._blocked.before(position, at_us)[0]
        separated = np.concatenate([blocked, self._blocked_by.before(position, at_us)[0]])
        again, unliked, not_liked_back = self._undone(position, at_us)
        closed = np.setdiff1d(np.concatenate([targets, separated]), again)
        likes_still = likes & ~np.isin(targets, unliked)
        liked_by = waiting = _NOBODY
        if self.pending_likes:
            actors, liked = self._received.before(position, at_us)
            open_ = ~np.isin(actors, np.setdiff1d(np.concatenate([targets, blocked]), again))
            actors, liked = actors[open_], liked[open_]
            _, newest = np.unique(actors[liked], return_index=True)
            liked_by = actors[liked][np.sort(newest)]
            _, latest = np.unique(actors, return_index=True)
            waiting = liked_by[np.isin(liked_by, np.setdiff1d(actors[latest][liked[latest]], not_liked_back))]
        return PastRequester(
            user_id=int(ids[position]),
            person=self.people.take([position]),
            liked=ids[targets[likes_still]],
            passed=ids[targets[~likes]],
            excluded=ids[closed],
            liked_by=ids[liked_by],
            waiting=ids[waiting],
        )

    def _undone(self, position: int, at_us: int) -> tuple[Ids, Ids, Ids]:
        """Return about whom a person took something back, or who took back a block of theirs, as of an instant.

        First those who may be shown again, then those whom the person does not like, then those who do not like them.
        """
        if self._undos is None:
            return _NOBODY, _NOBODY, _NOBODY
        by, of = self._undos
        others = np.unique(np.concatenate([by.before(position, at_us)[0], of.before(position, at_us)[0]]))
        mine, instants = np.full(others.size, position), np.full(others.size, at_us - 1)
        likes = self.events.standing_likes
        return (
            others[self.events.are_open(mine, others, instants)] if others.size else others,
            others[~likes.hold(mine, others, instants)],
            others[~likes.hold(others, mine, instants)],
        )

    @cached_property
    def history(self) -> LikeHistory:
        """Return all likes; look-ups say before when."""
        return LikeHistory(self.events)

    @cached_property
    def _undos(self) -> "tuple[_ByPerson, _ByPerson] | None":
        """Return what people took back by who did, and the blocks taken back by whom they were of; None where none."""
        undone = self.events.take(self.events.is_undo)
        if not len(undone):
            return None
        n, unblocked = undone.n_people, undone.take(undone.kind == UNBLOCK)
        return (
            _ByPerson.of(undone.actor, undone.target, undone.is_like, undone.at_us, n),
            _ByPerson.of(unblocked.target, unblocked.actor, unblocked.is_like, unblocked.at_us, n),
        )

    @cached_property
    def _decisions(self) -> "_ByPerson":
        decided = self.events.take(self.events.is_decision)
        return _ByPerson.of(decided.actor, decided.target, decided.is_like, decided.at_us, self.events.n_people)

    @cached_property
    def _received(self) -> "_ByPerson":
        decided = self.events.take(self.events.is_decision | (self.events.kind == UNLIKE))
        # Read backwards, those of one instant come by ascending id, as serving reads them.
        decided = decided.take(np.lexsort((-decided.actor, decided.at_us)))
        return _ByPerson.of(decided.target, decided.actor, decided.is_like, decided.at_us, self.events.n_people)

    @cached_property
    def _separations(self) -> Events:
        return self.events.take(self.events.is_separation)

    @cached_property
    def _blocked(self) -> "_ByPerson":
        gone = self._separations
        return _ByPerson.of(gone.actor, gone.target, gone.is_like, gone.at_us, self.events.n_people)

    @cached_property
    def _blocked_by(self) -> "_ByPerson":
        gone = self._separations
        return _ByPerson.of(gone.target, gone.actor, gone.is_like, gone.at_us, self.events.n_people)


@dataclass(frozen=True)
class _ByPerson:
    """Others and a flag per person in order of time, laid end to end."""

    start: Ids
    other: Ids
    flag: npt.NDArray[np.bool_]
    at_us: Ids

    @classmethod
    def of(
        cls,
        person: npt.NDArray[np.int32],
        other: npt.NDArray[np.int32],
        flag: npt.NDArray[np.bool_],
        at_us: Ids,
        n: int,
    ) -> "_ByPerson":
        order = np.argsort(person, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(person, minlength=n))]).astype(np.int64)
        return cls(start, other[order].astype(np.int64), flag[order], at_us[order])

    def before(self, person: int, at_us: int) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Return others and flags of one person strictly before an instant, the newest first."""
        first, last = int(self.start[person]), int(self.start[person + 1])
        last = first + int(np.searchsorted(self.at_us[first:last], at_us, side="left"))
        return self.other[first:last][::-1], self.flag[first:last][::-1]


@dataclass(frozen=True)
class PastTaste:
    """Everybody's latest likes just before an instant, as `registry.scoring` wants to know them of candidates."""

    people: People
    history: LikeHistory
    at_us: int

    def similarity(self, embedding: Embedding, user_ids: Ids, chosen: Floats, last: int, *, to: int) -> Floats:
        """Return float32[n]: highest cosine of Q `chosen` of `to` to any Q each person liked, NaN without."""
        positions = self.people.positions(user_ids)
        instants = np.full(positions.size, self.at_us, dtype=np.int64)
        liked = self.history.last_before(positions, instants, last + 1)
        ids = np.where(liked >= 0, self.people.user_ids[np.maximum(liked, 0)], -1)
        return embedding.nearest_liked(ids, chosen, last, but=to)

"""How people came to be judged: met by chance, or chosen by whoever judges them.

Nobody knows why a pair met that was not shown by this platform, but the passes tell. Where people meet by chance, those
who are passed on stand in the middle of everybody who might have been shown. Where they choose whom they look at, even
those they pass on are near to whom they like: then a list has to hold whom they would look at, and telling likes from
passes misleads.
"""

from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

from feature_repo.population.people import People
from feature_repo.transforms import Terms
from pipelines.retrieval.tuning import Question
from registry.models.embedding import Embedding

MET: Final = "people_met"
"""Under this name the pointer of the embeddings says how."""
_MOST_ASKED = 200
_LEAST_JUDGED = 50
_MIDDLE = 0.5


class Meeting(StrEnum):
    """How the pairs that were judged had met."""

    BY_CHANCE = "by chance"
    BY_TASTE = "by taste"
    UNKNOWN = "unknown"


class Places(NamedTuple):
    """Where those who were passed on, and those who were liked, stand on average among all: 0 last, 1 first."""

    passed: float
    liked: float

    @property
    def meeting(self) -> Meeting:
        """Return how people met: by taste where the passed on are nearer to the liked than to the middle."""
        if np.isnan(self.passed) or np.isnan(self.liked):
            return Meeting.UNKNOWN
        return Meeting.BY_TASTE if self.passed >= (_MIDDLE + self.liked) / 2 else Meeting.BY_CHANCE


NOWHERE: Final = Places(float("nan"), float("nan"))


def places_of(question: Question, embedding: Embedding, people: People, at_s: float) -> Places:
    """Return where those who were judged stand among everybody who might have been shown at unix seconds `at_s`.

    The factors must have learned from likes alone. NaN where too few people were passed on, or liked.
    """
    _, chosen = embedding.vectors(people.user_ids)
    everybody = np.arange(len(people))
    passed: list[float] = []
    liked: list[float] = []
    for number, actor in enumerate(question.actor[:_MOST_ASKED].tolist()):
        known, likes = question.history[number], question.history_likes[number]
        terms = Terms.of(people.take(np.array([actor])), at_s, exclude=np.sort(people.user_ids[known]))
        may_be_shown = terms.met(people, everybody)
        taste = embedding.fold_in_chooser(people.user_ids[known[likes]], people.user_ids[known[~likes]])
        scores = chosen @ taste
        rest = np.sort(scores[may_be_shown])
        for places, targets in ((passed, question.passed[number]), (liked, question.liked[number])):
            found = scores[targets[may_be_shown[targets]]]
            upto = np.searchsorted(rest, found, side="left") + np.searchsorted(rest, found, side="right")
            places.extend((upto / (2 * max(rest.size, 1))).tolist())
    if min(len(passed), len(liked)) < _LEAST_JUDGED:
        return NOWHERE
    return Places(float(np.mean(passed)), float(np.mean(liked)))

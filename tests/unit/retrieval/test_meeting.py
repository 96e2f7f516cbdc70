"""Passes tell whether people met by chance or looked for whom they judge."""

import numpy as np
import pytest

from feature_repo.population.people import People
from pipelines.features.events import LIKE, PASS, Events
from pipelines.retrieval.config import EmbeddingConfig, TuningConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.factorise import fit_embedding
from pipelines.retrieval.meeting import Meeting, Places, places_of
from pipelines.retrieval.tuning import Question, Worth, likes_alone

N = 60
IDS = np.arange(1, 2 * N + 1, dtype=np.int64)
PEOPLE = People.build(IDS)
START = likes_alone(EmbeddingConfig(dimensions=4, iterations=10, regularization=1.0, threads=1))


def judgements(*, chosen: bool) -> Events:
    """Sixty people judge twenty of the others, sixty as well, and like half of those whose colour is theirs.

    They look only at their own colour if they choose whom they look at, else at both colours alike.
    """
    rng = np.random.default_rng(5)
    rows = []
    for person in range(N):
        own = np.arange(N) % 2 == person % 2
        seen = rng.choice(np.flatnonzero(own) if chosen else np.arange(N), size=20, replace=False)
        rows += [(person, N + int(target), LIKE if own[target] and rng.random() < 0.5 else PASS) for target in seen]
    actor, target, kind = np.array(rows, dtype=np.int32)[rng.permutation(len(rows))].T
    return Events(IDS, actor, target, kind.astype(np.int8), np.arange(actor.size, dtype=np.int64))


def places(events: Events) -> Places:
    question = Question.next(events, TuningConfig(share=0.5))
    assert question is not None
    embedding, _ = fit_embedding(question.early, IDS, inputs_of(PEOPLE, 0.0), START)
    return places_of(question, embedding, PEOPLE, 0.0)


@pytest.mark.parametrize(("chosen", "met"), [(True, Meeting.BY_TASTE), (False, Meeting.BY_CHANCE)])
def test_who_is_passed_on_stands_near_the_liked_only_where_people_chose_whom_they_look_at(
    *, chosen: bool, met: Meeting
) -> None:
    assert places(judgements(chosen=chosen)).meeting is met


def test_without_passes_nothing_is_known_of_how_people_met() -> None:
    events = judgements(chosen=True)
    assert places(events.take(events.is_like)).meeting is Meeting.UNKNOWN


def test_telling_apart_counts_only_where_people_met_by_chance() -> None:
    first, other = Worth(0.2, 0.1), Worth(0.1, 0.3)
    assert other.beside(first, by_chance=False) == pytest.approx(0.5)
    assert other.beside(first, by_chance=True) == pytest.approx((0.5 + 3.0) / 2)
    assert Worth(0.1, float("nan")).beside(first, by_chance=True) == pytest.approx(0.5)

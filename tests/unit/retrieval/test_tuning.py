"""Settings are chosen by the lists they give on likes that were held back, within the trials allowed."""

import numpy as np

from feature_repo.population.people import People
from pipelines.features.events import LIKE, Events
from pipelines.retrieval.assets import search_curves
from pipelines.retrieval.config import EmbeddingConfig, TuningConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.tuning import Question, Trial, tune

N = 40
IDS = np.arange(1, 2 * N + 1, dtype=np.int64)
START = EmbeddingConfig(dimensions=4, iterations=3, threads=1)


def two_tastes() -> Events:
    """Forty people like a random half of the twenty whose colour is theirs, one after the other."""
    rng = np.random.default_rng(5)
    rows = []
    for person in range(N):
        own = N + np.flatnonzero(np.arange(N) % 2 == person % 2)
        rows += [(person, int(target)) for target in rng.permutation(own)[:10]]
    order = rng.permutation(len(rows))
    actor, target = np.array(rows, dtype=np.int32)[order].T
    n = actor.size
    return Events(IDS, actor, target, np.full(n, LIKE, np.int8), np.arange(n, dtype=np.int64))


def tuned(**config: float) -> tuple[EmbeddingConfig, list[Trial]]:
    chosen = TuningConfig.model_validate({"trials": 4, **config})
    return tune(two_tastes(), IDS, inputs_of(People.build(IDS), 0.0), START, chosen)


def test_the_best_of_the_trials_is_chosen_and_its_lists_hold_ones_own_colour() -> None:
    chosen, trials = tuned()
    assert len(trials) == 4
    best = max(trials, key=lambda trial: trial.merit)
    assert chosen == best.config
    assert len(best.worth) == 2  # what came next, and what was missing
    assert min(worth.ndcg for worth in best.worth) > 0.2  # by chance it would be less than a tenth


def test_equal_data_give_equal_choices() -> None:
    first, second = tuned(), tuned()
    assert first[0] == second[0]
    assert [trial.merit for trial in first[1]] == [trial.merit for trial in second[1]]


def test_without_trials_or_people_the_given_settings_stay() -> None:
    assert tuned(trials=0) == (START, [])
    nobody = two_tastes().take(slice(0, 3))
    assert tune(nobody, IDS, inputs_of(People.build(IDS), 0.0), START, TuningConfig()) == (START, [])


def test_each_trial_is_a_step_of_the_curves() -> None:
    _, trials = tuned()
    curves = search_curves(trials)
    assert set(curves) == {"trial_merit", "trial_ndcg_at_20_next", "trial_ndcg_at_20_missing"}
    assert curves["trial_merit"] == [round(trial.merit, 5) for trial in trials]
    assert curves["trial_ndcg_at_20_missing"] == [round(trial.worth[-1].ndcg, 5) for trial in trials]
    assert search_curves([]) == {}


def test_what_won_before_is_tried_first() -> None:
    known = START.model_copy(update={"alpha": 7.0, "content_rounds": 0})
    _, trials = tune(two_tastes(), IDS, inputs_of(People.build(IDS), 0.0), START, TuningConfig(trials=2), known=known)
    assert trials[0].config == known


def test_a_question_asks_only_what_can_be_found() -> None:
    question = Question.next(two_tastes(), TuningConfig())
    assert question is not None
    for known, likes, liked in zip(question.history, question.history_likes, question.liked, strict=True):
        assert likes.any()
        assert liked.size
        assert not np.isin(liked, known).any()

"""A search finds a known best, gives up what is hopeless, and goes on where it was killed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from feature_repo.layout import RANKING_FEATURES
from pipelines.evaluation.search.assets import require_best, train_with
from pipelines.evaluation.search.config import SPACES, SearchConfig
from pipelines.evaluation.search.errors import NoTrial
from pipelines.evaluation.search.objectives import ranker_objective
from pipelines.evaluation.search.study import (
    COMPLETE,
    PRUNED,
    TrialOutcome,
    best_of,
    importances,
    keep_outcome,
    open_study,
    read_outcomes,
    run_study,
)
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.errors import OneClass
from pipelines.ranking.files import RankingRows
from pipelines.ranking.rows import RowKind
from pipelines.ranking.train import validation_loss
from pipelines.retrieval.config import EmbeddingConfig

Report = Callable[[int, float], None]


def bowl(parameters: Mapping[str, float], _report: Report) -> float:
    """Be least at a depth of five and a subsample of 0.8; nothing else matters."""
    return (parameters["max_depth"] - 5) ** 2 + 10 * (parameters["subsample"] - 0.8) ** 2


def search(
    config: SearchConfig, earlier: list[TrialOutcome], objective: Callable[..., float] = bowl
) -> list[TrialOutcome]:
    outcomes = list(earlier)
    run_study(open_study(config, earlier), config, objective, outcomes.append)
    return outcomes


def test_the_best_is_found_and_equal_seeds_give_equal_trials() -> None:
    config = SearchConfig(trials=40, seed=3)
    first = search(config, [])
    assert len(first) == 40
    best = best_of(first, "ranker")
    assert best is not None
    assert best.parameters["max_depth"] == 5
    assert search(config, []) == first
    assert search(SearchConfig(trials=40, seed=4), []) != first


def test_what_matters_is_told_from_what_does_not() -> None:
    config = SearchConfig(trials=60, seed=1)
    study = open_study(config, [])
    run_study(study, config, bowl, lambda _outcome: None)
    shares = importances(study)
    assert set(shares) == set(SPACES["ranker"])
    assert next(iter(shares)) == "max_depth"
    assert importances(open_study(config, [])) == {}


def test_a_killed_search_goes_on_with_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    for outcome in search(SearchConfig(trials=5), []):
        keep_outcome(path, outcome)
    with path.open("a") as file:
        file.write('{"number": 5, "parame')  # the sixth was being written
    earlier = read_outcomes(path)
    assert len(earlier) == 5
    later = search(SearchConfig(trials=8), earlier)
    assert [outcome.number for outcome in later] == list(range(8))
    assert later[:5] == earlier
    assert len({outcome.parameters["l2"] for outcome in later}) == 8  # nothing is tried twice
    for outcome in later[5:]:
        keep_outcome(path, outcome)
    assert read_outcomes(path) == later
    assert search(SearchConfig(trials=8), later) == later


def test_a_trial_that_is_worse_than_most_by_then_is_given_up() -> None:
    def steady(parameters: Mapping[str, float], report: Report) -> float:
        value = bowl(parameters, report)
        for step in range(20):
            report(step, value)
        return value

    states = [outcome.state for outcome in search(SearchConfig(trials=30), [], steady)]
    assert states[:5] == [COMPLETE] * 5
    assert PRUNED in states
    assert PRUNED not in [o.state for o in search(SearchConfig(trials=30, prune=False), [], steady)]


def test_no_trial_begins_after_the_time_is_over() -> None:
    outcomes = search(SearchConfig(trials=2_000, timeout_s=1), [], lambda _p, _r: 1.0)
    assert 0 < len(outcomes) < 2_000


def test_an_embedding_is_better_with_a_higher_value() -> None:
    outcomes = [
        TrialOutcome(0, {}, 0.6, COMPLETE),
        TrialOutcome(1, {}, 0.9, PRUNED),
        TrialOutcome(2, {}, 0.7, COMPLETE),
    ]
    assert best_of(outcomes, "embeddings") == outcomes[2]
    assert best_of(outcomes, "ranker") == outcomes[0]


def test_a_search_without_a_finished_trial_says_what_to_raise() -> None:
    with pytest.raises(NoTrial, match="within 5 s; raise `timeout_s`"):
        require_best([TrialOutcome(0, {}, 1.0, PRUNED)], SearchConfig(timeout_s=5))


@pytest.mark.parametrize(("stage", "model"), [("ranker", RankerConfig), ("embeddings", EmbeddingConfig)])
def test_the_corners_of_a_space_are_accepted_by_its_stage(stage: str, model: type[BaseModel]) -> None:
    space = SPACES[stage]  # type: ignore[index]
    for pick in ("low", "high"):
        model.model_validate({name: getattr(limits, pick) for name, limits in space.items()})


def test_the_line_to_paste_trains_with_the_best() -> None:
    line = train_with("ranker", {"max_depth": 5, "learning_rate": 0.123456789})
    assert line == "duet train --job train_ranker --set ranker.max_depth=5 --set ranker.learning_rate=0.123457"
    assert train_with("embeddings", {"dimensions": 32}) == "duet train --job train_all --set embeddings.dimensions=32"


def test_the_loss_of_a_ranker_is_that_of_rows_it_has_not_seen() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 2)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.float32)
    labels[480:] = 1 - labels[480:]  # from here on the world is upside down
    at_us = np.arange(600, dtype=np.int64)
    told: list[int] = []
    config = RankerConfig(rounds=20, threads=1, max_depth=2)
    names = ("a", "b")
    loss = validation_loss(
        features, labels, at_us, config, after_round=lambda step, _v: told.append(step), feature_names=names
    )
    assert loss > 0.69
    assert told == list(range(20))
    with pytest.raises(OneClass):
        validation_loss(features, np.ones(600), at_us, config, after_round=lambda _s, _v: None, feature_names=names)


def rows_of(kind: RowKind, labels: np.ndarray, features: np.ndarray) -> RankingRows:
    n = labels.size
    at_us, ids = np.arange(n, dtype=np.int64), np.ones(n, dtype=np.int64)
    return RankingRows(
        features, labels.astype(np.float32), at_us, ids, ids, np.ones(n, np.float32), np.full(n, kind, np.int8),
        np.zeros(n, np.bool_),
    )  # fmt: skip


def test_a_ranker_is_searched_for_on_likes_alone_by_whom_people_chose_among_those_found() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, len(RANKING_FEATURES))).astype(np.float32)
    chosen = features[:, RANKING_FEATURES.index("item_knn_score")] > 0
    likes, found = rows_of(RowKind.LIKE, np.ones(400), features), rows_of(RowKind.CHOICE, chosen, features)
    both = RankingRows(
        **{name: np.concatenate([getattr(part, name) for part in (likes, found)]) for name in vars(found)}
    )
    judge = ranker_objective(both, SearchConfig(threads=1))
    assert judge({"rounds": 20, "max_depth": 2}, lambda _step, _value: None) < 0.5
    with pytest.raises(OneClass, match="none of the people found for somebody was liked afterwards"):
        ranker_objective(likes, SearchConfig())

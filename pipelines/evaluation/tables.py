"""The tables of a comparison: each method by each measure, its difference from the two stages, and the same in slices.

Every measure of a person is a mean over people with its bootstrap interval; differences are paired, person by person.
What cannot be measured is absent, never zero.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.layout import GENDER_CODES, PROFILE
from pipelines import metrics
from pipelines.evaluation import oracle
from pipelines.evaluation.methods import TWO_STAGE
from pipelines.evaluation.protocols import ProtocolResult, Rankings
from pipelines.evaluation.scene import Scene

Values = npt.NDArray[np.float64]
TOP, WIDE = 10, 20
COLUMNS = (
    "method", "measure", "mean", "low", "high", "people", "difference", "difference_low", "difference_high",
)  # fmt: skip
"""`difference` is the method's mean minus that of the two stages over the same people, NaN where there is none."""
SLICE_COLUMNS = ("method", "slice", "group", "measure", "mean", "low", "high", "people")
SLICED = ("ndcg_at_20", "recall_at_20", "match_precision_at_10")
_NOTHING = float("nan")
_DECILES = 10
_GENDERS = {code: name for name, code in GENDER_CODES.items()}


def personal(scene: Scene, protocol: str, lists: Rankings, truth: oracle.LikeProbability | None) -> dict[str, Values]:
    """Return every measure of one method's lists that each person has a value of, float64[n] by name."""
    found: dict[str, Values] = {}
    if protocol == "catalogue":
        found["recall_at_100"] = metrics.recall_at(lists.liked, lists.relevant, 100)
        found["recall_at_500"] = metrics.recall_at(lists.liked, lists.relevant, 500)
    found["ndcg_at_10"] = metrics.ndcg_at(lists.liked, lists.relevant, TOP)
    found["map_at_10"] = metrics.average_precision_at(lists.liked, lists.relevant, TOP)
    for k in (3, TOP) if protocol == "met" else (TOP,):
        found[f"match_precision_at_{k}"] = metrics.precision_at(lists.matched, k, lists.sizes)
    found["match_recall_at_10"] = metrics.match_recall_at(lists.matched, lists.to_match, TOP)
    found["recall_at_20"] = metrics.recall_at(lists.liked, lists.relevant, WIDE)
    found["ndcg_at_20"] = metrics.ndcg_at(lists.liked, lists.relevant, WIDE)
    found["mrr_at_20"] = metrics.reciprocal_rank_at(lists.liked, lists.relevant, WIDE)
    found["novelty_at_10"] = metrics.novelty(lists.shown[:, :TOP], scene.likes_received)
    if truth is not None:
        found["true_match_precision_at_10"] = oracle.expected_match_precision(lists, scene.people.user_ids, truth, TOP)
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def comparison_table(scene: Scene, result: ProtocolResult, truth: oracle.LikeProbability | None) -> pd.DataFrame:
    """Return methods by measures with COLUMNS."""
    measured = {name: personal(scene, result.protocol, lists, truth) for name, lists in result.rankings.items()}
    reference = measured.get(TWO_STAGE, {})
    rounds, seed = scene.config.bootstrap_rounds, scene.config.seed
    rows: list[tuple[object, ...]] = []
    for name, lists in result.rankings.items():
        for measure, values in measured[name].items():
            own = metrics.bootstrap_interval(values, rounds, seed)
            apart = (_NOTHING, _NOTHING, _NOTHING)
            if name != TWO_STAGE and measure in reference:
                found = metrics.difference_interval(values, reference[measure], rounds, seed)
                apart = (found.mean, found.low, found.high)
            rows.append((name, measure, own.mean, own.low, own.high, own.n, *apart))
        rows += [
            (name, measure, value, _NOTHING, _NOTHING, n, _NOTHING, _NOTHING, _NOTHING)
            for measure, value, n in _of_all_lists(scene, result, lists)
        ]
    if truth is not None:
        requesters = next(iter(result.rankings.values())).requesters
        best = oracle.oracle_match_precision(result, requesters, scene.people.user_ids, truth, TOP)
        own = metrics.bootstrap_interval(best, rounds, seed)
        apart = (_NOTHING, _NOTHING, _NOTHING)
        if (name := "true_match_precision_at_10") in reference:
            found = metrics.difference_interval(best, reference[name], rounds, seed)
            apart = (found.mean, found.low, found.high)
        rows.append((oracle.ORACLE, name, own.mean, own.low, own.high, own.n, *apart))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_all_lists(scene: Scene, result: ProtocolResult, lists: Rankings) -> Iterator[tuple[str, float, int]]:
    """Yield the measures that only all lists together have: exposure, and matches that either side could find."""
    n = len(scene.people)
    exposure = metrics.exposure_of(lists.shown[:, :TOP], n)[result.reachable]
    yield "coverage_at_10", metrics.coverage(exposure), int(exposure.size)
    yield "gini_at_10", metrics.gini(exposure), int(exposure.size)
    pairs = matches_among(scene, lists.requesters)
    if len(pairs):
        whole = metrics.holistic_at(lists.requesters, lists.shown, pairs, TOP)
        yield "holistic_recall_at_10", whole.coverage_recall, len(pairs)
        yield "holistic_precision_at_10", whole.coverage_precision, len(pairs)
        yield "stable_recall_at_10", whole.stable_recall, len(pairs)
        yield "stable_precision_at_10", whole.stable_precision, len(pairs)
        yield "holistic_ndcg_at_10", whole.ndcg, len(pairs)


def matches_among(scene: Scene, requesters: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the matches of the held-out window both of whose people were asked, int64[m, 2] of distinct pairs."""
    held_out = scene.held_out.take(scene.held_out_matched)
    pairs = np.stack([np.minimum(held_out.actor, held_out.target), np.maximum(held_out.actor, held_out.target)], axis=1)
    both = np.isin(pairs, requesters).all(axis=1)
    return np.unique(pairs[both], axis=0).astype(np.int64)


def slice_table(scene: Scene, result: ProtocolResult) -> pd.DataFrame:
    """Return the measures in SLICED for newcomers, by activity and gender, and recall by popularity."""
    before = scene.before
    decisions = np.bincount(before.actor[before.is_decision], minlength=before.n_people)
    genders = scene.people.profile[:, PROFILE.index("gender")]
    rounds, seed = scene.config.bootstrap_rounds, scene.config.seed
    rows: list[tuple[object, ...]] = []
    for name, lists in result.rankings.items():
        measured = personal(scene, result.protocol, lists, None)
        own = decisions[lists.requesters].astype(np.int64)
        kinds = {
            "swipes": metrics.by_swipes(own),
            "activity": metrics.by_activity(own),
            "gender": metrics.by_label([gender_name(genders[requester]) for requester in lists.requesters.tolist()]),
        }
        for kind, slices in kinds.items():
            for measure in (measure for measure in SLICED if measure in measured):
                for group, found in slices.intervals(measured[measure], rounds, seed).items():
                    if found.n:
                        rows.append((name, kind, group, measure, found.mean, found.low, found.high, found.n))
        rows += _by_popularity(scene, name, result, lists)
    return pd.DataFrame(rows, columns=list(SLICE_COLUMNS))


def gender_name(code: float) -> str | None:
    """Return the name of a gender's code, one for all that have no fixed code; None where it is unknown."""
    if not code > 0:
        return None
    return _GENDERS.get(int(code), "another gender")


def _by_popularity(scene: Scene, name: str, result: ProtocolResult, lists: Rankings) -> Iterator[tuple[object, ...]]:
    """Yield how many of the liked candidates of each popularity decile are among the first 20."""
    deciles = metrics.quantile_groups(scene.likes_received, _DECILES)
    likes = scene.held_out.take(scene.held_out.is_like)
    n = len(scene.people)
    open_ = np.concatenate(
        [who * n + candidates for who, candidates in zip(lists.requesters.tolist(), result.candidates, strict=True)]
    )
    relevant = np.intersect1d(likes.pair, open_)
    shown = lists.shown[:, :WIDE]
    listed = (lists.requesters[:, None] * n + shown)[shown >= 0]
    groups = deciles[relevant % n]
    counts = np.bincount(groups, minlength=_DECILES)
    shares = metrics.recall_by_group(relevant % n, np.isin(relevant, listed), deciles, _DECILES)
    for group, (share, count) in enumerate(zip(shares.tolist(), counts.tolist(), strict=True)):
        if count:
            label = f"decile {group + 1} of popularity"
            yield name, "popularity", label, "recall_at_20", share, _NOTHING, _NOTHING, count

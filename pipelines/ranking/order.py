"""Choose the order that is served: the trees only where they beat the best simpler order, by likes and matches.

Whether the other side's answer counts in the trees' order is decided by matches alone, where they can decide it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from pipelines import metrics
from pipelines.metrics import Interval
from pipelines.ranking.lists import MATCH_TOP, JudgedLists, is_simple
from pipelines.ranking.merit import TOP, mean_known
from registry.models.ranker import ListPolicy, Order

_MIN_REQUESTERS = 20


@dataclass(frozen=True)
class OrderChoice:
    """The policy that is served, the best simpler one, and the interval of the difference in merit to the trees."""

    chosen: ListPolicy
    simpler: ListPolicy
    difference: Interval
    figures: Mapping[str, JsonValue]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per compared policy, for people to read."""
        by_policy = self.figures["policies"]
        named = by_policy.items() if isinstance(by_policy, dict) else ()
        return [{"order": name, **values} for name, values in named if isinstance(values, dict)]

    def metrics(self) -> dict[str, float]:
        """Return the figures of the served policy under names that MLflow accepts."""
        served = next(row for row in self.rows() if row["order"] == self.figures["chosen"])
        numbers = {f"held_out_{name}": value for name, value in served.items() if isinstance(value, float)}
        for name in ("held_out_auc", "calibration_error"):
            value = self.figures.get(name)
            if isinstance(value, float):
                numbers[name] = value
        return numbers


def choose(coming: JudgedLists, missing: JudgedLists, seed: int) -> OrderChoice:
    """Choose the served policy by what came next and by what was missing.

    The trees are chosen where their merit is higher than that of the best simpler order, and surely lower by neither
    question. With little evidence the simplest order stays, that of the first stage.
    """
    every, simple = coming.policies, np.array([is_simple(policy) for policy in coming.policies])
    nothing = Interval(float("nan"), float("nan"), float("nan"), coming.requesters)
    judged = [lists for lists in (coming, missing) if lists.requesters >= _MIN_REQUESTERS]
    if not judged:
        first = every[int(np.flatnonzero(simple)[0])]
        return OrderChoice(first, first, nothing, figures(coming, missing, first, first, seed=seed))
    merit = np.mean([lists.utility() for lists in judged], axis=0)
    chosen = best_simple = int(np.flatnonzero(simple)[np.argmax(merit[simple])])
    difference = nothing
    if not simple.all():
        trees = _worth_most_in_matches(judged, np.flatnonzero(~simple), seed)
        best_trees = int(trees[np.argmax(merit[trees])])
        gains = [
            metrics.bootstrap_interval(lists.merits()[best_trees] - lists.merits()[best_simple], 500, seed)
            for lists in judged
        ]
        difference = gains[0]
        # Better by both questions together, and surely worse by neither.
        if merit[best_trees] > merit[best_simple] and all(gain.high >= 0 for gain in gains):
            chosen = best_trees
    winner, rival = every[chosen], every[best_simple]
    return OrderChoice(winner, rival, difference, figures(coming, missing, winner, rival, seed=seed))


def _worth_most_in_matches(
    judged: Sequence[JudgedLists], trees: npt.NDArray[np.intp], seed: int
) -> npt.NDArray[np.intp]:
    """Return the rows of the policies whose aggregator surely brings the most matches; all where none surely does.

    Whether the other side's answer counts is a question of matches: whoever looks at the requester alone always gathers
    more likes.
    """
    every = judged[0].policies
    merits = [lists.match_merits() for lists in judged]
    in_matches = np.mean([of_each.mean(axis=1) for of_each in merits], axis=0)
    best = int(trees[np.argmax(in_matches[trees])])
    others = [int(row) for row in trees if every[row].aggregator is not every[best].aggregator]
    if not others:
        return trees
    rival = max(others, key=lambda row: float(in_matches[row]))
    gained = np.concatenate([of_each[best] - of_each[rival] for of_each in merits])
    if metrics.bootstrap_interval(gained, 500, seed).low <= 0:
        return trees
    return np.array([row for row in trees if every[row].aggregator is every[best].aggregator])


def figures(
    coming: JudgedLists, missing: JudgedLists, chosen: ListPolicy, simpler: ListPolicy, *, seed: int
) -> dict[str, JsonValue]:
    """Return what the manifest keeps of a judgement: figures of every policy by name."""
    by_policy: dict[str, JsonValue] = {}
    for row, policy in enumerate(coming.policies):
        by_policy[name_of(policy)] = {
            f"ndcg_at_{TOP}": mean_known(coming.likes[row]),
            f"match_ndcg_at_{TOP}": mean_known(coming.matches[row]),
            f"match_precision_at_{MATCH_TOP}": mean_known(coming.match_precision[row]),
            f"missing_ndcg_at_{TOP}": mean_known(missing.likes[row]),
            f"missing_match_ndcg_at_{TOP}": mean_known(missing.matches[row]),
            "told_apart": mean_known(coming.told_apart[row]),
            "matches_told_apart": mean_known(coming.matches_told_apart[row]),
        }
    return {
        "requesters": coming.requesters,
        "requesters_of_missing": missing.requesters,
        "has_matches": coming.has_matches,
        "gains": _gains(coming, chosen, seed),
        "chosen": name_of(chosen),
        "simpler": name_of(simpler),
        "policies": by_policy,
    }


def _gains(judged: JudgedLists, chosen: ListPolicy, seed: int) -> dict[str, JsonValue]:
    """Return the intervals of the differences to popularity and to the best order of the first stage, by measure."""
    gains: dict[str, JsonValue] = {}
    own = judged.policies.index(chosen)
    rivals = {
        "popularity": [row for row, policy in enumerate(judged.policies) if policy.order is Order.POPULAR],
        "first_stage": [row for row, policy in enumerate(judged.policies) if policy.order is Order.RETRIEVAL],
    }
    for name, rows in rivals.items():
        if not rows or not judged.requesters:
            continue
        for measure, values in (("likes", judged.likes), ("matches", judged.match_precision)):
            if measure == "matches" and not judged.has_matches:
                continue
            best = max(rows, key=lambda row: float(np.nanmean(values[row])))
            found = metrics.bootstrap_interval(values[own] - values[best], 500, seed)
            gains[f"{measure}_over_{name}"] = [found.mean, found.low, found.high]
    return gains


def name_of(policy: ListPolicy) -> str:
    """Return a policy's name in tables, e.g. `ranker choice product w0.5`."""
    words = [policy.order.value]
    if policy.order is Order.RANKER:
        words += [policy.forward.value, policy.aggregator.value]
    if policy.order in {Order.RANKER, Order.RETRIEVAL, Order.BLEND}:
        words.append(f"w{policy.weight:g}")
    return " ".join(words)

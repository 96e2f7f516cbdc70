"""Boosted trees as flat arrays for one compiled loop; XGBoost stays the reader, the proof and what answers otherwise.

XGBoost spends most of a few hundred rows on getting started. Shallow binary trees, filled up to one depth, are a
handful of comparisons without a branch; whatever else a booster may hold (categories, deep trees, other objectives)
is left to XGBoost. The loop adds the same float32 leaves in the same order.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled
from registry.models.arrays import Floats

_MAX_DEPTH: Final = 6
_LEAF: Final = -1
_TOLERANCE: Final = 1e-6
_PROBES: Final = 64


@dataclass(frozen=True, eq=False)
class Trees:
    """t trees of one `depth`: the inner nodes of each level by level, then its leaves.

    `column` uint32 and `threshold` float32 [t, 2**depth - 1]; a column beyond the last, less their number, is one whose
    missing value goes right. `leaf` float32[t, 2**depth]; `margin` is what every row starts with.
    """

    depth: int
    column: NDArray[np.uint32]
    threshold: Floats
    leaf: Floats
    margin: np.float32

    @classmethod
    def of(cls, booster: Any) -> Self | None:
        """Return the trees of a booster; None unless they are binary, numeric, shallow, and answer as XGBoost does."""
        learner = json.loads(bytes(booster.save_raw(raw_format="json")))["learner"]
        if learner["objective"]["name"] != "binary:logistic" or learner["gradient_booster"]["name"] != "gbtree":
            return None
        grown = learner["gradient_booster"]["model"]["trees"]
        if not all(map(_is_whole, grown)):
            return None
        depth = max(map(_depth, grown), default=0)
        k = int(booster.num_features())
        odd = any(any(tree["split_type"]) or max(tree["split_indices"]) >= k for tree in grown)
        if odd or not 1 <= depth <= _MAX_DEPTH:
            return None
        inner, n = 2**depth - 1, len(grown)
        trees = cls(
            depth,
            np.zeros((n, inner), dtype=np.uint32),
            # A tree that ends sooner is filled up with nodes whose ways both lead to its leaf.
            np.zeros((n, inner), dtype=np.float32),
            np.zeros((n, inner + 1), dtype=np.float32),
            _margin(learner["learner_model_param"]["base_score"]),
        )
        for number, tree in enumerate(grown):
            trees._lay_out(number, tree, k, node=0, place=0)
        return trees if trees._agree_with(booster, k) else None

    def predict(self, features: Floats, columns: NDArray[np.int64], fill: np.float32) -> tuple[Floats, int]:
        """Return P(like) float32[n] of the `columns` of float32[n, k], and the first row that cannot be scored, or -1.

        `fill` is what stands for NaN, or NaN. A row with an infinite value, or without any, cannot be scored.
        """
        return predicted(
            features, columns, fill, self.depth, self.column.ravel(), self.threshold.ravel(), self.leaf.ravel(),
            self.margin,
        )  # fmt: skip

    def _lay_out(self, number: int, tree: dict[str, Any], k: int, *, node: int, place: int) -> None:
        """Write the part of a tree below `node` to `place`, counted level by level from the root."""
        inner = self.column.shape[1]
        if place >= inner:
            self.leaf[number, place - inner] = tree["split_conditions"][node]
            return
        left, right = node, node
        if tree["left_children"][node] != _LEAF:
            left, right = tree["left_children"][node], tree["right_children"][node]
            self.column[number, place] = tree["split_indices"][node] + (0 if tree["default_left"][node] else k)
            self.threshold[number, place] = tree["split_conditions"][node]
        self._lay_out(number, tree, k, node=left, place=2 * place + 1)
        self._lay_out(number, tree, k, node=right, place=2 * place + 2)

    def _agree_with(self, booster: Any, k: int) -> bool:
        """Say whether rows on and beside the thresholds, some with holes, score as the booster scores them."""
        rng = np.random.default_rng(0)
        rows = np.zeros((_PROBES, k), dtype=np.float32)
        for column in range(k):
            bounds = np.unique(self.threshold[self.column % k == column])
            near = np.concatenate([bounds, np.nextafter(bounds, np.float32(-np.inf)), [np.float32(np.nan)]])
            rows[:, column] = rng.choice(near, _PROBES)
        rows[np.isnan(rows).all(axis=1), 0] = 0.0
        ours, refused = self.predict(rows, np.arange(k), np.float32(np.nan))
        theirs = np.asarray(booster.inplace_predict(rows, validate_features=False), dtype=np.float32)
        return refused < 0 and bool(np.abs(ours - theirs).max() <= _TOLERANCE)


@compiled
def predicted(
    features: Floats, columns: NDArray[np.int64], fill: np.float32, depth: int, column: NDArray[np.uint32],
    threshold: Floats, leaf: Floats, margin: np.float32,
) -> tuple[Floats, int]:  # fmt: skip
    """Return what `Trees.predict` returns, without a branch that depends on a feature's value."""
    n, k = len(features), len(columns)
    out = np.empty(n, dtype=np.float32)
    # Each row twice: a missing value is the lowest for nodes that send it left, the highest for the others.
    row = np.empty(2 * k, dtype=np.float32)
    leaves = np.uint64(1 << depth)  # unsigned: numba need not ask whether a place counts from the end
    inner = leaves - np.uint64(1)
    low, high = fill, fill
    if math.isnan(fill):
        low, high = np.float32(-np.inf), np.float32(np.inf)
    for i in range(n):
        known, largest = 0, np.float32(0.0)
        for j in range(k):
            value = features[i, columns[j]]
            is_known = value == value  # noqa: PLR0124 - NaN is what differs from itself
            known += is_known
            largest = abs(value) if abs(value) > largest else largest
            row[j] = value if is_known else low
            row[k + j] = value if is_known else high
        if not known or largest == np.inf:
            return out, i
        total = margin
        for tree in range(np.uint64(len(leaf)) // leaves):
            place = np.uint64(0)
            for _ in range(depth):
                node = tree * inner + place
                place = np.uint64(2) * place + np.uint64(1) + np.uint64(row[column[node]] >= threshold[node])
            total += leaf[tree * leaves + place - inner]
        out[i] = np.float32(1.0) / (np.float32(1.0) + np.exp(-total))
    return out, -1


def _is_whole(tree: dict[str, Any]) -> bool:
    """Say whether every node but the root is the child of exactly one other, so that a walk down ends."""
    children = [child for side in ("left_children", "right_children") for child in tree[side] if child != _LEAF]
    return sorted(children) == list(range(1, len(tree["left_children"])))


def _depth(tree: dict[str, Any]) -> int:
    """Return the depth of a tree, or what is more than the most, however the file goes on."""
    left, right = tree["left_children"], tree["right_children"]
    level = [0]
    for depth in range(_MAX_DEPTH + 1):
        level = [child for node in level if left[node] != _LEAF for child in (left[node], right[node])]
        if not level:
            return depth
    return _MAX_DEPTH + 1


def _margin(base_score: str) -> np.float32:
    chance = np.float32(base_score.strip("[]"))
    return np.float32(-np.log(np.float32(1.0) / chance - np.float32(1.0)))

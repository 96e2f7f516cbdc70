"""Splits that published results use, and the full ranking that goes with them: everybody, never sampled negatives.

The split by the global clock is in `windows`; it alone leaks nothing. `leave_last_out` is what many papers report: the
answer to a held-out like may lie in the other person's training part, which flatters reciprocal methods. A given split
takes a paper's own train and test files, between people or from users to items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from pipelines.evaluation.errors import RefusedSplit

Positions = npt.NDArray[np.int64]
Scorer = Callable[[Positions], npt.NDArray[np.floating]]
"""Scores float[n, n targets] of all targets for some actors, given by position."""
_BLOCK = 1_024
_LEAST_LIKES = 2
_TIMES = ("at", "occurred_at", "timestamp")


def leave_last_out(interactions: pd.DataFrame, threshold: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training and the test part: the last like of everybody who made at least two is the test.

    Later rows of a held-out pair belong to neither part. The columns are those of `given_split` and one of `at`,
    `occurred_at` and `timestamp`; rows of the same instant keep their order.

    Raises:
        RefusedSplit: there is no column of times, or nobody likes two.

    """
    times = next((name for name in _TIMES if name in interactions.columns), None)
    if times is None:
        raise RefusedSplit(f"The file has no column of times: name it {', '.join(f'`{name}`' for name in _TIMES)}.")
    ordered = interactions.sort_values(times, kind="stable").reset_index(drop=True)
    columns = _columns(ordered, "only", threshold)
    likes = columns[columns["liked"]]
    last = likes.drop_duplicates("actor", keep="last")
    held = last[likes.groupby("actor").size().reindex(last["actor"]).to_numpy() >= _LEAST_LIKES]
    if held.empty:
        raise RefusedSplit("Nobody in the file likes two: there is no last like to hold out beside an earlier one.")
    pairs = pd.MultiIndex.from_frame(columns[["actor", "target"]])
    place = pd.MultiIndex.from_frame(held[["actor", "target"]]).get_indexer(pairs)
    later = (place >= 0) & (columns.index.to_numpy() >= held.index.to_numpy()[place])
    return ordered[~later], ordered.loc[held.index]


@dataclass(frozen=True)
class GivenSplit:
    """A published split over numbered ids: `train` and `test` hold likes, `closed` all pairs that training decided on.

    All are CSR [n actors, n targets] of ones; `between_people` says that both numberings are the same. `n_left_out`
    test rows repeat a pair of training, and nobody can be asked for them.
    """

    actor_ids: npt.NDArray[np.object_]
    target_ids: npt.NDArray[np.object_]
    train: sparse.csr_array
    closed: sparse.csr_array
    test: sparse.csr_array
    n_left_out: int
    between_people: bool


def read_interactions(path: Path) -> pd.DataFrame:
    """Read CSV or Parquet, by its suffix.

    Raises:
        RefusedSplit: there is no such file, or it is of another kind.

    """
    if not path.is_file():
        raise RefusedSplit(f"There is no file {path}: give the file of a split.")
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return pd.read_csv(path)
    raise RefusedSplit(f"A split is read from `.csv` or `.parquet`, not from `{path.name}`.")


def given_split(train: pd.DataFrame, test: pd.DataFrame, *, one_sided: bool, threshold: float = 0.0) -> GivenSplit:
    """Number a published split.

    Args:
        train: `actor` and `target`, or `user` and `item`; a row is a like unless `kind` is `pass`, or `rating` is
            not above `threshold`.
        test: the same columns; rows that are no likes are left out.
        one_sided: actors and targets are numbered apart (users and items); otherwise both are people.
        threshold: ratings above it are likes.

    Raises:
        RefusedSplit: a column is missing, or nothing is liked in either part.

    """
    parts = [_columns(part, name, threshold) for part, name in ((train, "training"), (test, "test"))]
    actors, targets = (pd.concat([part[side] for part in parts]) for side in ("actor", "target"))
    if one_sided:
        actor_ids, target_ids = pd.Index(actors.unique()).sort_values(), pd.Index(targets.unique()).sort_values()
    else:
        actor_ids = target_ids = pd.Index(pd.concat([actors, targets]).unique()).sort_values()
    shape = (len(actor_ids), len(target_ids))

    def matrix(part: pd.DataFrame) -> sparse.csr_array:
        place = actor_ids.get_indexer(part["actor"]), target_ids.get_indexer(part["target"])
        found = sparse.csr_array((np.ones(len(part), dtype=np.float32), place), shape=shape)
        found.data[:] = 1.0  # the same pair twice is one like
        return found

    closed, held_out = matrix(parts[0]), matrix(parts[1][parts[1]["liked"]])
    known = held_out.multiply(closed).tocsr()
    asked = sparse.csr_array(held_out - known)
    asked.eliminate_zeros()
    return GivenSplit(
        actor_ids.to_numpy(dtype=object),
        target_ids.to_numpy(dtype=object),
        matrix(parts[0][parts[0]["liked"]]),
        closed,
        asked,
        int(known.nnz),
        between_people=not one_sided,
    )


def ranked_lists(split: GivenSplit, scorer: Scorer, k: int) -> Iterator[tuple[Positions, Positions]]:
    """Yield blocks of actors that have something to find, int64[n], and their best k targets, int64[n, k].

    Every target is ranked but those that training decided on and, between people, oneself; -1 beyond the end.
    """
    asked = np.flatnonzero(np.diff(split.test.indptr))
    for low in range(0, asked.size, _BLOCK):
        actors = asked[low : low + _BLOCK]
        scores = np.array(scorer(actors), dtype=np.float64)
        row, column = split.closed[actors].nonzero()
        scores[row, column] = -np.inf
        if split.between_people:
            scores[np.arange(actors.size), actors] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)
        yield actors, np.where(np.isfinite(np.take_along_axis(scores, best, axis=1)), best, -1)


def hits_in(split: GivenSplit, actors: Positions, shown: Positions) -> tuple[npt.NDArray[np.bool_], Positions]:
    """Return which places hold a test like, bool[n, k], and how many there are to find, int64[n]."""
    test = split.test[actors]
    row = np.repeat(np.arange(actors.size), shown.shape[1]).reshape(shown.shape)
    wanted = np.repeat(np.arange(actors.size), np.diff(test.indptr)) * test.shape[1] + test.indices
    hits = np.isin(row * test.shape[1] + shown, wanted) & (shown >= 0)
    return hits, np.diff(test.indptr).astype(np.int64)


def _columns(part: pd.DataFrame, name: str, threshold: float) -> pd.DataFrame:
    for actor, target in (("actor", "target"), ("user", "item")):
        if {actor, target} <= set(part.columns):
            break
    else:
        raise RefusedSplit(f"The {name} part has neither `actor` and `target` nor `user` and `item` as columns.")
    liked = np.ones(len(part), dtype=bool)
    if "kind" in part.columns:
        liked &= part["kind"].isin(("like", "superlike", "message")).to_numpy()
    if "rating" in part.columns:
        liked &= (part["rating"] > threshold).to_numpy()
    if not liked.any():
        raise RefusedSplit(f"The {name} part holds no like: check `kind`, or lower the threshold {threshold:g}.")
    return pd.DataFrame({"actor": part[actor].to_numpy(), "target": part[target].to_numpy(), "liked": liked})

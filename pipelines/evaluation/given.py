"""Compare the simpler orders on a published split: its own train and test files, everybody ranked, no database.

Everything is fitted on the training likes in memory. The embedding's settings are tuned on the training part alone; a
split carries no instants, so a random part of it, not the latest, judges them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.transforms import CONTENT_WIDTH
from pipelines import metrics
from pipelines.evaluation.splits import GivenSplit, Positions, Scorer, hits_in, ranked_lists
from pipelines.features.events import LIKE, PASS, Events
from pipelines.retrieval.config import EmbeddingConfig, NeighboursConfig, TuningConfig
from pipelines.retrieval.factorise import fit_embedding
from pipelines.retrieval.neighbours import fit_neighbours
from pipelines.retrieval.tuning import tune
from registry.models.embedding import Embedding
from registry.models.neighbours import EASE, ITEM_KNN, SPECTRAL, USER_KNN, Neighbours

TOP = 20
POPULARITY, IALS = "popularity", "ials_tuned"
MEASURES = ("recall_at_20", "ndcg_at_20", "map_at_20")
_SECOND_US = 1_000_000
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GivenRow:
    """One method by one measure: the mean over everybody asked, and its 95 % interval."""

    method: str
    measure: str
    interval: metrics.Interval


@dataclass(frozen=True)
class GivenReport:
    """What the methods reach, with which settings of the embedding, and how large the split is."""

    rows: tuple[GivenRow, ...]
    chosen: EmbeddingConfig
    trials: int
    asked: int

    def interval(self, method: str, measure: str) -> metrics.Interval:
        """Return one cell of the table."""
        return next(row.interval for row in self.rows if (row.method, row.measure) == (method, measure))

    def methods(self) -> tuple[str, ...]:
        """Return the methods in the order of the table."""
        return tuple(dict.fromkeys(row.method for row in self.rows))

    def as_dict(self) -> dict[str, object]:
        """Return the report for JSON."""
        return {
            "people_asked": self.asked,
            "embedding": self.chosen.model_dump(mode="json"),
            "tuning_trials": self.trials,
            "methods": {
                method: {
                    measure: {"mean": found.mean, "low": found.low, "high": found.high, "people": found.n}
                    for measure in MEASURES
                    for found in [self.interval(method, measure)]
                }
                for method in self.methods()
            },
        }


def compare_on(
    split: GivenSplit, tuning: TuningConfig, *, rounds: int = 1_000, seed: int = 7, tell: Callable[[str], None] = print
) -> GivenReport:
    """Fit and rank by every method; people are asked who have a test like left to find."""
    events = events_of(split, seed)
    tell(f"neighbour scores on {split.train.nnz} likes")
    neighbours = fit_neighbours(events, NeighboursConfig())
    tell("settings of the embedding")
    start = EmbeddingConfig(content_rounds=0)
    chosen, trials = tune(events, events.user_ids, no_profiles, start, tuning)
    embedding, _ = fit_embedding(events, events.user_ids, no_profiles, chosen)
    scorers: dict[str, Scorer] = {POPULARITY: _by_popularity(split)}
    for source in (ITEM_KNN, USER_KNN):
        scorers[source] = _by_neighbours(neighbours, split, source)
    scorers[IALS] = _by_factors(embedding, split)
    scorers[SPECTRAL] = _by_neighbours(neighbours, split, SPECTRAL)
    if neighbours.ease is not None:
        scorers[EASE] = _by_neighbours(neighbours, split, EASE)
    rows: list[GivenRow] = []
    for name, scorer in scorers.items():
        tell(f"lists by {name}")
        blocks = [hits_in(split, actors, shown) for actors, shown in ranked_lists(split, scorer, TOP)]
        hits = np.concatenate([found for found, _ in blocks])
        relevant = np.concatenate([n for _, n in blocks])
        values = (
            metrics.recall_at(hits, relevant, TOP),
            metrics.ndcg_at(hits, relevant, TOP),
            metrics.average_precision_at(hits, relevant, TOP),
        )
        for measure, value in zip(MEASURES, values, strict=True):
            rows.append(GivenRow(name, measure, metrics.bootstrap_interval(value, rounds, seed)))
    return GivenReport(tuple(rows), chosen, len(trials), int((np.diff(split.test.indptr) > 0).sum()))


def events_of(split: GivenSplit, seed: int = 7) -> Events:
    """Return the training part as events, in an order drawn at random; ids count from 1, items after the users."""
    n_actors, n_targets = split.closed.shape
    offset = offset_of(split)
    row, column = split.closed.nonzero()
    order = np.random.default_rng(seed).permutation(row.size)
    row, column = row[order], column[order]
    liked = np.asarray(split.train[row, column]).ravel() > 0
    return Events(
        np.arange(1, max(offset + n_targets, n_actors) + 1, dtype=np.int64),
        row.astype(np.int32),
        (column + offset).astype(np.int32),
        np.where(liked, LIKE, PASS).astype(np.int8),
        np.arange(row.size, dtype=np.int64) * _SECOND_US,
    )


def offset_of(split: GivenSplit) -> int:
    """Return the number of the first target: that of the first actor between people, else the one after the last."""
    return 0 if split.between_people else len(split.actor_ids)


def no_profiles(positions: Positions) -> Floats:
    """Return content inputs of people about whom a split says nothing."""
    return np.zeros((positions.size, CONTENT_WIDTH), dtype=np.float32)


def _by_popularity(split: GivenSplit) -> Scorer:
    received = np.asarray(split.train.sum(axis=0)).ravel()
    return lambda actors: np.tile(received, (actors.size, 1))


def _by_factors(embedding: Embedding, split: GivenSplit) -> Scorer:
    offset = offset_of(split)
    _, chosen = embedding.vectors(np.arange(offset, offset + len(split.target_ids)) + 1)
    return lambda actors: embedding.vectors(actors + 1)[0] @ chosen.T


def _by_neighbours(neighbours: Neighbours, split: GivenSplit, source: str) -> Scorer:
    offset = offset_of(split)

    def scorer(actors: Positions) -> Floats:
        scores = np.full((actors.size, len(split.target_ids)), -np.inf, dtype=np.float32)
        for place, actor in enumerate(actors.tolist()):
            first, last = split.closed.indptr[actor : actor + 2]
            taste = neighbours.taste_of(actor + 1, split.train[[actor]].indices + offset + 1)
            rows, found = taste.best(source, TOP + int(last - first) + 1)
            scores[place, rows - offset] = found
        return scores

    return scorer

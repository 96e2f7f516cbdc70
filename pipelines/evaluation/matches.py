"""Will the two of a pair match? The product of both sides' models beside a model of the match itself.

Two people who decided on each other at one instant knew nothing of each other's answer. Of such pairs after T1 the
judged ranker gives the product of two directed probabilities; the calibrated product and the joint model learned from
such pairs up to T1. What the calibration sees of a pair was said by trees that had not seen its evening.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.layout import EVIDENCE_COLUMNS, PAIR_COLUMNS, RANKING_FEATURES
from pipelines import metrics
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.files import RankingRows
from pipelines.ranking.learn import learn
from pipelines.ranking.train import train_ranker
from registry.models.ranker import Ranker

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

BASE_RATE, PRODUCT, CALIBRATED, JOINT = "base_rate", "product", "calibrated_product", "joint"
LOG_LOSS, AUC = "log_loss", "auc"
COLUMNS = (
    "method", "measure", "value", "low", "high", "pairs", "difference", "difference_low", "difference_high",
)  # fmt: skip
"""`difference` is the method's value minus that of the calibrated product over the same pairs."""
FEWEST: Final = 50
"""Pairs below which nothing is fitted or judged."""
_FOLDS = 5
_MOST_OF_ONE_EVENING = 0.5
_OTHER_SIDE = tuple(dict.fromkeys((*PAIR_COLUMNS, *EVIDENCE_COLUMNS)))
_JOINT_FEATURES = (*RANKING_FEATURES, *(f"other_{name}" for name in _OTHER_SIDE))


@dataclass(frozen=True)
class MetPairs:
    """n pairs: the rows of both directions int64[n], the two people's ids int64[n, 2], their instant, if both liked."""

    there: Ids
    back: Ids
    people: Ids
    at_us: Ids
    matched: Bools

    @classmethod
    def of(cls, rows: RankingRows) -> Self:
        """Find the pairs among rows of first decisions both of whose directions were decided at one instant."""
        low = np.minimum(rows.requester_ids, rows.candidate_ids)
        high = np.maximum(rows.requester_ids, rows.candidate_ids)
        order = np.lexsort((rows.requester_ids, rows.at_us, high, low))
        there, back = order[:-1], order[1:]
        same = np.all([values[there] == values[back] for values in (low, high, rows.at_us)], axis=0)
        there, back = there[same], back[same]
        return cls(
            there,
            back,
            np.stack([low[there], high[there]], axis=1),
            rows.at_us[there],
            (rows.labels[there] > 0) & (rows.labels[back] > 0),
        )

    def __len__(self) -> int:
        return int(self.matched.size)

    def take(self, kept: Bools | Ids) -> Self:
        """Return some of the pairs."""
        return type(self)(*(getattr(self, field.name)[kept] for field in fields(self)))

    @property
    def tell(self) -> bool:
        """Tell whether there are enough of them, of both kinds."""
        return len(self) >= FEWEST and bool(self.matched.any()) and not bool(self.matched.all())


def match_table(
    ranker: Ranker,
    config: RankerConfig,
    earlier: RankingRows,
    held_out: RankingRows,
    *,
    known_ids: Ids,
    rounds: int,
    seed: int,
) -> pd.DataFrame:
    """Return methods by measures with COLUMNS; empty where too few pairs decided on each other at one instant.

    `earlier` and `held_out` are rows of first decisions up to T1 and after it. `known_ids` are people who had decided
    by T1: their pairs are left out where others are enough, so that evenings are either learned from or judged by.
    """
    learned, asked = MetPairs.of(earlier), MetPairs.of(held_out)
    new = asked.take(np.isin(asked.people, known_ids).sum(axis=1) == 0)
    if new.tell:
        asked = new
    if not (learned.tell and asked.tell):
        return pd.DataFrame(columns=list(COLUMNS))
    product = product_of(ranker, held_out, asked)
    said = {
        BASE_RATE: np.full(len(asked), learned.matched.mean()),
        PRODUCT: product,
        CALIBRATED: calibrated(ranker, config, earlier, learned)(product),
        JOINT: joint_model(earlier, learned, config).of(held_out, asked),
    }
    return _table(asked, said, rounds, seed)


def product_of(ranker: Ranker, rows: RankingRows, pairs: MetPairs) -> Floats:
    """Return the product of what a ranker says of both directions, float64[n]."""
    there, back = (ranker.predict(rows.features[side]).astype(np.float64) for side in (pairs.there, pairs.back))
    return np.asarray(there * back)


@dataclass(frozen=True)
class Calibration:
    """P(match) as a logistic function of the log odds of the product."""

    slope: float
    offset: float

    def __call__(self, product: Floats) -> Floats:
        """Return the calibrated probabilities, float64[n]."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * _log_odds(product) + self.offset))))


def calibrated(ranker: Ranker, config: RankerConfig, rows: RankingRows, pairs: MetPairs) -> Calibration:
    """Fit the calibration on products that trees as many as the ranker's gave of evenings they had not seen."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    trees = int(ranker.booster.num_boosted_rounds())
    evenings = evenings_of(pairs)
    folds = GroupKFold(min(_FOLDS, int(np.unique(evenings).size)))
    product = np.full(len(pairs), np.nan)
    for _, held in folds.split(evenings, groups=evenings):
        asked = pairs.take(held)
        others = np.ones(rows.labels.size, dtype=np.bool_)
        others[asked.there] = others[asked.back] = False
        if np.unique(rows.labels[others] > 0).size < 2:
            continue  # nothing can be learned from these others
        product[held] = product_of(learn(rows.take(others), config, rounds=(trees, None)).ranker, rows, asked)
    said = np.isfinite(product)
    fitted = LogisticRegression(C=np.inf).fit(_log_odds(product[said])[:, None], pairs.matched[said])
    return Calibration(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))


def evenings_of(pairs: MetPairs) -> Ids:
    """Number the pairs by evening: who met the same people, directly or through others; else by time, in five parts."""
    from scipy import sparse

    ids, at = np.unique(pairs.people, return_inverse=True)
    at = at.reshape(pairs.people.shape)
    met = sparse.csr_array((np.ones(len(pairs)), (at[:, 0], at[:, 1])), shape=(ids.size, ids.size))
    evening = sparse.csgraph.connected_components(met, directed=False)[1][at[:, 0]].astype(np.int64)
    if np.bincount(evening).max() <= _MOST_OF_ONE_EVENING * len(pairs):
        return evening
    return np.asarray(np.argsort(np.argsort(pairs.at_us, kind="stable")) * _FOLDS // len(pairs), dtype=np.int64)


@dataclass(frozen=True)
class JointModel:
    """Trees that say whether a pair matches from the vectors of both directions; who comes first does not matter."""

    trees: Ranker

    def of(self, rows: RankingRows, pairs: MetPairs) -> Floats:
        """Return P(match), float64[n]: the mean of what the trees say of the pair from either side."""
        either = self.trees.predict(_from_either_side(rows, pairs)).astype(np.float64)
        return np.asarray(either.reshape(2, -1).mean(axis=0))


def joint_model(rows: RankingRows, pairs: MetPairs, config: RankerConfig) -> JointModel:
    """Grow the joint model like the ranker, every pair told from both sides, with half a weight each."""
    booster, report = train_ranker(
        _from_either_side(rows, pairs),
        np.tile(pairs.matched, 2).astype(np.float32),
        np.tile(pairs.at_us, 2),
        config,
        weights=np.full(2 * len(pairs), 0.5, dtype=np.float32),
        feature_names=_JOINT_FEATURES,
    )
    return JointModel(Ranker.from_booster(booster, report.feature_names, fills=True).offered(_JOINT_FEATURES))


def _from_either_side(rows: RankingRows, pairs: MetPairs) -> npt.NDArray[np.float32]:
    """Return the vector of one direction and what the other says of the pair, all pairs twice, float32[2n, k]."""
    of_pair = [RANKING_FEATURES.index(name) for name in _OTHER_SIDE]
    there, back = rows.features[pairs.there], rows.features[pairs.back]
    return np.concatenate(
        [np.concatenate([there, back[:, of_pair]], axis=1), np.concatenate([back, there[:, of_pair]], axis=1)]
    )


def _table(pairs: MetPairs, said: Mapping[str, Floats], rounds: int, seed: int) -> pd.DataFrame:
    measures = {
        (method, name): of(pairs.matched, probabilities)
        for method, probabilities in said.items()
        for name, of in ((LOG_LOSS, metrics.weighed_log_loss), (AUC, metrics.weighed_auc))
    }
    values = {key: measure(np.ones(len(pairs))) for key, measure in measures.items()}
    drawn = metrics.drawn_people(pairs.people, rounds, seed)
    by_round = np.array([[measure(weights) for measure in measures.values()] for weights in drawn])
    redrawn = dict(zip(measures, by_round.T, strict=True))
    rows: list[tuple[object, ...]] = []
    for (method, name), value in values.items():
        apart: tuple[float, ...] = (float("nan"),) * 3
        if method != CALIBRATED:
            rival = CALIBRATED, name
            apart = (value - values[rival], *_interval(redrawn[method, name] - redrawn[rival]))
        rows.append((method, name, value, *_interval(redrawn[method, name]), len(pairs), *apart))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _log_odds(product: Floats) -> Floats:
    p = np.clip(product, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p) - np.log1p(-p))

"""What the first stage knows of the requester and each candidate: factors, taste so far, likes in common."""

import numpy as np

from feature_repo.layout import EVIDENCE_COLUMNS, LISTED_SOURCES
from feature_repo.population.people import People
from feature_repo.transforms import CONTENT_WIDTH, PairContext, content_inputs
from registry.models.arrays import Floats, Ids
from registry.models.embedding import similarity_to_liked
from registry.models.neighbours import Taste
from registry.scoring.first_stage import FirstStage
from registry.scoring.requester import Requester, TasteOfOthers, among
from registry.scoring.retrieval import Factors

_COLUMN = {name: place for place, name in enumerate(EVIDENCE_COLUMNS)}
_SCORES = tuple(_COLUMN[f"{source}_score"] for source in LISTED_SOURCES[1:])
_BACKWARD = _COLUMN["item_knn_score_backward"]
_ODDS, _ODDS_BACKWARD = _COLUMN["like_log_odds"], _COLUMN["like_log_odds_backward"]
_PLACES = tuple(_COLUMN[f"{source}_place"] for source in LISTED_SOURCES)
_SHARES = tuple(_COLUMN[f"{source}_share"] for source in LISTED_SOURCES)


def pair_context(
    stage: FirstStage,
    requester: Requester,
    factors: Factors,
    taste: Taste | None,
    people: People,
    *,
    others: TasteOfOthers,
    at: float,
    listed: bool = True,
) -> PairContext:
    """Return what retrieval knows of requester and each of `people`, in both directions, float32[n] each.

    `listed` says that the people are one request's candidates, whose places beside each other count.
    """
    embedding = stage.embedding
    rows = embedding.positions(people.user_ids)
    unknown = np.flatnonzero(rows < 0)
    profiles = content_inputs(people.take(unknown), at) if len(unknown) else np.empty((0, CONTENT_WIDTH), np.float32)
    score_forward, score_backward, chosen = embedding.scores_with(factors.chooser, factors.chosen, rows, profiles)
    last = stage.last_likes
    liked = embedding.positions(requester.liked[:last])
    return PairContext(
        score_forward,
        score_backward,
        similarity_to_liked(embedding.chosen[liked[liked >= 0]], chosen),
        among(people.user_ids, requester.liked_by),
        others.similarity(embedding, people.user_ids, factors.chosen, last, to=requester.user_id),
        np.zeros(len(people), dtype=np.float32),  # whom the requester liked is decided, and no candidate any more
        listed_evidence(taste, people.user_ids, score_forward) if listed else pair_evidence(taste, people.user_ids),
    )


def pair_evidence(taste: Taste | None, user_ids: Ids) -> Floats:
    """Return what past decisions say of pairs that stand alone, float32[n, k]: the columns of a list are NaN."""
    out = np.full((len(user_ids), len(EVIDENCE_COLUMNS)), np.nan, dtype=np.float32)
    if taste is not None:
        rows = taste.neighbours.positions(user_ids)
        for column, values in zip(_SCORES, taste.scores(rows).values(), strict=True):
            out[:, column] = values
        out[:, _BACKWARD] = taste.liked_back(rows)
        if (odds := taste.neighbours.like_odds) is not None:
            out[:, _ODDS], out[:, _ODDS_BACKWARD] = odds.between(taste.odds, rows)
    return out


def listed_evidence(taste: Taste | None, user_ids: Ids, score_forward: Floats) -> Floats:
    """Return the evidence of one requester's candidates, with each one's place and share by every score."""
    out = pair_evidence(taste, user_ids)
    if not len(out):
        return out
    scores = np.concatenate([score_forward[:, None], out[:, _SCORES]], axis=1)
    known = ~np.isnan(scores)
    filled = np.where(known, scores, -np.inf)
    # Equal scores share the better place, so that no order of ids leaks into a feature.
    ascending = np.sort(-filled, axis=0)
    for column in range(scores.shape[1]):
        place = np.searchsorted(ascending[:, column], -filled[:, column], side="left")
        out[:, _PLACES[column]] = np.where(known[:, column], np.log1p(place.astype(np.float32)), np.nan)
    low = np.where(known, scores, np.inf).min(axis=0)
    span = np.maximum(filled.max(axis=0) - low, np.float32(1e-12))
    out[:, _SHARES] = np.where(known, (scores - low) / span, np.nan)
    return out

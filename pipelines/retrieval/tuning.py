"""Choose the embedding's settings on the data at hand, by lists of the last part of what it may learn from.

A few fits are judged by NDCG over the whole catalogue on likes that were held back, the latest ones and some from all
over the data. Where people met by chance, how well the likes are told from the passes counts as much; elsewhere never,
because it points the other way where people choose whom they judge. No constant suits all data sets: confidence and
penalty differ by a factor of ten between them.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.evaluation.spread import HeldBackPairs
from pipelines.features.events import Events
from pipelines.ranking.merit import TOP, ndcg, told_apart
from pipelines.ranking.sessions import Requests, has_decided
from pipelines.retrieval.config import EmbeddingConfig, TuningConfig
from pipelines.retrieval.content import ContentInputs
from pipelines.retrieval.dataset import first_decisions
from pipelines.retrieval.errors import TooFewLikes
from pipelines.retrieval.factorise import fit_embedding

Floats = npt.NDArray[np.float32]
_MIN_USERS = 5
_LEAST_TOLD = 0.01


@dataclass(frozen=True)
class Trial:
    """One tried setting, what its lists are worth on each question, and their mean beside the first trial's."""

    config: EmbeddingConfig
    worth: tuple["Worth", ...]
    merit: float
    seconds: float


@dataclass(frozen=True)
class Worth:
    """NDCG@20 of lists, and how well likes are told from passes: AUC within a person less 1/2; NaN without passes."""

    ndcg: float
    told_apart: float

    def beside(self, first: "Worth", *, by_chance: bool) -> float:
        """Return it as a multiple of another one; `by_chance` counts both halves alike."""
        lists = self.ndcg / max(first.ndcg, 1e-9)
        if not by_chance or np.isnan(self.told_apart) or np.isnan(first.told_apart):
            return lists
        return (lists + self.told_apart / max(first.told_apart, _LEAST_TOLD)) / 2


@dataclass(frozen=True)
class Question:
    """Earlier events to fit on, and requests after them: decisions by then, and whom they liked or passed on later."""

    early: Events
    actor: npt.NDArray[np.int64]
    history: tuple[npt.NDArray[np.int32], ...]
    history_likes: tuple[npt.NDArray[np.bool_], ...]
    liked: tuple[npt.NDArray[np.int32], ...]
    passed: tuple[npt.NDArray[np.int32], ...]

    @classmethod
    def missing(cls, events: Events, config: TuningConfig) -> "Question | None":
        """Hold back pairs from all over the data; None where too few people like somebody among them."""
        if not len(events):
            return None
        spread = HeldBackPairs.of(events, int(events.at_us[-1]), config.seed)
        late, early = spread.held_back, spread.known
        return cls._asked(early, late, Requests.drawn(late, has_decided(early), config.max_people, config.seed))

    @classmethod
    def next(cls, events: Events, config: TuningConfig) -> "Question | None":
        """Hold back the last share of the likes; None where too few people like somebody after the cut."""
        likes = events.take(events.is_like)
        if len(likes) < 2:
            return None
        cut_us = int(likes.at_us[min(int(len(likes) * (1.0 - config.share)), len(likes) - 1)]) - 1
        early = events.between(None, cut_us)
        firsts = first_decisions(events)
        late = firsts.between(cut_us, int(np.iinfo(np.int64).max))
        return cls._asked(early, firsts, Requests.drawn(late, has_decided(early), config.max_people, config.seed))

    @classmethod
    def _asked(cls, early: Events, late: Events, requests: Requests) -> "Question | None":
        """Return requests with what was decided before each, of the early events and of the late ones."""
        decided = first_decisions(early)
        order = np.lexsort((decided.at_us, decided.actor))
        actors = decided.actor[order]
        late_order = np.lexsort((late.at_us, late.actor))
        late_actors, late_at_us = late.actor[late_order], late.at_us[late_order]
        history, history_likes, liked, passed = [], [], [], []
        for number in range(len(requests)):
            who, at_us = requests.actor[number], requests.at_us[number]
            known = order[slice(*np.searchsorted(actors, [who, who + 1]))]
            first, last = np.searchsorted(late_actors, [who, who + 1])
            last = first + np.searchsorted(late_at_us[first:last], at_us, side="left")
            since = late_order[first:last]
            history.append(np.concatenate([decided.target[known], late.target[since]]))
            history_likes.append(np.concatenate([decided.is_like[known], late.is_like[since]]))
            after = requests.after(number)
            target, is_like = requests.decided.target[after], requests.decided.is_like[after]
            liked.append(target[is_like])
            passed.append(target[~is_like & requests.decided.is_decision[after]])
        asked = [number for number, likes in enumerate(history_likes) if likes.any() and liked[number].size]
        if len(asked) < _MIN_USERS:
            return None
        return cls(
            early,
            requests.actor[asked],
            tuple(history[number] for number in asked),
            tuple(history_likes[number] for number in asked),
            tuple(liked[number] for number in asked),
            tuple(passed[number] for number in asked),
        )


def tune(
    events: Events,
    user_ids: npt.NDArray[np.int64],
    content_inputs: ContentInputs,
    start: EmbeddingConfig,
    config: TuningConfig,
    *,
    known: EmbeddingConfig | None = None,
    by_chance: bool = False,
    tell: Callable[[Trial], None] = lambda _trial: None,
) -> tuple[EmbeddingConfig, list[Trial]]:
    """Return the best settings found within the time and the trials allowed, and all that were tried.

    First penalty and confidence, log-uniform, or only around what is `known` to have won before; then the content
    prior, which stays only where it wins; then passes and width around the best. `by_chance` says that people met by
    chance, so that passes tell as much as likes.
    """
    questions = [found for found in (Question.next(events, config), Question.missing(events, config)) if found]
    if not questions or not config.trials:
        return start, []
    began = time.monotonic()
    tried: list[Trial] = []

    def attempt(chosen: EmbeddingConfig) -> None:
        if len(tried) >= config.trials or (tried and time.monotonic() - began > config.seconds):
            return
        if any(trial.config == chosen for trial in tried):
            return
        at = time.monotonic()
        try:
            worth = tuple(list_quality(question, user_ids, content_inputs, chosen) for question in questions)
        except TooFewLikes:
            return
        first = tried[0].worth if tried else worth
        beside = [own.beside(other, by_chance=by_chance) for own, other in zip(worth, first, strict=True)]
        tried.append(Trial(chosen, worth, float(np.mean(beside)), time.monotonic() - at))
        tell(tried[-1])

    def best() -> EmbeddingConfig:
        return max(tried, key=lambda trial: trial.merit).config if tried else start

    for chosen in (known,) if known is not None else _first_settings(start, by_chance=by_chance):
        attempt(chosen)
    for move in _moves(start):
        attempt(best().model_copy(update=move(best())))
    return best(), tried


def likes_alone(start: EmbeddingConfig) -> EmbeddingConfig:
    """Return settings under which passes and profiles teach nothing."""
    return start.model_copy(update={"content_rounds": 0, "pass_confidence": 1.0})


def _first_settings(start: EmbeddingConfig, *, by_chance: bool) -> Iterator[EmbeddingConfig]:
    """Yield settings far apart: likes alone, more or less trusted, and what suits people who meet by chance."""
    plain = likes_alone(start)
    # Passes as true negatives, and much from profiles.
    chance = start.model_copy(
        update={"alpha": 100.0, "pass_confidence": 100.0, "regularization": 500.0, "content_rounds": 12}
    )
    if by_chance:
        yield plain
        yield chance
    for alpha, ridge in ((10.0, 50.0), (40.0, 100.0), (5.0, 30.0), (20.0, 200.0), (80.0, 400.0), (3.0, 10.0)):
        yield plain.model_copy(update={"alpha": alpha, "regularization": ridge})
    yield chance


def _moves(start: EmbeddingConfig) -> Iterator[Callable[[EmbeddingConfig], dict[str, float]]]:
    """Yield what to change of the best setting so far."""

    def scaled(name: str, factor: float) -> Callable[[EmbeddingConfig], dict[str, float]]:
        return lambda best: {name: max(float(getattr(best, name)) * factor, 1.0)}

    yield lambda _best: {"content_rounds": max(start.content_rounds, 3)}
    for factor in (0.5, 2.0):
        yield scaled("regularization", factor)
        yield scaled("alpha", factor)
    yield lambda best: {"pass_confidence": max(best.alpha / 4.0, 1.0)}
    yield lambda best: {"pass_confidence": max(best.alpha, 1.0)}
    yield lambda _best: {"dimensions": min(2 * start.dimensions, 512)}


def list_quality(
    question: Question, user_ids: npt.NDArray[np.int64], content_inputs: ContentInputs, config: EmbeddingConfig
) -> Worth:
    """Fit on the earlier events and return what lists of everybody who was liked by then are worth.

    Raises:
        TooFewLikes: there is nothing to fit.
    """
    received = np.bincount(question.early.target[question.early.is_like], minlength=len(user_ids))
    catalogue = np.flatnonzero(received > 0)
    embedding, _ = fit_embedding(question.early, user_ids, content_inputs, config)
    _, chosen = embedding.vectors(user_ids[catalogue])
    column = np.full(len(user_ids), -1, dtype=np.int64)
    column[catalogue] = np.arange(catalogue.size)
    found, apart = [], []
    for number, actor in enumerate(question.actor.tolist()):
        known, likes = question.history[number], question.history_likes[number]
        prior = None
        if embedding.parameters.content_prior:
            prior = embedding.content_factors(content_inputs(np.array([actor])))[0][0]
        chooser = embedding.fold_in_chooser(user_ids[known[likes]], user_ids[known[~likes]], prior=prior)
        scores = chosen @ chooser
        liked = column[question.liked[number]]
        judged = np.concatenate([liked, column[question.passed[number]]])
        judged = judged[judged >= 0]  # whom nobody had liked by then has no score
        apart.append(told_apart(scores[judged], np.isin(judged, liked)))
        decided = column[known]
        scores[decided[decided >= 0]] = -np.inf
        found.append(ndcg(_best(scores), liked))
    told = np.array(apart)
    return Worth(float(np.mean(found)), float(np.nanmean(told)) if np.isfinite(told).any() else float("nan"))


def _best(scores: Floats) -> npt.NDArray[np.int64]:
    """Return the columns of the best `TOP` scores, best first."""
    k = min(TOP, scores.size)
    top = np.argpartition(-scores, k - 1)[:k]
    return np.asarray(top[np.argsort(-scores[top], kind="stable")], dtype=np.int64)

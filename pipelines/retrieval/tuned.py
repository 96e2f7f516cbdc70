"""Settings of the embedding that won on this data, remembered between runs so that the next search begins with them."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.features.events import Events
from pipelines.retrieval.config import EmbeddingConfig, TuningConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.errors import TooFewLikes
from pipelines.retrieval.factorise import fit_embedding
from pipelines.retrieval.meeting import NOWHERE, Meeting, Places, places_of
from pipelines.retrieval.tuning import Question, Trial, likes_alone, tune

if TYPE_CHECKING:
    from feature_repo.population.people import People
    from pipelines.resources import Platform
    from pipelines.retrieval.assets import EmbeddingStep

_FILE = "tuned_embedding.json"
_SIMILAR = 1.5
_TUNED = ("alpha", "regularization", "pass_confidence", "dimensions", "content_rounds")


def tuned_settings(
    platform: "Platform",
    events: Events,
    people: "People",
    until_us: int,
    step: "EmbeddingStep",
    *,
    meeting: Meeting,
    tell: Callable[[str], None],
) -> tuple[EmbeddingConfig, list[Trial]]:
    """Return the settings to fit with and the trials that found them; without trials the step's own.

    What was remembered counts only where people still meet as they did then.
    """
    if not step.tuning_trials:
        return step.fit, []
    likes = int(events.is_like.sum())
    note = platform.results.note(_FILE)
    known = None if note is None else _remembered(note, step.fit, likes, meeting)
    trials = step.tuning_trials if known is None else max(step.tuning_trials // 2, 1)
    config = TuningConfig(trials=trials, seconds=step.tuning_seconds, seed=step.seed)
    chosen, tried = tune(
        events,
        people.user_ids,
        inputs_of(people, until_us / 1e6),
        step.fit,
        config,
        known=known,
        by_chance=meeting is Meeting.BY_CHANCE,
        tell=lambda trial: tell(
            f"NDCG@20 {' and '.join(f'{worth.ndcg:.4f}' for worth in trial.worth)} with {told(trial.config)} "
            f"in {trial.seconds:.1f} s"
        ),
    )
    if tried:
        kept = {name: getattr(chosen, name) for name in _TUNED}
        note = json.dumps({"settings": kept, "likes": likes, "met": meeting.value}).encode()
        platform.results.keep_note(_FILE, note)
    return chosen, tried


def told(config: EmbeddingConfig) -> str:
    """Return the tuned settings in words."""
    return ", ".join(f"{name} {getattr(config, name):g}" for name in _TUNED)


def how_people_met(
    events: Events, people: "People", until_us: int, step: "EmbeddingStep", *, tell: Callable[[str], None]
) -> Places:
    """Return where those who were judged stand among all, which tells how they met; fits factors of likes once."""
    if not (events.is_decision & ~events.is_like).any():
        return NOWHERE
    config = TuningConfig(seed=step.seed)
    question = Question.missing(events, config) or Question.next(events, config)
    if question is None:
        return NOWHERE
    inputs, at_s = inputs_of(people, until_us / 1e6), until_us / 1e6
    try:
        embedding, _ = fit_embedding(question.early, people.user_ids, inputs, likes_alone(step.fit))
    except TooFewLikes:
        return NOWHERE
    places = places_of(question, embedding, people, at_s)
    tell(f"people met {places.meeting.value}: passed on at {places.passed:.2f} of all, liked at {places.liked:.2f}")
    return places


def _remembered(note: bytes, step: EmbeddingConfig, likes: int, meeting: Meeting) -> EmbeddingConfig | None:
    """Return what won last time, where the data are of similar size and people met alike."""
    found = json.loads(note)
    if not likes / _SIMILAR <= found["likes"] <= likes * _SIMILAR or found.get("met") != meeting.value:
        return None
    return step.model_copy(update=found["settings"])

"""Breakers before the models of each release: one that keeps failing is not tried again by every request.

Only errors count. How long a model takes depends on what else the event loop does, and each request's deadline bounds
it already. A new release begins with closed breakers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import lru_cache
from typing import Final

from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import BreakerSettings
from registry.release import Release
from serving.errors import BreakerOpen, Degraded, LevelUnavailable
from serving.experiments.assignment import Variant
from serving.reasons import Reason
from serving.resilience.breaker import STATE_SHOWN, Breaker, BreakerState

_KEPT: Final = 16


class Model(StrEnum):
    """What of a release computes at request time."""

    RETRIEVAL = "retrieval"
    RANKER = "ranker"


_FAILS_AS: Final = {Model.RETRIEVAL: Reason.RETRIEVAL_FAILED, Model.RANKER: Reason.RANKING_FAILED}
Releases = Mapping[Variant, Release | None]


class ModelBreakers:
    """A breaker for each model of each release in each arm of an experiment."""

    def __init__(self, settings: BreakerSettings, clock: Clock, metrics: ServingMetrics) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._calls = lru_cache(maxsize=None)(metrics.model_calls.labels)
        self._failures = lru_cache(maxsize=None)(metrics.model_failures.labels)
        self._breakers: dict[tuple[str, Variant, Model], Breaker] = {}

    @contextmanager
    def guarding(self, model: Model, release: Release, variant: Variant) -> Iterator[None]:
        """Count the computing of the block; raises LevelUnavailable instead of it while the model keeps failing."""
        self._calls(model.value, variant.value).inc()
        failures = self._failures(model.value, variant.value)  # the series is there before anything fails
        try:
            with self._breaker(model, release.release_id, variant).attempt():
                yield
        except Degraded:
            raise
        except BreakerOpen as error:
            failures.inc()
            raise LevelUnavailable(
                _FAILS_AS[model],
                f"The {model.value} of {release.release_id} failed a moment ago and is not tried again yet.",
            ) from error
        except Exception:
            failures.inc()
            raise

    def report(self, releases: Releases) -> dict[str, BreakerState]:
        """Return the state of the breakers of the releases that serve, by model and arm."""
        return {
            _name(model, variant): self._state(model, release, variant)
            for variant, release in releases.items()
            for model in Model
            if release is not None
        }

    def note(self, releases: Releases) -> None:
        """Put into the metrics what is true of the releases that serve: breakers of earlier ones say nothing now."""
        for variant, release in releases.items():
            for model in Model:
                state = BreakerState.CLOSED if release is None else self._state(model, release, variant)
                self._metrics.breaker_state.labels(_name(model, variant)).set(STATE_SHOWN[state])

    def problems(self, releases: Releases) -> list[str]:
        """Return a sentence for each model that keeps failing."""
        return [
            f"The {model.value} of {release.release_id} keeps failing: answers are made without it."
            for variant, release in releases.items()
            for model in Model
            if release is not None and self._state(model, release, variant) is not BreakerState.CLOSED
        ]

    def _state(self, model: Model, release: Release, variant: Variant) -> BreakerState:
        breaker = self._breakers.get((release.release_id, variant, model))
        return BreakerState.CLOSED if breaker is None else breaker.state

    def _breaker(self, model: Model, release_id: str, variant: Variant) -> Breaker:
        key = release_id, variant, model
        breaker = self._breakers.get(key)
        if breaker is None:
            while len(self._breakers) >= _KEPT:
                del self._breakers[next(iter(self._breakers))]
            name = _name(model, variant)
            breaker = self._breakers[key] = Breaker(name, self._settings, self._clock, self._metrics, _blames_the_model)
        return breaker


def _name(model: Model, variant: Variant) -> str:
    return f"{model.value}_{variant.value}"


def _blames_the_model(error: Exception) -> bool:
    return not isinstance(error, Degraded)

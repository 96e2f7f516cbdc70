"""The ranker's own service as the one that predicts for requests; this process predicts whenever it does not."""

from collections.abc import Sequence
from typing import Final

import httpx
import numpy as np
import structlog
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from infra.metrics import ServingMetrics
from registry.contracts import ArtifactKind
from registry.models.ranker import Ranker
from registry.release import Release
from registry.scoring.list_policy import ForwardModel
from serving.errors import BreakerOpen, RankerServiceFailed
from serving.recommend.pool import Float32
from serving.recommend.ranker_matrices import PROBABILITIES, FeatureMatrix, Probabilities, packed
from serving.recommend.stages.ranking import predict_here
from serving.resilience.breaker import Breaker

SHARE: Final = 0.5
"""Of the time there is, what the service may take: the rest is for predicting here when it does not answer."""
_ANSWERS = TypeAdapter(list[Probabilities])
_JSON: Final = {"content-type": "application/json"}
_log = structlog.get_logger(__name__)


class RemoteRanker:
    """Asks the service at `url`, at most `timeout_s` at a time and behind a breaker."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        breaker: Breaker,
        metrics: ServingMetrics,
    ) -> None:
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._seconds = metrics.inference_seconds.labels("ranker_service")
        self._rows = metrics.inference_rows.labels("ranker_service")
        # httpx keeps the limit for each part of a call; the breaker keeps it for the whole.
        self._client = httpx.AsyncClient(base_url=url, timeout=timeout_s, trust_env=False)

    async def predict(
        self, release: Release, asked: Sequence[tuple[Ranker, Float32]], within_s: float
    ) -> list[Float32]:
        """Return what each model says of its rows, float32[n] for float32[n, k], as `Predict` has it."""
        try:
            return await self._breaker.call(lambda: self._ask(release, asked), min(self._timeout_s, SHARE * within_s))
        except BreakerOpen:
            pass  # it failed a moment ago, and the log says so
        except (httpx.HTTPError, RankerServiceFailed, TimeoutError) as error:
            _log.warning("ranker_service_failed", why=str(error) or type(error).__name__)
        return await predict_here(release, asked, within_s)

    async def _ask(self, release: Release, asked: Sequence[tuple[Ranker, Float32]]) -> list[Float32]:
        digest = release.manifests[ArtifactKind.RANKER].digest
        matrices = [
            FeatureMatrix(
                release=release.release_id,
                digest=digest,
                model=ForwardModel.LIKE if ranker is release.ranker else ForwardModel.CHOICE,
                features=packed(features.take(ranker.gather, axis=1)),
            )
            for ranker, features in asked
        ]
        with self._seconds.time():
            response = await self._client.post(PROBABILITIES, content=to_json({"matrices": matrices}), headers=_JSON)
        predicted = _values(response, [len(features) for _, features in asked])
        self._rows.observe(sum(map(len, predicted)))
        return predicted

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()


def _values(response: httpx.Response, lengths: Sequence[int]) -> list[Float32]:
    if response.status_code != httpx.codes.OK:
        raise RankerServiceFailed(f"The ranker's service answered {response.status_code}: {response.text[:200]}")
    try:
        answers = _ANSWERS.validate_json(response.content)
    except ValidationError as error:
        raise RankerServiceFailed(f"The ranker's service sent no probabilities: {error.errors()[0]['msg']}.") from None
    problem = next((answer.problem for answer in answers if answer.problem is not None), None)
    if problem is not None:
        raise RankerServiceFailed(f"The ranker's service cannot predict: {problem}")
    predicted = [np.array(answer.values, dtype=np.float32) for answer in answers]
    if [len(values) for values in predicted] != list(lengths):
        raise RankerServiceFailed("The ranker's service sent another number of probabilities than rows.")
    if not all(((values >= 0.0) & (values <= 1.0)).all() for values in predicted):
        raise RankerServiceFailed("The ranker's service sent numbers that are no probabilities.")
    return predicted

"""The ranker as a BentoML service of its own: `bentoml serve serving.ranker_service:RankerService`.

It answers for whichever release it is asked for, and what arrives at the same time is predicted at once (BentoML's
adaptive batching). Serving asks it where `DUET_SERVING__RANKER_URL` says so. It knows no people: rows of features come
in and probabilities go out, so it asks for no key, and listens on `DUET_SERVING__HOST` only.

This is an entry point: it reads the settings, once, when it is imported.
"""

import os

import bentoml
from bentoml.exceptions import InvalidArgument

from infra.clock import SystemClock
from infra.errors import DuetError
from infra.files import PRIVATE
from infra.logging import adopt_loggers, configure_logging, silence_loggers
from infra.settings import load_settings
from infra.telemetry import disable_telemetry
from infra.web.limits import HttpLimits, limit_http
from registry.scoring.list_policy import ForwardModel
from serving.recommend.ranker_matrices import COLUMNS, PROBABILITIES, FeatureMatrix, Probabilities
from serving.releases.served_rankers import ServedRankers

disable_telemetry()
_settings = load_settings()
limit_http(HttpLimits.of(_settings.serving))
_MOST_AT_ONCE = 64
_LONGEST_MS = 40
"""What a matrix may wait for others and for the batch before it until it is refused: less than serving waits."""


@bentoml.service(
    name="duet_ranker",
    traffic={"timeout": 10},  # BentoML keeps the objects of a request for so long; a ranker is loaded sooner
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    http={"host": _settings.serving.host, "port": 3001},
)
class RankerService:
    """P(like) for rows of features, for the release that is asked for."""

    def __init__(self) -> None:
        configure_logging(_settings)
        adopt_loggers("bentoml", "uvicorn", "uvicorn.error")
        silence_loggers("uvicorn.access")
        self.rankers = ServedRankers(_settings, SystemClock())

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def guard() -> None:
        """Keep what is written from other accounts, before any worker is there; the workers inherit the umask."""
        os.umask(PRIVATE)

    @bentoml.api(  # type: ignore[untyped-decorator]
        route=PROBABILITIES, batchable=True, max_batch_size=_MOST_AT_ONCE, max_latency_ms=_LONGEST_MS
    )
    def probabilities(self, matrices: list[FeatureMatrix]) -> list[Probabilities]:
        """Return the probabilities of each matrix."""
        return self.rankers.predict(matrices)

    @bentoml.api(route=COLUMNS)  # type: ignore[untyped-decorator]
    def columns(self, release: str, model: ForwardModel = ForwardModel.LIKE) -> list[str]:
        """Return the names of a model's columns, in the order in which its matrices have them."""
        try:
            return list(self.rankers.ranker(release, model).feature_names)
        except DuetError as error:
            raise InvalidArgument(str(error)) from error

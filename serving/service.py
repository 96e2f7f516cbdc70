"""The BentoML service: `bentoml serve serving.service:Duet`.

BentoML gives processes, workers, life cycle, and both calls of the contract as `@bentoml.api` methods, from which its
own clients and `bentoml build` learn routes, arguments and answers. Three modules add what it lacks.
`serving.api.middleware` and `serving.api.request_checks` are stricter than BentoML's parsing, which ignores unknown
fields, has no size limit and answers errors in three shapes. `serving.api.pages` is mounted for health, metrics and a
correct OpenAPI document. The request checks hand the body that they have parsed to the function behind a method;
everything else goes on to BentoML. Both return ready responses, so statuses and the envelope are ours. BentoML's own
metrics are off: they label by raw path, so every unknown URL would be a new series.

This is an entry point: it reads the settings, once, when it is imported.
"""

import os
import sys
from typing import Any
from uuid import uuid4

import bentoml
from starlette.responses import Response

from infra.clock import SystemClock
from infra.errors import ConfigurationError
from infra.files import PRIVATE
from infra.logging import adopt_loggers, configure_logging, silence_loggers
from infra.person_names import PersonNames
from infra.settings import load_settings
from infra.telemetry import disable_telemetry
from infra.web.limits import HttpLimits, limit_http, trust_proxies
from serving.access.policy import guard_start
from serving.api import context, openapi, responses
from serving.api.calls import RECOMMEND, RECOMMEND_ALL, ROUTES, STORE_INTERACTION
from serving.api.list_calls import list_calls
from serving.api.middleware import PAGES, ApiMiddleware, App
from serving.api.models import INTERACTIONS, InteractionRequest, NamedInteractionRequest, StoredInteraction
from serving.api.named_bodies import names_in, numbered
from serving.api.pages import pages
from serving.api.preflight import CrossOrigin
from serving.api.recommendation_models import (
    RECOMMENDATIONS,
    NamedRecommendationRequest,
    RecommendationBatch,
    RecommendationRequest,
    Recommendations,
)
from serving.api.request_checks import Call, RequestChecks
from serving.api.routing import Routes
from serving.api.store_calls import store_calls
from serving.experiments.override import chosen_variant
from serving.people.names import renamed
from serving.recommend.answers import Answer
from serving.recommend.batches import recommend_all
from serving.resilience.deadline import Deadline, asked_ms
from serving.resilience.drain import Drain
from serving.runtime import Runtime

disable_telemetry()
_settings = load_settings()
limit_http(HttpLimits.of(_settings.serving))
trust_proxies(_settings.serving.trusted_proxies)
_runtime = Runtime(_settings, SystemClock())
_calls: dict[str, Call] = {}
_drain = Drain(
    _settings.serving.drain_s, _settings.data_dir / "serving" / f"workers-of-{os.getppid()}.lock", SystemClock()
)


class Guarded(bentoml.Service):  # type: ignore[misc]
    """A BentoML service behind the request checks: it sees no request that they refuse."""

    @property
    def openapi_spec(self) -> dict[str, Any]:
        """Return the document that the service answers with at /docs.json; a Bento carries it."""
        return openapi.document()

    def to_asgi(self, is_main: bool = True) -> App:  # noqa: FBT001, FBT002 as BentoML has it
        """Return the app that the server runs."""
        app: App = RequestChecks(
            super().to_asgi(is_main),
            routes=Routes(ROUTES, PAGES),
            calls=_calls,
            authenticator=_runtime.authenticator,
            limiter=_runtime.limiter,
            max_body_bytes=_settings.serving.max_body_bytes,
            timeout_s=_settings.serving.timeout_s,
            name_person=PersonNames.of(_settings),
        )
        app = CrossOrigin(app, _settings.serving.cors_origins, credentials=_settings.serving.cors_credentials)
        # The outermost: a refusal of the checks passes CORS, so that a page may read it, and gets its id last.
        return ApiMiddleware(
            app,
            clock=_runtime.clock,
            metrics=_runtime.metrics,
            logged_share=_settings.logging.request_share,
            closing=_drain.note_request,
            # A page may read a refusal only with the headers of CORS: there, the checks behind it refuse.
            overloaded=None if _settings.serving.cors_origins else _runtime.limiter.in_vain,
        )


@bentoml.service(
    name="duet",
    service_class=Guarded,
    workers=_settings.serving.workers,
    # BentoML keeps the objects of a request that reaches it until its timer ends: short, but ours fires first.
    traffic={"timeout": _settings.serving.timeout_s * 1.25},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
    http={"host": _settings.serving.host, "port": _settings.serving.port or 8000},
)
class Duet:
    """Who should be shown to whom, so that both sides say yes."""

    def __init__(self) -> None:
        configure_logging(_settings)
        adopt_loggers("bentoml", "uvicorn", "uvicorn.error")
        silence_loggers("uvicorn.access")  # the middleware logs each request, with its id
        self.runtime = _runtime
        _calls.update({RECOMMEND: self._recommend, RECOMMEND_ALL: self._recommend_all})
        _calls.update({STORE_INTERACTION: self._store, **store_calls(_runtime), **list_calls(_runtime, self._deadline)})

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def guard() -> None:
        """Refuse an unsafe start, once, before any worker is there; the workers inherit the umask."""
        os.umask(PRIVATE)
        configure_logging(_settings)
        try:
            guard_start(_settings)
        except ConfigurationError as refusal:
            sys.exit(f"error: {refusal}")

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        """Begin to serve."""
        await self.runtime.start()
        _drain.install()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        """Let go of everything, after the last answer."""
        await self.runtime.stop()

    async def __is_ready__(self) -> bool:
        """Tell BentoML's own /readyz."""
        return self.runtime.warm

    @bentoml.api(route=RECOMMENDATIONS, input_spec=RecommendationRequest)  # type: ignore[untyped-decorator]
    async def recommendations(self, **fields: Any) -> Recommendations:
        """Recommend people to a person: takes the fields of a RecommendationRequest."""
        return await self._recommend(RecommendationRequest(**fields))  # type: ignore[return-value]

    @bentoml.api(route=INTERACTIONS, input_spec=InteractionRequest)  # type: ignore[untyped-decorator]
    async def interactions(self, **fields: Any) -> StoredInteraction:
        """Store what one person did about another: takes the fields of an InteractionRequest."""
        return await self._store(InteractionRequest(**fields))  # type: ignore[return-value]

    async def _recommend(self, request: RecommendationRequest) -> Response:
        if not isinstance(request, NamedRecommendationRequest):
            return responses.ok(await self._answer(request))
        names, one, many = self.runtime.stores.names, ("user_id",), ("exclude",)
        numbers = await names.numbers(names_in(request, one, many))
        answer = await self._answer(numbered(RecommendationRequest, request, numbers, one, many))
        return responses.ok(renamed(answer, await names.names(item.user_id for item in answer.items)))

    async def _answer(self, request: RecommendationRequest) -> Answer:
        # The header's id is the client's to use again; impressions need one that is new.
        call = context.current()
        call.answer_id = uuid4()
        deadline = self._deadline(call)
        variant = chosen_variant(call.headers, tester=call.caller is not None and call.caller.tester)
        return await self.runtime.recommender.recommend(request, call.answer_id, deadline=deadline, variant=variant)

    async def _recommend_all(self, batch: RecommendationBatch) -> Response:
        call = context.current()
        budget_ms = self._budget_ms(call)
        answered = await recommend_all(
            self.runtime.recommender,
            self.runtime.stores.names,
            batch,
            call.request_id,
            lambda: Deadline.after(budget_ms / 1000, _runtime.clock),  # of each answer, from when its turn comes
        )
        return responses.ok(answered)

    def _deadline(self, call: context.RequestContext) -> Deadline:
        # Time spent waiting for a place counts: the client's clock began when the call came in.
        return Deadline(call.started_s + self._budget_ms(call) / 1000, _runtime.clock)

    @staticmethod
    def _budget_ms(call: context.RequestContext) -> int:
        longest_ms = int(_settings.serving.timeout_s * 1000)
        return asked_ms(call.headers, longest_ms) or _settings.serving.deadline_ms

    async def _store(self, interaction: InteractionRequest) -> Response:
        if isinstance(interaction, NamedInteractionRequest):
            people = ("actor_id", "target_id")
            numbers = await self.runtime.stores.names.numbers(names_in(interaction, people))
            interaction = numbered(InteractionRequest, interaction, numbers, people)
        stored = await self.runtime.stores.interactions.store(interaction, context.current().request_id)
        return responses.ok(stored, 201 if stored.status == "stored" else 200)


Duet.mount_asgi_app(pages(_runtime, draining=lambda: _drain.active), path="/", name="pages")  # type: ignore[attr-defined]

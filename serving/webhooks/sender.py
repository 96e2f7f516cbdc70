"""Delivers the events of the outbox until they arrive or are given up; several workers share the work.

After a failure an event waits twice as long as before, from a second to ten minutes, by up to a half more or less, so
that a receiver that comes back is not called by everybody at once.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

import psycopg
import structlog
from pydantic_core import to_json

from infra.clock import Clock
from infra.db.connection_pool import ConnectionPool
from infra.errors import NoConnection
from infra.metrics import ServingMetrics
from infra.webhook_settings import WebhooksSettings, secret_bytes
from serving.api.health import WebhooksReport
from serving.errors import DeliveryFailed
from serving.resilience.background import Closing
from serving.webhooks.outbox import Backlog, Outbox, WebhookEvent
from serving.webhooks.receiver import Receiver
from serving.webhooks.signature import signed_headers

AT_ONCE: Final = 20
"""Deliveries of one worker at once."""
EVERY_S: Final = 1.0
"""Time between looks for events that are due; a worker that stored one looks at once."""
_SPARE_S: Final = 10.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 600.0
_DOUBLINGS: Final = 20
_log = structlog.get_logger(__name__)


def open_sender(
    settings: WebhooksSettings,
    pool: ConnectionPool,
    closing: Closing,
    *,
    clock: Clock,
    metrics: ServingMetrics,
    random: Callable[[], float],
) -> "WebhookSender | None":
    """Return what delivers to the webhook of the settings, None where there is none; `closing` will close it."""
    # The series are there before anything is counted, and where nothing ever is: a panel shows nought, and no gap.
    for outcome in ("delivered", "failed", "given_up"):
        metrics.webhooks.labels(outcome)
    metrics.webhooks_waiting.set(0)
    metrics.webhooks_oldest.set(0)
    if settings.url is None:
        return None
    receiver = Receiver(settings)
    closing.add("webhook", receiver.aclose)
    return WebhookSender(settings, Outbox(pool), receiver, clock=clock, metrics=metrics, random=random)


class WebhookSender:
    """Takes events from the outbox and posts them; `random` gives floats from 0 to 1."""

    def __init__(
        self,
        settings: WebhooksSettings,
        outbox: Outbox,
        receiver: Receiver,
        *,
        clock: Clock,
        metrics: ServingMetrics,
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._key = b"" if settings.secret is None else secret_bytes(settings.secret)
        self._outbox, self._receiver = outbox, receiver
        self._clock, self._metrics, self._random = clock, metrics, random
        self._nudged = asyncio.Event()
        self._backlog: Backlog | None = None
        self._problem: str | None = None

    def nudge(self) -> None:
        """Look at once: an event may have been stored."""
        self._nudged.set()

    def report(self) -> WebhooksReport:
        """Return what health says."""
        backlog = self._backlog
        return WebhooksReport(
            status="on",
            waiting=None if backlog is None else backlog.waiting,
            oldest_s=None if backlog is None else round(backlog.oldest_s, 3),
            message=self._problem,
        )

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            self._nudged.clear()
            try:
                found = await self.round()
            except (psycopg.Error, NoConnection, OSError, TimeoutError) as error:
                found = 0
                self._problem = f"The outbox could not be read: {type(error).__name__}."
            if found < AT_ONCE:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._nudged.wait(), EVERY_S)

    async def round(self) -> int:
        """Deliver what is due, at most AT_ONCE events, and return how many; raises what the outbox raises."""
        settings = self._settings
        lost = await self._outbox.give_up(timedelta(seconds=settings.give_up_after_s), settings.max_waiting)
        if lost:
            self._metrics.webhooks.labels("given_up").inc(lost)
            _log.error("webhooks_given_up", events=lost, last_failure=self._problem)
        events = await self._outbox.claim(AT_ONCE, timedelta(seconds=settings.timeout_s + _SPARE_S))
        taken = await asyncio.gather(*(self._took(event) for event in events))
        arrived = [event.event_id for event, took in zip(events, taken, strict=True) if took]
        pauses = {
            event.event_id: timedelta(seconds=self._pause_s(event.attempts))
            for event, took in zip(events, taken, strict=True)
            if not took
        }
        if arrived:
            await self._outbox.delivered(arrived)
            self._metrics.webhooks.labels("delivered").inc(len(arrived))
        if pauses:
            await self._outbox.later(pauses)
            self._metrics.webhooks.labels("failed").inc(len(pauses))
            _log.warning("webhook_failed", why=self._problem, events=len(pauses))
        self._backlog = await self._outbox.backlog()
        if not self._backlog.waiting:
            self._problem = None
        self._metrics.webhooks_waiting.set(self._backlog.waiting)
        self._metrics.webhooks_oldest.set(self._backlog.oldest_s)
        return len(events)

    async def _took(self, event: WebhookEvent) -> bool:
        """Post an event; say whether the receiver took it."""
        body = to_json(
            {
                "id": event.event_id,
                "type": event.kind,
                "occurred_at": event.occurred_at,
                "actor_id": event.actor,
                "target_id": event.target,
            }
        )
        headers = signed_headers(self._key, event.event_id, int(self._clock.now().timestamp()), body)
        try:
            await self._receiver.deliver(body, headers)
        except DeliveryFailed as error:
            self._problem = str(error)
            return False
        return True

    def _pause_s(self, attempts: int) -> float:
        doubled: float = _FIRST_PAUSE_S * 2 ** min(attempts - 1, _DOUBLINGS)
        return min(doubled, _LONGEST_PAUSE_S) * (0.5 + self._random())

"""Matches and blocks on their way to an app: written with the interaction, signed, sent until they arrive."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import SecretStr

from feature_repo.kinds import Kind
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import Settings
from infra.webhook_settings import WebhooksSettings
from serving.api.models import InteractionBatch, InteractionRequest
from serving.errors import DeliveryFailed
from serving.people.interaction_batches import store_all
from serving.people.interactions import Interactions
from serving.people.names import Names
from serving.people.statements import Storage
from serving.webhooks.outbox import Outbox
from serving.webhooks.receiver import Receiver
from serving.webhooks.sender import AT_ONCE, WebhookSender
from tests.clocks import FixedClock
from tests.on_pool import on_pool
from tests.serving_fakes import closed_breaker
from tests.serving_world import insert_people
from tests.webhook import listening

KEY = bytes(range(32))
SECRET = SecretStr("whsec_" + base64.b64encode(KEY).decode())
LEASE = timedelta(seconds=30)


def settings_for(url: str, **more: Any) -> WebhooksSettings:
    return WebhooksSettings(**{"url": SecretStr(url), "secret": SECRET, "allow_private": True, **more})


class Desk:
    """Stores interactions, and delivers what comes of them."""

    def __init__(
        self, connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, clock: FixedClock
    ) -> None:
        self.connection, self.settings, self.url = connection, settings, endpoints.database_url
        self.clock = clock

    def use(self, use: Callable[[Any], Awaitable[Any]]) -> Any:
        return on_pool(self.url, self.settings, use)

    def store(self, *events: tuple[int, int, Kind], notify: Callable[[], None] | None = lambda: None) -> None:
        async def go(pool: Any) -> None:
            storage = Storage(pool, closed_breaker(), 5.0)
            desk = Interactions(storage, metrics=serving_metrics(), notify=notify)
            for actor, target, kind in events:
                await desk.store(InteractionRequest(actor_id=actor, target_id=target, kind=kind), "mine-7")

        self.use(go)

    def deliver(self, settings: WebhooksSettings, rounds: int = 1) -> WebhookSender:
        async def go(pool: Any) -> WebhookSender:
            receiver = Receiver(settings)
            sender = WebhookSender(
                settings, Outbox(pool), receiver, clock=self.clock, metrics=serving_metrics(), random=lambda: 0.5
            )
            for _ in range(rounds):
                await sender.round()
            await receiver.aclose()
            return sender

        sender: WebhookSender = self.use(go)
        return sender

    def waiting(self) -> list[tuple[Any, ...]]:
        self.connection.rollback()
        return self.connection.execute(
            "select kind, actor_id, target_id from duet.webhook_events order by created_at"
        ).fetchall()

    def run(self, statement: str) -> None:
        self.connection.execute(statement)  # type: ignore[arg-type]  # written in this file
        self.connection.commit()

    def fill(self, n: int) -> None:
        """Put `n` events into the outbox."""
        self.connection.cursor().executemany(
            "insert into duet.webhook_events (event_id, kind, actor_id, target_id, occurred_at)"
            " values (%s, 'block', 1, 2, now())",
            [(uuid4(),) for _ in range(n)],
        )
        self.connection.commit()


@pytest.fixture
def desk(connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, clock: FixedClock) -> Desk:
    insert_people(connection, 6)
    return Desk(connection, endpoints, settings, clock)


def counted(outcome: str) -> float:
    (family,) = serving_metrics().webhooks.collect()
    return sum(one.value for one in family.samples if one.name.endswith("_total") and one.labels["outcome"] == outcome)


LIKE, PASS, BLOCK, UNBLOCK = Kind.LIKE, Kind.PASS, Kind.BLOCK, Kind.UNBLOCK


def test_a_match_and_a_block_are_put_down_once_each_with_the_interaction_that_makes_them(desk: Desk) -> None:
    told: list[int] = []
    desk.store(
        (1, 2, LIKE), (2, 1, LIKE), (2, 1, Kind.SUPERLIKE), (1, 2, LIKE), (3, 4, PASS), (1, 2, BLOCK), (1, 2, UNBLOCK),
        notify=lambda: told.append(len(told)),
    )  # fmt: skip
    assert desk.waiting() == [("match", 2, 1), ("block", 1, 2)]
    assert len(told) >= 2
    desk.store((1, 2, LIKE), (2, 1, LIKE))
    assert desk.waiting()[2:] == [("match", 2, 1)]


def test_nothing_is_put_down_where_there_is_no_webhook_or_nothing_is_stored(desk: Desk) -> None:
    desk.store((1, 2, LIKE), (2, 1, LIKE), (1, 2, BLOCK), notify=None)
    event_id = uuid4()

    async def twice(pool: Any) -> None:
        interactions = Interactions(
            Storage(pool, closed_breaker(), 5.0), metrics=serving_metrics(), notify=lambda: None
        )
        block = InteractionRequest(event_id=event_id, actor_id=3, target_id=4, kind=BLOCK)
        for _ in range(2):
            await interactions.store(block, "mine-7")

    desk.use(twice)
    assert desk.waiting() == [("block", 3, 4)]


def test_a_batch_puts_down_its_matches_too(desk: Desk) -> None:
    events: Sequence[dict[str, Any]] = [
        {"actor_id": 1, "target_id": 2, "kind": "like"},
        {"actor_id": 2, "target_id": 1, "kind": "like"},
        {"actor_id": 3, "target_id": 1, "kind": "like"},
    ]

    async def go(pool: Any) -> None:
        storage = Storage(pool, closed_breaker(), 5.0)
        desk = Interactions(storage, metrics=serving_metrics(), notify=lambda: None)
        await store_all(storage, Names(storage), desk, InteractionBatch(interactions=list(events)), "mine-7")

    desk.use(go)
    assert desk.waiting() == [("match", 2, 1)]


def test_a_delivery_names_people_as_the_app_does_and_its_signature_can_be_checked(desk: Desk) -> None:
    desk.run("update duet.users set external_id = 'anna-1' where user_id = 1")
    desk.store((1, 2, LIKE), (2, 1, LIKE))
    with listening(204) as webhook:
        sender = desk.deliver(settings_for(webhook.url))
    ((headers, body),) = webhook.requests
    (told,) = webhook.received
    assert (told["type"], told["actor_id"], told["target_id"]) == ("match", 2, "anna-1")
    assert headers["webhook-id"] == told["id"] == str(UUID(told["id"]))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert desk.waiting() == []
    assert (sender.report().waiting, sender.report().message) == (0, None)


@pytest.mark.parametrize("status", [500, 302, 400])
def test_what_is_not_taken_is_sent_again_later_and_later_until_it_is(desk: Desk, status: int) -> None:
    desk.fill(1)
    with listening(status) as webhook:
        for attempt in (1, 2, 3):
            sender = desk.deliver(settings_for(webhook.url))
            assert len(webhook.received) == attempt
            ((attempts, pause_s),) = desk.connection.execute(
                "select attempts, extract(epoch from due_at - clock_timestamp())::float8 from duet.webhook_events"
            ).fetchall()
            assert attempts == attempt
            assert pause_s <= 2 ** (attempt - 1)
            desk.run("update duet.webhook_events set due_at = due_at + interval '1 hour'")
            desk.deliver(settings_for(webhook.url))
            assert len(webhook.received) == attempt, "it was not due yet"
            desk.run("update duet.webhook_events set due_at = now()")
        assert sender.report().message == f"The webhook answered with status {status}."
        assert sender.report().waiting == 1
        webhook.status = 200
        desk.deliver(settings_for(webhook.url))
    assert desk.waiting() == []
    assert len({told["id"] for told in webhook.received}) == 1


def test_what_a_worker_has_claimed_is_nobody_elses_until_its_time_is_over(desk: Desk) -> None:
    desk.fill(30)

    async def claims(pool: Any) -> list[set[UUID]]:
        found = await asyncio.gather(*(Outbox(pool).claim(12, LEASE) for _ in range(3)))
        return [{event.event_id for event in events} for events in found]

    first, second, third = desk.use(claims)
    assert len(first | second | third) == len(first) + len(second) + len(third) == 30
    with listening(200) as webhook:
        desk.deliver(settings_for(webhook.url))
        assert webhook.received == []  # whoever claimed them may still be at work
        desk.run("update duet.webhook_events set due_at = now()")  # they were killed, and the lease is over
        desk.deliver(settings_for(webhook.url), rounds=2)
    assert len(webhook.received) == 30
    assert AT_ONCE < 30


def test_what_is_too_old_or_too_much_is_given_up_and_counted(desk: Desk) -> None:
    desk.fill(5)
    before = counted("given_up")
    with listening(500) as webhook:
        desk.run("update duet.webhook_events set created_at = now() - interval '1 hour' where actor_id = 1")
        desk.fill(4)
        desk.deliver(settings_for(webhook.url, give_up_after_s=600.0))
        assert (len(desk.waiting()), counted("given_up") - before) == (4, 5)
        desk.deliver(settings_for(webhook.url, max_waiting=3))
    assert (len(desk.waiting()), counted("given_up") - before) == (3, 6)


def test_a_receiver_that_says_nothing_is_left_in_time(desk: Desk) -> None:
    desk.fill(1)
    with listening(None) as webhook:
        sender = desk.deliver(settings_for(webhook.url, timeout_s=0.2))
    assert "did not answer: TimeoutError" in str(sender.report().message) or "ReadTimeout" in str(
        sender.report().message
    )
    assert len(desk.waiting()) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.7", "[::1]", "169.254.169.254"])
def test_an_address_that_is_not_public_is_not_called_unless_allowed(host: str) -> None:
    async def go() -> None:
        receiver = Receiver(settings_for(f"https://{host}:9/hook", allow_private=False))
        try:
            await receiver.deliver(b"{}", {})
        finally:
            await receiver.aclose()

    with pytest.raises(DeliveryFailed, match="DUET_WEBHOOKS__ALLOW_PRIVATE"):
        asyncio.run(go())


def test_an_erased_person_is_in_no_delivery(desk: Desk) -> None:
    desk.store((1, 2, BLOCK))
    desk.run("delete from duet.interactions where 1 in (actor_id, target_id)")
    desk.run("delete from duet.users where user_id = 1")
    assert desk.waiting() == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "https://app.example.com/hook"}, "without `secret`"),
        ({"url": "http://app.example.com/hook", "secret": SECRET}, "plain http"),
        ({"url": "ftp://app.example.com/hook", "secret": SECRET}, "not a URL"),
        ({"secret": "whsec_c2hvcnQ="}, "openssl rand"),
        ({"secret": "correct horse battery staple"}, "openssl rand"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_to_do(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        WebhooksSettings(**given)

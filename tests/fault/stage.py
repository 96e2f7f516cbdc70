"""The real service with a proxy before each of its servers, over the village, and the judgement of what it answers."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import httpx
import redis

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.settings import Settings
from infra.web.client import tls
from tests.conftest import empty_tables, make_settings
from tests.fault.crowd import Answer, Crowd, ask_each, percentile
from tests.fault.proxy import Fault, Mode, TcpProxy
from tests.fault.village import PEOPLE, PLACES, Rules, number, others, place, settle
from tests.serving_process import ServingProcess, serving_process
from tests.waiting import PATIENCE_S, slowness, until

DEADLINE_S: Final = 0.4
"""On a machine of our own; all limits of time are as many times longer as a busy machine makes everything slower."""
SLACK_S: Final = 0.35
"""What may come to the deadline on the way; where calm answers took longer than that, twice what they took."""
FEW: Final = 0.1
ASKERS: Final = [user_id for user_id in PEOPLE if place(user_id) < PLACES - 1 and number(user_id) != 4]
WRITERS: Final = [user_id for user_id in PEOPLE if place(user_id) == PLACES - 1 and number(user_id) != 4]
RELEASE: Final = "e1-i1-r1"


@dataclass
class Stage:
    """The service, its servers behind proxies, and what is true of the village; `calm` is each asker's right answer."""

    service: ServingProcess
    endpoints: Endpoints
    postgres: TcpProxy
    redis: TcpProxy
    mlflow: TcpProxy
    rules: Rules
    calm: dict[int, Answer]
    slow: float
    calm_p99_s: float = 0.0

    @property
    def through(self) -> Endpoints:
        """The servers as the service sees them."""
        return seen_through(self.endpoints, self.postgres, self.redis, self.mlflow)

    @property
    def deadline_s(self) -> float:
        """How long an answer may take."""
        return DEADLINE_S * self.slow

    def set(self, dependency: str, fault: Fault) -> None:
        """Break `postgres`, `redis` or `mlflow`; what is slow is as many times slower as this stage's limits are."""
        scale = {Mode.DELAY: self.slow, Mode.DRIP: 1 / self.slow}.get(fault.mode, 1.0)
        proxy: TcpProxy = getattr(self, dependency)
        proxy.set(fault.mode, fault.amount * scale)

    def heal(self) -> None:
        """Let everything pass again."""
        for proxy in (self.postgres, self.redis, self.mlflow):
            proxy.heal()

    def crowd(self, **more: Any) -> Crowd:
        """Return a crowd of everybody who only asks, and a writer with more to pass on than there is time for."""
        writes = [(actor, target) for actor in WRITERS for target in others(actor)]
        return Crowd(self.service.port, ASKERS, **{"writes": writes, **more})

    def health(self) -> dict[str, Any]:
        """Return what the service says of itself."""
        report: dict[str, Any] = httpx.get(
            f"{self.service.url}/health", timeout=20, trust_env=False, verify=tls()
        ).json()
        return report

    def judge(self, answers: Iterable[Answer]) -> None:
        """Fail unless every answer came, as 200, with nobody ineligible; and at level 1 is the asker's own."""
        for answer in answers:
            assert answer.status == 200, f"{answer.user_id} got {answer.status}: {answer.body} {answer.took_s:.2f} s"
            wrong = [shown for shown in answer.people if not self.rules.eligible(answer.user_id, shown)]
            assert not wrong or answer.user_id in WRITERS, f"{answer.user_id} was shown {wrong}: {answer.body}"
            assert set(answer.people) <= self.rules.everybody(answer.user_id)
            assert answer.level != 4 or (not answer.people and answer.body["reason"] and answer.body["message"])
            if answer.level == 1 and answer.user_id in self.calm:
                said, right = opinion(answer), opinion(self.calm[answer.user_id])
                # When the last check breaks off, those checked before are shown: fewer people, the same opinion.
                known = {user_id: right.get(user_id) for user_id in said}
                assert said == (known if "safety" in answer.body["degraded"] else right), (
                    f"not the answer of {answer.user_id}: {answer.body}"
                )

    def judge_times(self, answers: Sequence[Answer]) -> None:
        """Fail when the slowest are past the deadline by more than a busy machine explains."""
        p99_s = percentile([replace(answer, took_s=answer.took_s - 3 * answer.stalled_s) for answer in answers], 0.99)
        allowed_s = self.deadline_s + max(SLACK_S * max(self.slow, slowness()), 2 * self.calm_p99_s)
        assert p99_s <= allowed_s, f"p99 is {p99_s * 1000:.0f} ms of {len(answers)} answers"

    def judge_level(self, answers: Sequence[Answer], level: int) -> None:
        """Fail unless answers are of this level, but for the few that a busy machine itself makes late."""
        other = [answer for answer in answers if answer.level != level]
        assert len(other) <= FEW * len(answers), f"{len(other)} of {len(answers)}, such as {other[0].body}"

    def judge_written(self, crowd: Crowd) -> None:
        """Fail when an acknowledged interaction is not there or was not felt, or a refusal was not in the envelope."""
        acknowledged = [written for written in crowd.written if written.is_acknowledged]
        assert acknowledged
        odd = [(one.status, one.said) for one in crowd.written if not one.is_acknowledged and one.status != 503]
        assert not odd, odd
        assert all(written.felt for written in acknowledged), "an answer did not know of an acknowledged interaction"
        with connect(self.endpoints.database_url) as connection:
            rows = connection.execute(
                "select event_id::text from duet.interactions where event_id = any(%s)",
                ([written.event_id for written in acknowledged],),
            ).fetchall()
        assert len(rows) == len(acknowledged), "an acknowledged interaction was lost"


def opinion(answer: Answer) -> dict[int, tuple[float, float]]:
    """Return what an answer says of each person: nobody else's answer says the same."""
    return {
        item["user_id"]: (round(item["p_like"], 5), round(item["p_liked_back"], 5)) for item in answer.body["items"]
    }


@contextmanager
def staged(direct: Endpoints, root: Path, *, mlflow_at_start: Mode = Mode.PASS, **variables: str) -> Iterator[Stage]:
    """Run the service over a new village for the length of the block; `variables` are settings without `DUET_`."""
    project = f"faults_{uuid4().hex[:12]}"
    settings = make_settings(root / "duet", features={"project": project})
    with connect(direct.database_url) as connection, redis.Redis.from_url(direct.redis_url) as online:
        empty_tables(connection)
        online.flushdb()
        rules = settle(connection, settings, direct, root / "written")
    with (
        proxied(direct.database_url) as postgres_proxy,
        proxied(direct.redis_url) as redis_proxy,
        proxied(direct.mlflow_url or "http://127.0.0.1:9") as mlflow_proxy,
    ):
        mlflow_proxy.set(mlflow_at_start)
        through = seen_through(direct, postgres_proxy, redis_proxy, mlflow_proxy)
        slow = slowness()
        usual = Settings(data_dir=root / "duet")
        told = {
            "FEATURES__PROJECT": project,
            "SERVING__DEADLINE_MS": str(round(DEADLINE_S * slow * 1000)),
            # A machine that stands still for a second is no overload, which has tests of its own.
            "SERVING__QUEUE_TIMEOUT_MS": str(min(round(5000 * slow), 10_000)),
            "SERVING__TIMEOUT_S": str(min(usual.serving.timeout_s * slow, 60.0)),
            "POSTGRES__CHECKOUT_TIMEOUT_S": str(usual.postgres.checkout_timeout_s * slow),
            "POSTGRES__STATEMENT_TIMEOUT_S": str(usual.postgres.statement_timeout_s * slow),
            "REDIS__SOCKET_TIMEOUT_S": str(usual.redis.socket_timeout_s * slow),
            "REDIS__CONNECT_TIMEOUT_S": str(usual.redis.connect_timeout_s * slow),
            "SERVING__CACHE__ENABLED": "false",  # a kept answer would hide what is broken
            "SERVING__RELEASE_POLL_S": "0.5",
            **variables,
        }
        with serving_process(through, root, **told) as service:
            stage = Stage(service, direct, postgres_proxy, redis_proxy, mlflow_proxy, rules, {}, slow)
            wait_until_calm(stage)
            yield stage


def wait_until_calm(stage: Stage) -> None:
    """Wait until answers are whole, and remember each asker's right answer."""
    until(lambda: all(answer.whole for answer in ask_each(stage.service.port, ASKERS[:10]).values()), PATIENCE_S)
    with stage.crowd(writes=()) as crowd:
        crowd.watch(1.0, at_least=50)
        stage.calm_p99_s = percentile(crowd.answers, 0.99)

    def remember_whole() -> bool:
        missing = [user_id for user_id in ASKERS if user_id not in stage.calm]
        stage.calm.update(
            (user_id, answer) for user_id, answer in ask_each(stage.service.port, missing).items() if answer.whole
        )
        return len(stage.calm) == len(ASKERS)

    until(remember_whole, 2 * PATIENCE_S, lambda: "some answers never were whole")
    for user_id, answer in stage.calm.items():
        assert set(answer.people) == stage.rules.everybody(user_id)
    assert len({str(sorted(opinion(answer).items())) for answer in stage.calm.values()}) == len(ASKERS)


@contextmanager
def proxied(url: str) -> Iterator[TcpProxy]:
    """Put a proxy before the server of `url`."""
    place_of = urlsplit(url)
    with TcpProxy(place_of.hostname or "127.0.0.1", place_of.port or 80) as proxy:
        yield proxy


def via(url: str, proxy: TcpProxy) -> str:
    """Return `url` with the proxy's address instead of the server's."""
    parts = urlsplit(url)
    account, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{proxy.port}"))


def seen_through(direct: Endpoints, postgres: TcpProxy, redis: TcpProxy, mlflow: TcpProxy) -> Endpoints:
    """Return the endpoints with the proxies' addresses."""
    return Endpoints(
        via(direct.database_url, postgres),
        via(direct.redis_url, redis),
        None if direct.mlflow_url is None else via(direct.mlflow_url, mlflow),
    )

"""Fault 9: several times more than the service can do, and normal service right after."""

import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from infra.endpoints import Endpoints
from tests.fault.crowd import Answer, Crowd, percentile
from tests.fault.stage import ASKERS, Stage, staged
from tests.waiting import slowness

pytestmark = pytest.mark.timeout(300)

SUSTAINED = 8
"""Callers that keep the service busy without a refusal."""
SLACK = {3: 0.15, 10: 0.1}
"""Part of the usual goodput that must be left, by times: the callers take CPU of the same machine."""
BUSY = 3.0
"""A machine that makes everything so many times slower has no CPU left for whoever asks and whoever answers."""
PROBES = 3
"""After so many refusals a proxy takes a replica out."""
RECOVERY_S = 5.0


@pytest.fixture(scope="module")
def stage(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    short = str(round(50 * slowness()))
    with staged(endpoints, tmp_path_factory.mktemp("overloaded"), SERVING__QUEUE_TIMEOUT_MS=short) as stage:
        yield stage


def good(stage: Stage, answers: list[Answer]) -> list[Answer]:
    """Return the answers that a caller has use of: as good as ever, and before anybody stopped waiting."""
    return [answer for answer in answers if answer.level == 1 and answer.took_s <= 2 * stage.deadline_s]


def kinds(answers: list[Answer]) -> Counter[str]:
    return Counter(f"{a.status} {a.level} {a.body.get('reason')} {a.body.get('degraded')}" for a in answers)


def sustained(stage: Stage) -> tuple[float, list[Answer]]:
    """Return how many good answers a second callers get who wait for each other, and the answers."""
    with Crowd(stage.service.port, ASKERS, askers=SUSTAINED, pause_s=0.0) as crowd:
        crowd.until_whole()
        seen = crowd.watch(2.0)
    return len(good(stage, seen)) / 2.0, seen


def flooded(stage: Stage, rate: float, seconds: float) -> tuple[float, list[Answer]]:
    """Return the good answers a second while so many come every second, whatever they get; and all answers."""
    callers = 100
    with Crowd(stage.service.port, ASKERS, askers=callers, pause_s=0.0, every_s=callers / rate) as crowd:
        crowd.watch(0.5)
        began = time.monotonic()
        crowd.watch(seconds)
        ended = time.monotonic()
        answers = list(crowd.answers)
    seen = [answer for answer in answers if began <= answer.asked_s + answer.took_s <= ended]
    return len(good(stage, seen)) / (ended - began), answers


@pytest.mark.parametrize("times", [pytest.param(3, marks=pytest.mark.long), 10])
def test_an_overload_leaves_the_goodput_refuses_the_rest_fast_and_ends_within_seconds(stage: Stage, times: int) -> None:
    usual, calm = sustained(stage)
    left, answers = flooded(stage, times * usual, 3.0)
    with Crowd(stage.service.port, ASKERS, askers=2) as crowd:
        crowd.until_whole(RECOVERY_S * max(stage.slow, slowness()))
        after = crowd.watch(0.5)
    usual = min(usual, sustained(stage)[0])  # what else runs on the machine may have begun meanwhile
    refused = [answer for answer in answers if answer.status != 200]
    stage.judge([*calm, *after, *(answer for answer in answers if answer.status == 200)])
    stage.judge_level(after, 1)
    assert {answer.status for answer in refused} <= {503, 429}
    assert {answer.body["error"]["code"] for answer in refused} <= {"overloaded"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    if max(stage.slow, slowness()) < BUSY:
        assert left >= SLACK[times] * usual, f"{left:.0f}/s are good of {times} times {usual:.0f}/s: {kinds(answers)}"
    if refused:
        assert percentile(refused, 0.5) <= stage.deadline_s, "refusals are slow"


def test_probes_are_answered_in_an_overload(stage: Stage) -> None:
    with Crowd(stage.service.port, ASKERS, askers=100, pause_s=0.02) as crowd:
        crowd.watch(0.5)
        statuses = {
            probe: [
                httpx.get(f"{stage.service.url}/health/{probe}", timeout=20, trust_env=False).status_code
                for _ in range(PROBES)
            ]
            for probe in ("live", "ready")
        }
    assert statuses["live"] == [200] * PROBES
    if max(stage.slow, slowness()) < BUSY:
        assert statuses["ready"] == [200] * PROBES
    assert 200 in statuses["ready"]

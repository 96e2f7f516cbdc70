"""Fault 9: several times more than the service can do, and normal service right after."""

import time
from collections.abc import Iterator

import httpx
import pytest

from infra.endpoints import Endpoints
from tests.fault.crowd import Answer, Crowd, percentile
from tests.fault.stage import ASKERS, DEADLINE_S, Stage, staged

pytestmark = pytest.mark.timeout(300)

SUSTAINED = 8
"""Callers that keep the service busy without a refusal."""
SLACK = 0.6
"""Part of the usual goodput that must be left: 0.9 is promised of a quiet machine, where callers do not take CPU."""
RECOVERY_S = 5.0


@pytest.fixture(scope="module")
def stage(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(endpoints, tmp_path_factory.mktemp("overloaded"), SERVING__QUEUE_TIMEOUT_MS="50") as stage:
        yield stage


def good(answers: list[Answer]) -> list[Answer]:
    """Return the answers that a caller had use of: whole, and before anybody stopped waiting."""
    return [answer for answer in answers if answer.whole and answer.took_s <= 4 * DEADLINE_S]


def goodput(port: int, callers: int, seconds: float, pause_s: float = 0.0) -> tuple[float, list[Answer]]:
    """Return good answers a second of so many callers, and all of their answers."""
    with Crowd(port, ASKERS, askers=callers, pause_s=pause_s) as crowd:
        time.sleep(0.5)  # everybody has come
        began = time.monotonic()
        crowd.watch(seconds)
        answers = [answer for answer in crowd.since(began) if answer.asked_s + answer.took_s <= began + seconds]
    return len(good(answers)) / seconds, list(crowd.answers)


@pytest.mark.parametrize("times", [3, 10])
def test_an_overload_leaves_the_goodput_refuses_the_rest_fast_and_ends_within_seconds(stage: Stage, times: int) -> None:
    usual, calm = goodput(stage.service.port, SUSTAINED, 2.0)
    # Whoever is refused comes again after a moment, so that the callers leave the service some of the CPU.
    crowded, answers = goodput(stage.service.port, SUSTAINED * times + 48, 3.0, pause_s=0.05)
    ended = time.monotonic()
    stage.judge(calm)
    refused = [answer for answer in answers if answer.status != 200]
    stage.judge([answer for answer in answers if answer.status == 200])
    assert {answer.status for answer in refused} <= {503, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.body["error"]["code"] for answer in refused} <= {"overloaded"}
    if refused:
        assert percentile(refused, 0.5) <= percentile([*good(answers), *calm], 0.99)
    assert crowded >= SLACK * usual, f"{crowded:.0f}/s in the overload, {usual:.0f}/s before"
    with Crowd(stage.service.port, ASKERS, askers=2) as crowd:
        crowd.until_whole()
        crowd.watch(0.5)
        after = crowd.since(ended + RECOVERY_S) or crowd.answers[-15:]
    assert all(answer.whole for answer in after)


def test_probes_are_answered_in_an_overload(stage: Stage) -> None:
    with Crowd(stage.service.port, ASKERS, askers=100, pause_s=0.02) as crowd:
        crowd.watch(0.5)
        statuses = [
            httpx.get(f"{stage.service.url}/health/{probe}", timeout=20, trust_env=False).status_code
            for probe in ("live", "ready") * 3
        ]
    assert statuses == [200] * 6

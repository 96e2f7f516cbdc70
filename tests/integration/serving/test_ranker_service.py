"""The ranker's service and the serving app that asks it, both as BentoML runs them."""

import asyncio
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from bentoml import SyncHTTPClient
from bentoml.exceptions import InvalidArgument

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from serving.recommend.ranker_matrices import PROBABILITIES, packed
from tests.conftest import empty_tables
from tests.serving_process import ServingProcess, ranker_process, serving_process
from tests.serving_world import insert_people, ranker
from tests.waiting import until

RELEASE = "e1-i1-r1"


@dataclass
class Both:
    """The two services and a client of each."""

    serving: httpx.Client
    served: ServingProcess
    service: ServingProcess
    ranker: Any

    def recommend(self) -> list[tuple[int, float]]:
        answer = self.serving.post("/v1/recommendations", json={"user_id": 1, "limit": 10}).json()
        assert answer["level"] == 1, answer
        return [(item["user_id"], item["p_like"]) for item in answer["items"]]

    def calls(self, result: str) -> float:
        return metric(self.serving, f'duet_breaker_calls_total{{dependency="ranker_service",result="{result}"}}')


def metric(client: httpx.Client, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def both(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with connect(endpoints.database_url) as connection:
        empty_tables(connection)
        insert_people(connection, 40)
    root = tmp_path_factory.mktemp("ranked")
    with (
        ranker_process(root, SERVING__MAX_HEADER_BYTES="4096") as service,
        serving_process(
            endpoints,
            root,
            SERVING__RANKER_URL=service.url,
            SERVING__RANKER_TIMEOUT_MS="2000",
            SERVING__CACHE__ENABLED="false",
        ) as served,
        httpx.Client(base_url=served.url, timeout=20, trust_env=False) as client,
        SyncHTTPClient(service.url) as asked,
    ):
        yield Both(client, served, service, asked)
        asked._temp_dir.cleanup()


def test_bentomls_client_asks_it_for_a_release(both: Both) -> None:
    assert both.ranker.columns(release=RELEASE) == list(ranker().feature_names)
    rows = np.array([[0.5], [3.5]], dtype=np.float32)
    (answer,) = both.ranker.probabilities(matrices=[{"release": RELEASE, "features": rows.tolist()}])
    assert answer == {"values": ranker().predict(rows).tolist(), "problem": None}
    with pytest.raises(InvalidArgument, match="no copy below"):
        both.ranker.columns(release="e1-i1-r2")


def test_both_keep_what_they_write_from_other_accounts(both: Both) -> None:
    for service in (both.served, both.service):
        states = [Path(f"/proc/{worker.pid}/status").read_text() for worker in service.workers()]
        assert {line for state in states for line in state.splitlines() if line.startswith("Umask")} == {"Umask:\t0077"}


def test_what_arrives_together_is_batched_and_everybody_gets_their_own(both: Both) -> None:
    rows = [np.full((3, 1), number / 8, dtype=np.float32) for number in range(32)]
    expected = [ranker().predict(part).tolist() for part in rows]

    async def burst() -> list[bool]:
        async with httpx.AsyncClient(base_url=both.service.url, trust_env=False, timeout=20) as client:
            routes = {route["name"]: route for route in (await client.get("/schema.json")).json()["routes"]}
            assert routes["probabilities"]["batchable"]
            asked = [{"matrices": [{"release": RELEASE, "features": packed(part)}]} for part in rows]
            answers = await asyncio.gather(*[client.post(PROBABILITIES, json=body) for body in asked])
        answered = [answer.status_code == 200 for answer in answers]
        for is_answered, answer, values in zip(answered, answers, expected, strict=True):
            assert is_answered or answer.status_code == 503  # it would have waited too long for the others
            assert not is_answered or answer.json()[0]["values"] == values
        return answered

    assert any(asyncio.run(burst()))


def test_a_head_that_is_larger_than_the_settings_allow_is_refused(both: Both) -> None:
    answer = httpx.get(f"{both.service.url}/readyz", headers={"x-long": "a" * 20_000}, trust_env=False, timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


def test_pickle_is_refused(both: Both) -> None:
    pickled = {"content-type": "application/vnd.bentoml+pickle"}
    answer = httpx.post(f"{both.service.url}{PROBABILITIES}", content=b"", headers=pickled, trust_env=False)
    assert answer.status_code == 415


def test_serving_gives_the_same_answer_with_the_service_and_after_it_died(both: Both) -> None:
    def was_asked() -> bool:
        both.recommend()
        return both.calls("success") > 0

    until(was_asked, 60)  # it loads the ranker with the first call
    before = both.calls("success")
    elsewhere = both.recommend()
    assert both.calls("success") == before + 1
    assert metric(both.serving, 'duet_inference_seconds_count{model="ranker_service"}') > 0
    both.service.process.send_signal(signal.SIGTERM)
    both.service.process.wait(30)
    assert both.recommend() == elsewhere
    assert both.calls("failure") > 0

"""The Python client as `make clients` builds it, against the served app."""

import asyncio
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from serving.clients import build
from tests.api.conftest import Served
from tests.losing import Losing, losing


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What `make clients` says on a machine without Node.js."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(build, "has_node", lambda: False)
        build.main([str(tmp_path_factory.mktemp("clients"))])
    return output.getvalue().splitlines()


@pytest.fixture(scope="module")
def client(said: list[str]) -> Iterator[ModuleType]:
    """The package, imported from its wheel."""
    wheel = said[0]
    sys.path.insert(0, wheel)
    import duet_client

    yield duet_client
    sys.path.remove(wheel)


@pytest.fixture
def network(town: Served) -> Iterator[Losing]:
    with losing(town.url) as between:
        yield between


def test_a_machine_without_node_gets_the_python_client_and_a_sentence(said: list[str]) -> None:
    assert said[0].endswith(".whl")
    assert said[1:] == [build.NO_NODE]


def test_a_person_gets_recommendations_from_both_clients(client: ModuleType, town: Served) -> None:
    asked = client.models.RecommendationRequest(user_id=1, limit=3)

    async def ask() -> Any:
        async with client.AsyncDuet(town.url) as duet:
            return await duet.recommend(asked)

    with client.Duet(town.url) as duet:
        answer = duet.recommend(asked)
    assert [person.user_id for person in answer.items] == [
        item["user_id"] for item in town.recommend(1, limit=3)["items"]
    ]
    assert [person.user_id for person in asyncio.run(ask()).items] == [person.user_id for person in answer.items]
    assert answer.level_name == "full"


def test_a_like_whose_answer_was_lost_is_sent_again_after_the_wait_and_stored_once(
    client: ModuleType, network: Losing
) -> None:
    network.losses = [503]
    with client.Duet(network.url, "of-nobody") as duet:
        stored = duet.store_interaction(
            client.models.InteractionRequest(actor_id=1, target_id=40, kind=client.models.Kind.LIKE)
        )
    first, second = (json.loads(body)["event_id"] for body in network.bodies)
    assert first == second == str(stored.event_id)
    assert stored.status == "known"
    assert network.keys == ["Bearer of-nobody"] * 2
    assert network.seen_at[1] - network.seen_at[0] >= 1


def test_a_batch_is_stored_once_by_the_asynchronous_client_too(client: ModuleType, network: Losing) -> None:
    network.losses = [502]
    models = client.models
    event = models.InteractionRequest(actor_id=1, target_id=39, kind=models.Kind.PASS)

    async def store() -> Any:
        async with client.AsyncDuet(network.url) as duet:
            return await duet.store_interactions(models.InteractionBatch(interactions=[event]))

    assert [result.status for result in asyncio.run(store()).results] == ["known"]
    assert len(network.bodies) == 2


def test_a_write_without_an_event_id_is_repeated_only_if_the_service_refused_it(
    client: ModuleType, network: Losing
) -> None:
    with client.Duet(network.url) as duet:
        network.losses = [503]
        with pytest.raises(client.DuetError) as lost:
            duet.hide_person(2)
        assert (lost.value.status, lost.value.code, lost.value.retry_after_s) == (503, "unexpected_answer", 1)
        assert len(network.bodies) == 1
        network.losses, network.before = [429], True
        assert duet.hide_person(2).status == "unchanged"  # the lost try had hidden them
        assert len(network.bodies) == 3


def test_what_keeps_failing_ends_in_the_error_of_the_last_try(client: ModuleType, network: Losing) -> None:
    network.losses = [502, 502]
    with client.Duet(network.url, retries=1) as duet, pytest.raises(client.DuetError, match="does not come from Duet"):
        duet.get_person(1)
    assert len(network.bodies) == 2


def test_a_refusal_names_its_code_its_field_and_its_request(client: ModuleType, town: Served) -> None:
    with client.Duet(town.url) as duet:
        with pytest.raises(client.DuetError) as refused:
            duet.recommend(client.models.RecommendationRequest(user_id=1, limit=1000), x_request_id="mine-1")
        with pytest.raises(client.DuetError) as unknown:
            duet.get_person("nobody")
    error = refused.value
    assert (error.status, error.code, error.field, error.request_id) == (422, "invalid_request", "limit", "mine-1")
    assert "less than or equal to 100" in error.details[0].message
    assert (unknown.value.status, unknown.value.code) == (404, "unknown_user")


def test_a_client_takes_values_that_only_a_newer_service_knows(client: ModuleType) -> None:
    assert client.models.Kind("newer") == "newer"
    assert client.models.RecommendationsLevel(9) == 9


@pytest.mark.long
def test_the_client_is_typed(tmp_path: Path) -> None:
    made = build.generate_python(tmp_path)
    (made / "use.py").write_text(
        "from duet_client import Duet\n"
        "from duet_client.models import RecommendationRequest\n"
        "with Duet('http://127.0.0.1') as duet:\n"
        "    answer = duet.recommend(RecommendationRequest(user_id=42))\n"
        "    first: int | str = answer.items[0].user_id\n"
        "    wrong: int = answer.items\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", "use.py"],
        cwd=made,
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stdout.splitlines() if ": error:" in line] == [
        line for line in done.stdout.splitlines() if line.startswith("use.py:6: error: Incompatible types")
    ]
    assert "use.py:6" in done.stdout

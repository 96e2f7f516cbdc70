"""The TypeScript client as `make clients` builds it: its example passes `tsc --strict` and calls the served app."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serving.clients import build
from tests.api.conftest import Served
from tests.losing import losing

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not build.has_node(), reason="node and npm are not on this machine"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled client, with its example compiled in it."""
    made = build.compile_typescript(tmp_path_factory.mktemp("typescript"))
    subprocess.run(["npx", "tsc", "--project", "example"], cwd=made, check=True)
    return made


def run_example(client: Path, url: str) -> dict[str, Any]:
    words = ["node", "example/dist/main.js", url]
    done = subprocess.run(words, cwd=client, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_example_runs_against_the_served_app(client: Path, town: Served) -> None:
    shown = [item["user_id"] for item in town.recommend(1, limit=3)["items"]]
    found = run_example(client, town.url)
    assert found.pop("requestId")
    assert found == {
        "shown": shown,
        "status": "stored",
        "visible": True,
        "code": "invalid_request",
        "field": "limit",
    }


def test_a_like_whose_answer_was_lost_is_sent_again_after_the_wait_and_stored_once(client: Path, town: Served) -> None:
    with losing(town.url) as network:
        network.losses = [503, None, 502]  # the recommendations, the same again, and the like
        assert run_example(client, network.url)["status"] == "known"
    events = [json.loads(body)["event_id"] for body in network.bodies if b"target_id" in body]
    assert len(events) == 2
    assert events[0] == events[1]
    assert network.seen_at[1] - network.seen_at[0] >= 1


def test_what_the_types_do_not_allow_does_not_compile(client: Path) -> None:
    (client / "example" / "wrong.ts").write_text(
        'import { createDuet } from "duet-client";\n'
        'const duet = createDuet({ baseUrl: "http://127.0.0.1" });\n'
        'await duet.POST("/v1/recommendations", { body: { limit: 3 } });\n'
    )
    words = ["npx", "tsc", "--project", "example", "--noEmit"]
    done = subprocess.run(words, cwd=client, capture_output=True, text=True, check=False)
    assert "example/wrong.ts(3," in done.stdout
    assert "user_id" in done.stdout

"""The life of models through the interfaces that people and programs use, on one platform: each test goes on where the
last one ended. It is lived twice: by MLflow's stages, and, in `make test-long`, by aliases alone.

Dagster is asked by GraphQL, MLflow by REST, the serving app by HTTP, everything else by the `duet` command.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml

from pipelines.experiments.guardrails import GUARDRAILS
from pipelines.release.policy import DEFAULT_FILE
from tests.e2e.conftest import LAUNCH, Duet, parameters, running
from tests.e2e.test_first_evening import recommended, served_release
from tests.waiting import until
from tests.webhook import Webhook, listening

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

PEOPLE = 300
ASKED = 200  # of them, in an experiment: so many that the guard can be sure
ONLOOKERS = range(201, 213)  # others, who decide nothing: one person shown to each, as the guard counts those, too
SMALL = {
    "embeddings": {"dimensions": 16, "iterations": 8},
    "features": {"max_snapshots": 6},
    "evaluation": {"bootstrap_rounds": 50},
}
FIRST, SECOND, THIRD = "e1-i1-r1", "e1-i1-r2", "e1-i1-r3"
RUN_S = 400.0
FOLLOWED_S = 10.0  # a release that was tried here before, and a move that workers are told of
LOOKED_S = 20.0  # a move by hand, which they find at their next look; these tests share a machine
TRIED_S = 60.0  # what was never seen here, which is tried in a process of its own first
GUARDED_S = 180.0
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
CHECKS = """
query($path: [String!]!) {
  assetNodeOrError(assetKey: { path: $path }) {
    ... on AssetNode {
      assetChecksOrError {
        ... on AssetChecks { checks { name executionForLatestMaterialization { runId status } } }
      }
    }
  }
}
"""


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with listening(200) as server:
        yield server


@pytest.fixture(scope="module", params=["stages", "aliases"])
def duet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Duet]:
    """A platform on which answers are not kept, and gates and guard judge already by a few dozen people."""
    folder = tmp_path_factory.mktemp("life")
    rails = yaml.safe_load(GUARDRAILS.read_text()) | {
        "minimum_answers": 20,
        "minimum_people": 20,
        "attribution_s": 20,
        "guardrails": [{"metric": "like_rate", "worse": "lower", "factor": 0.7}],
    }
    (folder / "guardrails.yaml").write_text(yaml.safe_dump(rails))
    policy = yaml.safe_load(DEFAULT_FILE.read_text())
    separates = next(gate for gate in policy["gates"] if gate["name"] == "ranker_separates")
    separates |= {"tolerance": {"absolute": 0.02}, "needs": {"decisions": 100}}
    (folder / "gates.yaml").write_text(yaml.safe_dump(policy))
    variables = {
        "DUET_GATES__FILE": str(folder / "gates.yaml"),
        "DUET_EXPERIMENTS__GUARDRAILS": str(folder / "guardrails.yaml"),
        "DUET_SERVING__CACHE__ENABLED": "false",
        "DUET_ALERTS__WEBHOOK_URL": webhook.url,
        "DUET_MLFLOW__PROMOTED_BY": request.param,
    }
    with running(Duet(folder / "duet", variables)) as platform:
        yield platform


@pytest.fixture(scope="module")
def moves(duet: Duet) -> list[tuple[str, str, str]]:
    """What the audit must tell in the end: release, stage and way of each move so far."""
    return []


@pytest.fixture(scope="module")
def moments(duet: Duet) -> dict[str, datetime]:
    """Instants at which a release is known to have served, by release."""
    return {}


def test_a_model_is_trained_through_graphql_judged_and_promoted_by_the_run(
    duet: Duet, moments: dict[str, datetime], moves: list[tuple[str, str, str]]
) -> None:
    duet("import", "synthetic", "--people", str(PEOPLE), "--seed", "7")
    run_id = launch(duet, "train_all", SMALL | {"promoted_release": {"stage": "Production"}})
    assert verdicts(duet, run_id)["canaries"] == "SUCCEEDED"
    assert "FAILED" not in verdicts(duet, run_id).values()
    until(lambda: served_release(duet) == FIRST, TRIED_S)
    until(lambda: recommended(duet, 42)["level"] == 1)
    moments[FIRST] = datetime.now(UTC)
    moves.append((FIRST, "Production", "automation"))


def test_a_challenger_is_staged_and_both_arms_answer(duet: Duet, moves: list[tuple[str, str, str]]) -> None:
    run_id = launch(duet, "train_ranker", {"ranker": {"l2": 11.0}, "evaluation": SMALL["evaluation"]})
    assert "FAILED" not in verdicts(duet, run_id).values()
    assert SECOND in duet("promote", "--staging", "--reason", "looks good on held-out likes")
    moves.append((SECOND, "Staging", "cli"))
    duet("experiment", "start", "taste", "--share", "0.5")
    until(lambda: releases_shown(duet) == {FIRST, SECOND})
    answers = ask_many(duet, liked=(FIRST, SECOND))
    assert {(answer["variant"], answer["release"]) for answer in answers} == {
        ("champion", FIRST),
        ("challenger", SECOND),
    }
    assert {answer["level"] for answer in answers} == {1}
    duet("experiment", "stop", "taste")


def test_a_stage_or_an_alias_moved_in_mlflow_puts_the_challenger_into_production(
    duet: Duet, moments: dict[str, datetime], moves: list[tuple[str, str, str]]
) -> None:
    body = {"name": "duet-ranker", "version": "2"}
    if by_aliases(duet):
        way, body = "registered-models/alias", {**body, "alias": "champion"}
    else:
        way, body = (
            "model-versions/transition-stage",
            {**body, "stage": "Production", "archive_existing_versions": False},
        )
    url = f"{duet.urls['mlflow']}/api/2.0/mlflow/{way}"
    moved = httpx.post(url, json=body, headers=duet.bearer, timeout=30)
    assert moved.status_code == 200, moved.text
    until(lambda: served_release(duet) == SECOND, LOOKED_S)
    assert recommended(duet, 42)["release"] == SECOND
    # MLflow's dialog, too, leaves what stood there where it is unless a box is ticked.
    crowded = "duet-ranker has versions 2 and 1 in Production, and the newest, 2, counts" in unwrapped(duet("status"))
    assert crowded is not by_aliases(duet)
    until(lambda: (SECOND, "Production", "ui") in audit(duet))
    moments[SECOND] = datetime.now(UTC)
    moves.append((SECOND, "Production", "ui"))


def test_a_challenger_that_people_do_not_like_is_ended_by_the_guard(
    duet: Duet, moves: list[tuple[str, str, str]]
) -> None:
    spoiled = {"ranker": {"rounds": 1, "max_depth": 1}, "evaluation": SMALL["evaluation"]}
    run_id = launch(duet, "train_ranker", spoiled)
    assert verdicts(duet, run_id)["ranker_separates"] == "FAILED"
    assert "--force" in duet("promote", "--staging", expect=1)
    duet("promote", "--staging", "--force", "--reason", "to see what the guard says")
    moves.append((THIRD, "Staging", "cli"))
    duet("experiment", "start", "worse", "--share", "0.5")
    until(lambda: releases_shown(duet) == {SECOND, THIRD})
    ask_many(duet, liked=(SECOND,))
    until(
        lambda: "challenger worse: ended" in duet("experiment", "show"), GUARDED_S, lambda: duet("experiment", "show")
    )
    until(lambda: releases_shown(duet) == {SECOND})
    assert "like_rate" in duet("experiment", "show")


def test_a_fresh_champion_that_people_do_not_like_is_taken_back_by_the_guard(
    duet: Duet, webhook: Webhook, moves: list[tuple[str, str, str]]
) -> None:
    ask_many(duet, liked=(SECOND,), people=ASKED // 2)
    duet("promote", "--force", "--reason", "to see what the guard says of a champion")
    until(lambda: served_release(duet) == THIRD, FOLLOWED_S)
    assert in_production(duet) == {"3"}
    ask_many(duet, liked=(SECOND,), people=ASKED // 2)
    until(lambda: served_release(duet) == SECOND, GUARDED_S, lambda: duet("experiment", "show"))
    assert recommended(duet, 42)["release"] == SECOND
    until(lambda: in_production(duet) == {"2"})
    until(lambda: "release_rolled_back" in {alert["kind"] for alert in webhook.received})
    (alert,) = [alert for alert in webhook.received if alert["kind"] == "release_rolled_back"]
    assert f"{THIRD} broke its guardrail beside {SECOND}: like_rate" in alert["summary"]
    until(lambda: f"champion {THIRD}: rolled back" in duet("experiment", "show"))
    assert "dagster:guard" in duet("releases")
    moves.extend([(THIRD, "Production", "cli"), (SECOND, "Production", "automation")])


def test_an_earlier_release_is_brought_back(duet: Duet, moves: list[tuple[str, str, str]]) -> None:
    assert FIRST in duet("rollback", "--to", FIRST, "--reason", "the challenger left a bad taste")
    until(lambda: served_release(duet) == FIRST, FOLLOWED_S)
    moves.append((FIRST, "Production", "cli"))


def test_the_audit_tells_who_moved_what_and_what_was_active_when(
    duet: Duet, moments: dict[str, datetime], moves: list[tuple[str, str, str]]
) -> None:
    assert len(moves) >= 4
    assert audit(duet) == moves
    for release, at in moments.items():
        assert release in duet("releases", "--at", at.strftime("%Y-%m-%d %H:%M:%S"))
    if by_aliases(duet):
        assert {row["current_stage"] for row in versions_of_ranker(duet)} == {"None"}, "nothing ever asked for a stage"


def launch(duet: Duet, job: str, config: dict[str, dict[str, Any]]) -> str:
    """Launch a run as the Launchpad does, and return its id when it has succeeded."""
    answer = duet.ask_dagster(LAUNCH, params=parameters(job, config))["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run_id: str = answer["run"]["runId"]
    ended = ("SUCCESS", "FAILURE", "CANCELED")
    until(lambda: duet.ask_dagster(STATUS, id=run_id)["runOrError"]["status"] in ended, RUN_S)
    assert duet.ask_dagster(STATUS, id=run_id)["runOrError"]["status"] == "SUCCESS"
    return run_id


def verdicts(duet: Duet, run_id: str) -> dict[str, str]:
    """What the gates, as asset checks of the release candidate, say of the one that this run made."""
    found = duet.ask_dagster(CHECKS, path=["release_candidate"])["assetNodeOrError"]["assetChecksOrError"]["checks"]
    executed = {check["name"]: check["executionForLatestMaterialization"] for check in found}
    return {name: check["status"] for name, check in executed.items() if check and check["runId"] == run_id}


def ask_many(duet: Duet, liked: tuple[str, ...], people: int = ASKED) -> list[dict[str, Any]]:
    """Many people ask once, like everybody whom a release in `liked` shows, and pass on those of others."""

    def visit(person: int) -> dict[str, Any]:
        answer = recommended(duet, person, limit=3)
        kind = "like" if answer["release"] in liked else "pass"
        for item in answer["items"]:  # type: ignore[attr-defined]
            decided = {"actor_id": person, "target_id": item["user_id"], "kind": kind}
            stored = duet.post("/v1/interactions", {**decided, "request_id": answer["request_id"]})
            assert stored.status_code == 201, stored.text
        return answer

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(visit, range(1, people + 1)))


def releases_shown(duet: Duet) -> set[Any]:
    """The releases that a few people are shown something of."""
    return {recommended(duet, person, limit=1)["release"] for person in ONLOOKERS}


def by_aliases(duet: Duet) -> bool:
    return duet.variables["DUET_MLFLOW__PROMOTED_BY"] == "aliases"


def in_production(duet: Duet) -> set[str]:
    """Versions of the ranker that MLflow has in Production, or that `champion` points at where that says it alone."""
    if by_aliases(duet):
        url = f"{duet.urls['mlflow']}/api/2.0/mlflow/registered-models/get"
        model = httpx.get(url, params={"name": "duet-ranker"}, headers=duet.bearer, timeout=30).json()
        aliases = model["registered_model"]["aliases"]
        return {row["version"] for row in aliases if row["alias"] == "champion"}
    return {row["version"] for row in versions_of_ranker(duet) if row["current_stage"] == "Production"}


def versions_of_ranker(duet: Duet) -> Iterator[dict[str, Any]]:
    params = {"filter": "name='duet-ranker'", "max_results": 100}
    url = f"{duet.urls['mlflow']}/api/2.0/mlflow/model-versions/search"
    yield from httpx.get(url, params=params, headers=duet.bearer, timeout=30).json()["model_versions"]


def unwrapped(printed: str) -> str:
    """What was printed, without the breaks that fit it to a terminal."""
    return " ".join(printed.split())


def audit(duet: Duet) -> list[tuple[str, str, str]]:
    """Release, stage and way of each promotion, oldest first."""
    row = re.compile(r"UTC *│ *(e\d+-i\d+-r\d+) *│ *(\w+) *│ *\S+ *│ *(cli|ui|automation) *│ *(?:promoted|rolled back)")
    return [(found[1], found[2], found[3]) for found in reversed(list(row.finditer(duet("releases"))))]

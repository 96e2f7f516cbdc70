"""`make demo`, the README's commands on what it leaves running, and what people do in Dagster's and MLflow's pages.

Each test begins where the last one ended.
"""

import csv
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import yaml

from infra.db.postgres import connect
from infra.embedded.postgres import EmbeddedPostgres
from infra.settings import Settings
from infra.web.client import tls
from tests.e2e.browser import CHROMIUM, in_the_browser, move_to_production, opened_page, shots
from tests.e2e.conftest import (
    ANY_FREE_PORT,
    HANGS_S,
    LAUNCH,
    Duet,
    clean_environment,
    parameters,
    processes_of,
    stop_schedules,
)
from tests.killing import kill as kill_process
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PEOPLE = 400
STAYS = "everything stays up"
DEPTH = 5
RUN_S = 400.0
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
RELEASE = re.compile(r"\be\d+-i\d+-r\d+\b")


def served_release(duet: Duet) -> str | None:
    release: str | None = httpx.get(f"{duet.urls['serving']}/health", timeout=10, verify=tls()).json()["release"][
        "release"
    ]
    return release


def recommended(duet: Duet, user_id: int, limit: int = 20) -> dict[str, object]:
    answer = duet.post("/v1/recommendations", {"user_id": user_id, "limit": limit})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def people_in(answer: dict[str, object]) -> list[int]:
    items = answer["items"]
    assert isinstance(items, list)
    return [item["user_id"] for item in items]


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Duet, str]]:
    """A platform that `make demo` brought up, and what the demo said; `duet down` ends both."""
    duet = Duet(tmp_path_factory.mktemp("e2e") / "duet")
    said = duet.data_dir.with_name("demo.txt")
    with said.open("w") as file:
        demo = subprocess.Popen(
            ["make", "demo", f"PEOPLE={PEOPLE}", f"DATA_DIR={duet.data_dir}"],
            cwd=ROOT,
            env=clean_environment(COLUMNS="160", **ANY_FREE_PORT),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: demo.poll() is not None or STAYS in said.read_text(), HANGS_S)
        assert demo.poll() is None, said.read_text()
        stop_schedules(duet)
        yield duet, said.read_text()
    finally:
        duet("down")
        demo.wait(HANGS_S)
    assert "everything is stopped" in said.read_text()
    assert processes_of(duet.data_dir) == []


@pytest.fixture(scope="module")
def duet(evening: tuple[Duet, str]) -> Duet:
    return evening[0]


def test_the_demo_brings_people_in_trains_promotes_and_prints_answers(evening: tuple[Duet, str]) -> None:
    duet, said = evening
    assert "two_stage" in said
    assert "level 1 (full)" in said
    promoted = set(RELEASE.findall(said))
    assert promoted == {served_release(duet)}
    answer = recommended(duet, 42)
    assert answer["release"] in promoted
    assert (answer["level"], answer["reason"]) == (1, None)
    assert people_in(answer)


def test_everything_is_up(duet: Duet) -> None:
    urls = duet.urls
    assert httpx.get(f"{urls['mlflow']}/health", timeout=10).status_code == 200
    assert httpx.get(f"{urls['dagster']}/server_info", timeout=10).status_code == 200
    assert httpx.get(f"{urls['serving']}/health/live", timeout=10).status_code == 200
    assert "healthy" in duet("status")


def test_each_process_is_in_the_database_as_the_role_that_it_needs(duet: Duet) -> None:
    expected = {
        "serving": {"duet_serving"},
        "dagster": {"duet_pipelines"},
        "mlflow": {"duet_mlflow"},
    }
    seen: dict[str, set[str]] = {}

    def are_seen() -> bool:
        for what, role in roles_in_use(duet):
            seen.setdefault(what, set()).add(role)
        return seen == expected

    until(are_seen, instead=lambda: seen)


def test_doctor_finds_the_platform_well(duet: Duet) -> None:
    said = duet("doctor")
    assert "checks are well" in said
    assert "doors: shut without the token" in said


def test_a_release_can_be_judged_again(duet: Duet) -> None:
    assert "ranker_separates" in duet("judge")


def test_recommend_prints_both_probabilities(duet: Duet) -> None:
    assert "liked back" in duet("recommend", "42")


def test_evaluate_sets_every_method_beside_the_oracle(duet: Duet) -> None:
    shown = duet("evaluate")
    for method in ("random", "popularity", "content", "one_sided", "reciprocal", "two_stage", "oracle"):
        assert method in shown
    for table in ("Less the two stages", "Two stages by slice"):
        assert table in shown


def test_a_decision_is_felt_by_the_very_next_answer(duet: Duet) -> None:
    first = people_in(recommended(duet, 42))[0]
    stored = duet.post("/v1/interactions", {"actor_id": 42, "target_id": first, "kind": "pass"})
    assert stored.status_code == 201
    assert first not in people_in(recommended(duet, 42))


def test_tables_of_ones_own_are_imported_and_a_newcomer_is_served_at_once(duet: Duet, tmp_path: Path) -> None:
    people, interactions = tmp_path / "people.csv", tmp_path / "interactions.csv"
    with people.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "birth_date", "gender", "seeking", "interests", "shoe_size"])
        rows.writerow([900_001, "1995-05-05", "woman", "man", "hiking,cooking", 38])
        rows.writerow([900_002, "1994-04-04", "man", "woman", "hiking", 44])
        rows.writerow([900_003, "1994-04-04", "man", "woman", "hiking", "nan"])
    with interactions.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["actor_id", "target_id", "kind", "occurred_at"])
        at = datetime.now(UTC) - timedelta(hours=1)
        rows.writerow([900_002, 900_001, "like", at.isoformat()])
        rows.writerow([900_002, 900_002, "like", at.isoformat()])
    shown = duet("import", "tables", "--people", str(people), "--interactions", str(interactions), expect=3)
    assert "quarantined" in shown
    answer = recommended(duet, 900_001)
    assert answer["level"] == 1
    assert people_in(answer)


@in_the_browser
def test_a_run_with_a_changed_hyperparameter_is_launched_from_the_launchpad(
    duet: Duet, request: pytest.FixtureRequest
) -> None:
    with opened_page() as page:
        page.goto(next(line for line in duet("status").splitlines() if line.startswith("dagster http")).split()[1])
        page.goto(f"{duet.urls['dagster']}/locations/__repository__@duet/jobs/train_ranker/playground")
        line = page.locator(".CodeMirror-line", has_text="max_depth")
        line.locator(".cm-number").dblclick()  # selects the number, and what is typed replaces it
        page.keyboard.type(str(DEPTH))
        page.locator(".CodeMirror-line", has_text=f"max_depth: {DEPTH}").wait_for()
        page.get_by_text("No errors").wait_for()
        page.screenshot(path=shots(request.config) / "1-launchpad.png")
        page.get_by_role("button", name="Launch Run").click()
        page.wait_for_url("**/runs/*")
        run_page = page.url
        run_id = run_page.rpartition("/runs/")[2].partition("?")[0]
        page.goto("about:blank")  # a page that draws a run while it goes on takes half as much CPU as the run
        query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status runConfigYaml } } }"
        until(lambda: duet.ask_dagster(query, id=run_id)["runOrError"]["status"] in ENDED, RUN_S)
        run = duet.ask_dagster(query, id=run_id)["runOrError"]
        assert run["status"] == "SUCCESS"
        page.goto(run_page)
        page.get_by_text("Success", exact=True).first.wait_for()
        page.screenshot(path=shots(request.config) / "2-run.png")
    assert yaml.safe_load(run["runConfigYaml"])["ops"]["ranker"]["config"]["max_depth"] == DEPTH
    tags = {tag["key"]: tag["value"] for tag in rankers(duet)[0]["tags"]}
    assert tags["dagster_run_id"] == run_id
    assert f'"max_depth": {DEPTH}' in tags["manifest"]


def test_a_value_out_of_bounds_is_refused_at_launch(duet: Duet) -> None:
    answer = duet.ask_dagster(LAUNCH, params=parameters("train_ranker", {"ranker": {"max_depth": 99}}))["launchRun"]
    assert answer["__typename"] == "PythonError"
    assert "`max_depth` = 99: Input should be less than or equal to 16" in answer["message"]
    shown = duet("train", "--job", "train_ranker", "--set", "ranker.learning_rate=15", expect=1)
    assert "`learning_rate` = 15" in shown


def test_a_challenger_is_staged_and_both_arms_answer(duet: Duet) -> None:
    if CHROMIUM is None:
        duet("train", "--job", "train_ranker", "--set", f"ranker.max_depth={DEPTH}")
    staged = RELEASE.search(duet("promote", "--staging", "--reason", "slower trees"))
    assert staged is not None
    champion, challenger = served_release(duet), staged.group()

    def shown() -> set[object]:
        return {recommended(duet, asker, limit=1)["release"] for asker in range(201, 221)}

    duet("experiment", "start", "taste", "--share", "0.5")
    until(lambda: shown() == {champion, challenger})
    duet("experiment", "stop", "taste")
    until(lambda: shown() == {champion})


def test_a_second_training_can_be_promoted_and_rolled_back(duet: Duet) -> None:
    before = served_release(duet)
    promoted = RELEASE.search(duet("promote"))
    assert promoted is not None
    assert promoted.group() != before
    until(lambda: served_release(duet) == promoted.group())
    assert before is not None
    assert before in duet("rollback")
    until(lambda: served_release(duet) == before)
    shown = duet("releases")
    assert before in shown
    assert promoted.group() in shown


@pytest.mark.skipif(CHROMIUM is not None, reason="it is moved in MLflow's pages below")
def test_a_stage_moved_by_hand_in_mlflow_is_honoured_and_audited(duet: Duet) -> None:
    before = served_release(duet)
    version = int(rankers(duet)[0]["version"])
    moved = httpx.post(
        f"{duet.urls['mlflow']}/api/2.0/mlflow/model-versions/transition-stage",
        json={
            "name": "duet-ranker",
            "version": str(version),
            "stage": "Production",
            "archive_existing_versions": True,
        },
        headers=duet.bearer,
        timeout=10,
    )
    assert moved.status_code == 200, moved.text
    until(lambda: served_release(duet) != before)
    assert str(served_release(duet)).endswith(f"-r{version}")
    until(lambda: " ui " in duet("releases"))


@in_the_browser
def test_a_stage_moved_in_mlflows_pages_is_served_and_audited(duet: Duet, request: pytest.FixtureRequest) -> None:
    version = int(rankers(duet)[0]["version"])
    assert not str(served_release(duet)).endswith(f"-r{version}")
    with opened_page() as page:
        page.goto(f"{duet.urls['mlflow']}/?token={duet.token}")
        move_to_production(page, duet.urls["mlflow"], "duet-ranker", version, shots(request.config))
    assert rankers(duet)[0]["current_stage"] == "Production"
    until(lambda: str(served_release(duet)).endswith(f"-r{version}"))
    until(lambda: " ui " in duet("releases"))


def test_killed_stores_lose_no_acknowledged_interaction_and_serving_recovers(duet: Duet) -> None:
    shown = {asker: people_in(recommended(duet, asker)) for asker in range(1, 31)}
    pairs = [(asker, found[0]) for asker, found in shown.items() if found]
    acknowledged = []
    for place, (actor, target) in enumerate(pairs):
        if place == len(pairs) // 2:
            kill("postgres", duet)
            kill("redis-server", duet)
        event_id = str(uuid4())
        pass_on = {"event_id": event_id, "actor_id": actor, "target_id": target, "kind": "pass"}
        try:
            answer = duet.post("/v1/interactions", pass_on)
        except httpx.HTTPError:
            continue
        if answer.status_code == 201:
            acknowledged.append(pass_on)
    assert len(acknowledged) >= len(pairs) // 2 > 5
    duet("migrate")  # opens the stores, and so starts what was killed
    until(lambda: recommended(duet, 7)["level"] == 1)
    for pass_on in acknowledged:
        again = duet.post("/v1/interactions", pass_on)
        assert again.status_code == 200, "an acknowledged interaction was lost"
        assert pass_on["target_id"] not in people_in(recommended(duet, int(pass_on["actor_id"])))


def roles_in_use(duet: Duet) -> list[tuple[str, str]]:
    """Return which process is in the platform's database as which role, the supervisor and this very look left out."""
    server = EmbeddedPostgres(Settings(data_dir=duet.data_dir))
    running = server.running()
    assert running is not None
    sessions = (
        "select client_port, usename::text from pg_stat_activity where client_port > 0 and pid <> pg_backend_pid()"
    )
    with connect(server.superuser_url(running)) as connection:
        roles = dict(connection.execute(sessions).fetchall())
    found = []
    for socket in psutil.net_connections("tcp"):
        if socket.laddr and socket.laddr.port in roles and socket.raddr and socket.raddr.port == running.port:
            try:
                command = " ".join(psutil.Process(socket.pid or 0).cmdline())
            except psutil.Error:
                continue  # ended since
            what = next((word for word in ("mlflow", "serving", "dagster", "pipelines") if word in command), command)
            if "infra.cli" not in command:
                found.append((what.replace("pipelines", "dagster"), roles[socket.laddr.port]))
    return found


def rankers(duet: Duet) -> list[dict[str, Any]]:
    """Return the registered versions of the ranker as MLflow's API tells them, the newest first."""
    found: list[dict[str, Any]] = httpx.get(
        f"{duet.urls['mlflow']}/api/2.0/mlflow/model-versions/search",
        params={"filter": "name='duet-ranker'"},
        headers=duet.bearer,
        timeout=30,
    ).json()["model_versions"]
    return sorted(found, key=lambda version: -int(version["version"]))


def kill(name: str, duet: Duet) -> None:
    """SIGKILL the server of this platform."""
    # Run by root, Postgres keeps its data where its own account reaches them, and this file names the place.
    aside = duet.data_dir / "postgres.folder"
    places = [str(duet.data_dir), *([aside.read_text().strip()] if aside.is_file() else [])]
    victims = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == name and any(place in word for word in working_place(process) for place in places)
    ]
    assert victims, f"no {name} of {duet.data_dir} runs"
    for victim in victims:
        kill_process(victim.pid)


def working_place(process: psutil.Process) -> list[str]:
    try:
        return [*(process.info["cmdline"] or []), process.cwd()]  # one that ends just now has none
    except psutil.Error:
        return []

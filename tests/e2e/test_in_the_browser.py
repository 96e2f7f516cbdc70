"""What people do by hand: a run launched from Dagster's Launchpad, and stages moved in MLflow's pages, in Chromium."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import Duet
from tests.e2e.test_first_evening import served_release
from tests.waiting import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",  # as root it starts in no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 90_000
RUN_MS = 400_000
DEPTH = 5

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent; install Debian's package `chromium`"),
]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """One browser session, tall enough for an editor to show all its lines."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        try:
            opened = browser.new_page(viewport={"width": 1500, "height": 2000})
            opened.set_default_timeout(PATIENCE_MS)
            yield opened
        finally:
            browser.close()


@pytest.fixture
def shots(request: pytest.FixtureRequest) -> Path:
    folder = request.config.rootpath / str(request.config.getoption("--artefacts")) / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_run_with_a_changed_hyperparameter_is_launched_from_the_launchpad(
    duet: Duet, page: Page, shots: Path
) -> None:
    duet("import", "synthetic", "--people", "200", "--seed", "7")
    page.goto(next(line for line in duet("status").splitlines() if line.startswith("dagster http")).split()[1])
    page.goto(f"{duet.urls['dagster']}/locations/__repository__@duet/jobs/train_all/playground")
    line = page.locator(".CodeMirror-line", has_text="max_depth")
    line.locator(".cm-number").dblclick()  # selects the number, and what is typed replaces it
    page.keyboard.type(str(DEPTH))
    page.locator(".CodeMirror-line", has_text=f"max_depth: {DEPTH}").wait_for()
    page.get_by_text("No errors").wait_for()
    page.screenshot(path=shots / "1-launchpad.png")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    ended = page.get_by_text(re.compile(r"^(Success|Failure|Canceled)$")).first
    ended.wait_for(timeout=RUN_MS)
    page.screenshot(path=shots / "2-run.png")
    assert ended.inner_text() == "Success"

    run_id = page.url.rpartition("/runs/")[2].partition("?")[0]
    query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status runConfigYaml } } }"
    run = duet.ask_dagster(query, id=run_id)["runOrError"]
    assert run["status"] == "SUCCESS"
    assert yaml.safe_load(run["runConfigYaml"])["ops"]["ranker"]["config"]["max_depth"] == DEPTH
    assert version(duet, "duet-ranker")["tags"]["dagster_run_id"] == run_id
    assert '"max_depth": 5' in version(duet, "duet-ranker")["tags"]["manifest"]


def test_a_release_whose_stages_are_moved_in_mlflows_pages_is_served_and_audited(
    duet: Duet, page: Page, shots: Path
) -> None:
    models = ("duet-embedding", "duet-ranker", "duet-index")
    page.goto(f"{duet.urls['mlflow']}/?token={duet.token}")
    for model in models:
        page.goto(f"{duet.urls['mlflow']}/#/models/{model}/versions/1")
        page.get_by_role("link", name=model, exact=True).wait_for()
        # The drop-down stands on the page only without MLflow's newer registry pages.
        newer = page.get_by_role("switch", name="New model registry UI")
        newer.wait_for()
        if newer.is_checked():
            newer.click()
            page.get_by_role("button", name="Disable").click()
        page.locator(".mlflow-stage-transition-dropdown").click()
        page.get_by_role("menuitem").filter(has_text="Production").click()
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        page.screenshot(path=shots / f"3-{model}-dialog.png")
        dialog.get_by_role("button", name="OK").click()
        page.locator(".mlflow-stage-transition-dropdown", has_text="Production").wait_for()
        page.screenshot(path=shots / f"4-{model}-moved.png")
        assert version(duet, model)["current_stage"] == "Production"
    until(lambda: served_release(duet) == "e1-i1-r1")
    until(lambda: " ui " in duet("releases"))


def version(duet: Duet, model: str) -> dict[str, dict[str, str]]:
    """The only version of a model as MLflow's API tells it, its tags as a mapping."""
    found = httpx.get(
        f"{duet.urls['mlflow']}/api/2.0/mlflow/model-versions/get",
        params={"name": model, "version": "1"},
        headers=duet.bearer,
        timeout=30,
    ).json()["model_version"]
    return {**found, "tags": {tag["key"]: tag["value"] for tag in found["tags"]}}

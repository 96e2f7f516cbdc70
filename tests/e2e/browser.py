"""Chromium for what people do by hand, in Dagster's and MLflow's pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

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

in_the_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent; install Debian's package `chromium`")


@contextmanager
def opened_page() -> Iterator[Page]:
    """One browser session, tall enough for an editor to show all its lines."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        try:
            opened = browser.new_page(viewport={"width": 1500, "height": 2000})
            opened.set_default_timeout(PATIENCE_MS)
            # What turns while a run goes on is drawn without a GPU, and would take as much CPU as the run itself.
            developer = opened.context.new_cdp_session(opened)
            developer.send("Animation.enable")
            developer.send("Animation.setPlaybackRate", {"playbackRate": 0})
            yield opened
        finally:
            browser.close()


def shots(config: pytest.Config) -> Path:
    """Return the folder in which a test leaves what it saw."""
    folder = config.rootpath / str(config.getoption("--artefacts")) / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def move_to_production(page: Page, mlflow_url: str, model: str, version: int, folder: Path) -> None:
    """Move a version's stage as a person does on its page in MLflow."""
    page.goto(f"{mlflow_url}/#/models/{model}/versions/{version}")
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
    page.screenshot(path=folder / f"3-{model}-dialog.png")
    dialog.get_by_role("button", name="OK").click()
    page.locator(".mlflow-stage-transition-dropdown", has_text="Production").wait_for()
    page.screenshot(path=folder / f"4-{model}-moved.png")

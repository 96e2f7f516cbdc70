"""The simpler orders on a published split: what each one finds, and what the command prints."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from infra.cli.app import build_app
from pipelines.evaluation import given
from pipelines.evaluation.splits import given_split
from pipelines.retrieval.config import TuningConfig
from registry.models.neighbours import EASE, ITEM_KNN, SPECTRAL, USER_KNN

TUNING = TuningConfig(trials=1)
METHODS = (given.POPULARITY, ITEM_KNN, USER_KNN, given.IALS, SPECTRAL, EASE)


def two_tastes(n_users: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Users like items of one half only, one of which is held out; one item of the other half is the most popular."""
    rng = np.random.default_rng(1)
    train, test = [], []
    for user in range(n_users):
        own = [f"{'ab'[user % 2]}{item}" for item in rng.permutation(30)[:12]]
        train += [(user, item, 5) for item in own[:-1]]
        test.append((user, own[-1], 5))
    train += [(user, "hit", 5) for user in range(n_users // 2)]
    columns = ["user", "item", "rating"]
    return pd.DataFrame(train, columns=columns), pd.DataFrame(test, columns=columns)


@pytest.fixture(scope="module")
def report() -> given.GivenReport:
    train, test = two_tastes()
    return given.compare_on(given_split(train, test, one_sided=True), TUNING, rounds=50, tell=lambda _line: None)


def test_every_method_is_measured_with_its_interval(report: given.GivenReport) -> None:
    assert report.methods() == METHODS
    assert report.asked == 60
    for row in report.rows:
        assert 0.0 <= row.interval.low <= row.interval.mean <= row.interval.high <= 1.0
        assert row.interval.n == 60


@pytest.mark.parametrize("method", [ITEM_KNN, USER_KNN, given.IALS, SPECTRAL, EASE])
def test_what_knows_taste_finds_all_that_is_held_out_where_popularity_finds_half(
    report: given.GivenReport, method: str
) -> None:
    assert report.interval(method, "recall_at_20").mean > 0.9  # 19 items of the own half are left
    assert report.interval(given.POPULARITY, "recall_at_20").mean < 0.7


def test_people_and_passes_keep_their_places() -> None:
    train = pd.DataFrame({"actor": [1, 1, 2, 3], "target": [2, 3, 1, 1], "kind": ["like", "pass", "like", "pass"]})
    split = given_split(train, pd.DataFrame({"actor": [2], "target": [3]}), one_sided=False)
    events = given.events_of(split)
    assert events.n_people == 3
    likes = events.take(events.is_like)
    assert sorted(zip(likes.actor.tolist(), likes.target.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert len(events) == 4


def test_the_command_compares_files_without_a_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = two_tastes(16)
    train.to_csv(tmp_path / "train.csv", index=False)
    test.to_csv(tmp_path / "test.csv", index=False)
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "--train", "train.csv", "--test", "test.csv", "--one-sided", "--threshold", "3"]
    shown = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    assert "NDCG@20" in shown.stdout
    assert "16 asked" in shown.stdout
    told = CliRunner().invoke(build_app(), [*command, "--json", "--trials", "0"], catch_exceptions=False)
    found = json.loads(told.stdout)
    assert tuple(found["methods"]) == METHODS
    assert found["methods"][EASE]["recall_at_20"]["people"] == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.csv", "train.csv"]


def test_one_file_with_times_is_split_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = pd.concat(two_tastes(16))
    everything.assign(timestamp=range(len(everything))).to_csv(tmp_path / "interactions.csv", index=False)
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "--leave-last-out", "interactions.csv", "--one-sided", "--json", "--trials", "0"]
    shown = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    assert json.loads(shown.stdout)["people_asked"] == 16


@pytest.mark.parametrize(
    "alone",
    [["--train", "part.csv"], ["--test", "part.csv"], ["--json"], ["--leave-last-out", "a.csv", "--test", "part.csv"]],
)
def test_half_a_split_is_refused_with_what_is_missing(alone: list[str]) -> None:
    done = CliRunner().invoke(build_app(), ["evaluate", *alone])
    assert done.exit_code == 2
    assert "--test" in done.output

"""A data scientist adds one feature of a person and one of a pair, and earlier releases go on serving."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, tracked
from tests.e2e.conftest import Duet, clean_environment, running
from tests.e2e.test_first_evening import people_in, recommended, served_release

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1800)]
SMALL = ("--set", "embeddings.iterations=3", "--set", "ranker.rounds=20", "--set", "embeddings.tuning_trials=1")
ADDED = {
    "feature_repo/layout.py": (
        ('        Feature("likes_sent_30d"', '        Feature("likes_sent_90d", "Likes sent in the last 90 days."),\n'),
        ('    "candidate_age_position",  #', '    "age_ratio",\n'),
    ),
    "feature_repo/transforms/loops.py": (("    out[c.abs_age_gap] =", "    out[c.age_ratio] = b_age / a_age\n"),),
    "pipelines/features/aggregates.py": (
        ('            "likes_sent_30d"', '            "likes_sent_90d": self._likes_sent.within(90, at_us),\n'),
    ),
}


def with_two_more_features(copy: Path) -> Path:
    for path in tracked():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for name, lines in ADDED.items():
        text = (copy / name).read_text()
        for before, line in lines:
            assert text.count(before) == 1, before
            text = text.replace(before, line + before)
        (copy / name).write_text(text)
    return copy


def variables_of(duet: Duet) -> dict[str, str]:
    """Return what `duet env` has a shell export."""
    return dict(re.findall(r"^export (\w+)='?(.*?)'?$", duet("env"), re.MULTILINE))


def feast(duet: Duet, *arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("feast")), "-c", "feature_repo", *arguments],
        cwd=duet.folder,
        env=clean_environment(**{**duet.variables, **variables_of(duet)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_new_features_are_applied_filled_in_learned_and_served_and_the_release_before_can_come_back(
    tmp_path: Path,
) -> None:
    before = Duet(tmp_path / "duet")
    with running(before):
        before("import", "synthetic", "--people", "300", "--seed", "7")
        before("train", *SMALL)
        before("promote")
    copy = with_two_more_features(tmp_path / "copy")
    after = Duet(before.data_dir, {"PYTHONPATH": str(copy)}, copy)
    with running(after, again=True):
        assert served_release(after) == "e1-i1-r1"
        assert people_in(recommended(after, 5))
        assert "likes_sent_90d" in feast(after, "apply") + feast(after, "feature-views", "describe", "user_activity")
        after("train", *SMALL)
        after("promote")
        assert served_release(after) == "e2-i2-r2"
        assert people_in(recommended(after, 5))
        assert {"requester_likes_sent_90d", "candidate_likes_sent_90d", "age_ratio"} <= named_by(after)
        after("rollback")
        assert served_release(after) == "e1-i1-r1"
        assert people_in(recommended(after, 5))


def named_by(duet: Duet) -> set[str]:
    """Return the inputs that the ranker in Production has in MLflow."""
    script = """
import mlflow
client = mlflow.MlflowClient()
[version] = client.get_latest_versions("duet-ranker", ["Production"])
print(*mlflow.models.get_model_info(version.source).signature.inputs.input_names())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=clean_environment(**variables_of(duet)),
        cwd=duet.data_dir,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())

"""A catalogue with a feature more serves the releases that were trained before it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from feature_repo.schema import schema_of
from registry.contracts import ArtifactKind
from tests.architecture.sources import ROOT
from tests.releases import write_release

USED = ("distance_km", "candidate_likes_received_7d", "requester_matches")
NEW = 'Feature("superlikes_sent_7d", "Superlikes sent in the last 7 days."),'
PAIR = """
import json, sys
import numpy as np
from pathlib import Path
from feature_repo.layout import ACTIVITY, PROFILE, RANKING_FEATURES
from feature_repo.population.people import People
from feature_repo.schema import offered_schema
from feature_repo.transforms import PairContext, ranking_features
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.release import load_release

paths = {kind: Path(path) for kind, path in zip(ArtifactKind, sys.argv[1:], strict=True)}
names = RANKING_FEATURES
release = load_release(paths, ReleaseVersions(1, 1, 1), feature_schema=offered_schema(), feature_names=names)
activity, profile = ACTIVITY.default_rows(2), PROFILE.default_rows(2)
activity[:, ACTIVITY.index("likes_received_7d")] = 3, 4
profile[:, PROFILE.index("latitude")], profile[:, PROFILE.index("longitude")] = (50, 51), 8
new = ACTIVITY.columns.index("superlikes_sent_7d") if "superlikes_sent_7d" in ACTIVITY.columns else None
if new is not None:
    activity[:, new] = 8, 9
people = People.build([1, 2], profile=profile, activity=activity)
rows = ranking_features(people.take([0]), people.take([1]), PairContext.unknown(1), 0.0)
told = {name: float(value) for name, value in zip(names, rows[0], strict=True)}
print(json.dumps([told, float(release.ranker.predict(rows)[0])]))
"""


def answer(folder: Path, paths: dict[ArtifactKind, Path]) -> tuple[dict[str, float], float]:
    done = subprocess.run(
        [sys.executable, "-c", PAIR, *map(str, paths.values())],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, probability = json.loads(done.stdout)
    return told, probability


def test_a_release_from_before_a_feature_was_added_loads_and_answers_as_before(tmp_path: Path) -> None:
    paths = write_release(tmp_path, feature_names=USED, schema=schema_of(USED))
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    layout = tmp_path / "feature_repo" / "layout.py"
    before = layout.read_text()
    anchor = '        Feature("likes_sent_30d",'
    assert anchor in before
    layout.write_text(before.replace(anchor, f"        {NEW}\n{anchor}"))
    old, old_probability = answer(ROOT, paths)
    new, new_probability = answer(tmp_path, paths)
    assert new["requester_superlikes_sent_7d"] == 8
    assert new["candidate_superlikes_sent_7d"] == 9
    np.testing.assert_equal({name: new[name] for name in old}, old)
    assert new_probability == old_probability

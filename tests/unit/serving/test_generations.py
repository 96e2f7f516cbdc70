import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from feature_repo.errors import MalformedFeatures
from feature_repo.population.people import People
from infra.endpoints import Endpoints
from infra.settings import Settings
from serving.errors import UnusableGeneration
from serving.snapshots.generations import FORMAT, Generations, source_of
from tests.serving_fakes import people_of, person
from tests.snapshots import AT, generations_in, snapshot_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    return generations_in(tmp_path)


def folder(generations: Generations, number: int) -> Path:
    return generations.root / f"{number:012d}"


def test_what_was_written_is_mapped_as_it_was(generations: Generations) -> None:
    assert generations.newest() is None
    written = snapshot_of(1, 2, 5, filled_at=AT)
    assert generations.write(written, at=AT, problem="No features.") == 1
    found = generations.newest()
    assert found is not None
    assert (found.number, found.written_at, found.problem) == (1, AT, "No features.")
    assert found.snapshot.population.base.user_ids.tolist() == [1, 2, 5]
    for mapped, before in zip(found.snapshot.population.base.views, written.population.base.views, strict=True):
        assert np.array_equal(mapped, before, equal_nan=True)
        assert not mapped.flags.owndata
        assert not mapped.flags.writeable
    for mapped, before in zip(found.snapshot.population.traits.arrays, written.population.traits.arrays, strict=True):
        assert np.array_equal(mapped, before)
        assert not mapped.flags.owndata
    assert (found.snapshot.population.texts, found.snapshot.population.flags) == ({"city"}, {"smoker"})
    assert found.snapshot.population.traits.values("pets", np.array([2, 0])).tolist() == [5, 1]
    assert found.snapshot.recent_likes.latest(np.array([5, 9]), 2).tolist() == [[1, -1], [-1, -1]]
    assert (found.snapshot.slots, found.snapshot.read_at, found.snapshot.filled_at) == ({"height": 3}, AT, AT)


def test_only_what_is_newer_than_known_is_mapped_and_old_generations_go(generations: Generations) -> None:
    for number in (1, 2, 3):
        assert generations.write(snapshot_of(1), at=AT) == number
    assert generations.numbers() == [3, 2]
    assert generations.newest(after=3) is None
    newest = generations.newest(after=2)
    assert newest is not None
    assert newest.number == 3


def test_people_of_a_removed_generation_stay_readable_for_those_who_mapped_it(generations: Generations) -> None:
    generations.write(snapshot_of(1, 2), at=AT)
    mapped = generations.open(1)
    for _ in range(3):
        generations.write(snapshot_of(1), at=AT)
    assert not folder(generations, 1).exists()
    assert mapped.snapshot.population.positions([2]).tolist() == [1]


@pytest.mark.parametrize("file", ["user_ids.npy", "user_activity.npy", "grid_keys.npy", "liked.npy"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_generation_is_refused_and_the_one_before_is_used(
    generations: Generations, file: str, damage: str
) -> None:
    for _ in range(2):
        generations.write(snapshot_of(1, 2), at=AT)
    path = folder(generations, 2) / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "flipped" else b""))
    with pytest.raises(UnusableGeneration, match=r"damaged|cannot be read"):
        generations.open(2)
    with pytest.raises(UnusableGeneration):
        generations.newest(after=1)
    found = generations.newest()
    assert found is not None
    assert found.number == 1


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b'{"format": 1}'])
def test_a_generation_without_a_readable_header_is_refused(generations: Generations, header: bytes) -> None:
    generations.write(snapshot_of(1), at=AT)
    (folder(generations, 1) / "header.json").write_bytes(header)
    with pytest.raises(UnusableGeneration, match="no readable header"):
        generations.newest()


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [("format", FORMAT + 1, "format"), ("schema_digest", "0", "schema"), ("source", "x", "source")],
)
def test_a_generation_of_another_version_or_database_is_refused(
    generations: Generations, field: str, value: object, what: str
) -> None:
    generations.write(snapshot_of(1), at=AT)
    path = folder(generations, 1) / "header.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UnusableGeneration, match=what):
        generations.newest()


def test_a_writer_killed_half_way_leaves_nothing_that_is_read_and_the_next_one_cleans_up(
    generations: Generations,
) -> None:
    generations.write(snapshot_of(1), at=AT)
    killed = (
        "import os, sys; from pathlib import Path; from feature_repo.population.people import People;"
        "from serving.snapshots.generations import Generations; from tests.snapshots import AT, snapshot_of;"
        "save = People.save; People.save = lambda *args: (save(*args), os.kill(os.getpid(), 9));"
        "g = Generations(Path(sys.argv[1]), 'here'); lock = g.lock(); g.write(snapshot_of(1, 2, 3), at=AT)"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(generations.root)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert len(list(generations.root.glob("writing-*/user_ids.npy"))) == 1
    assert generations.numbers() == [1]
    with generations.lock() or pytest.fail("the lock of a dead writer is free"):
        assert generations.write(snapshot_of(1, 2), at=AT) == 2
    assert not list(generations.root.glob("writing-*"))


def test_one_process_at_a_time_has_the_right_to_write(generations: Generations) -> None:
    lock = generations.lock()
    assert lock is not None
    assert generations_in(generations.root.parent).lock() is None
    lock.close()
    again = generations.lock()
    assert again is not None
    again.close()


def test_a_population_with_a_tail_is_not_written(generations: Generations) -> None:
    snapshot = snapshot_of(1, 2)
    late: People = people_of([person(3)])
    with pytest.raises(MalformedFeatures, match="compacted"):
        snapshot.population.upsert(late).save(generations.root.parent)
    with pytest.raises(MalformedFeatures, match="compacted"):
        snapshot.population.remove([1]).save(generations.root.parent)
    compacted = snapshot.population.upsert(late).remove([1]).compacted()
    assert compacted.base.user_ids.tolist() == [2, 3]


def test_the_source_names_the_database_and_project_but_no_secret(settings: Settings) -> None:
    endpoints = Endpoints("postgresql://duet:hunter2@db.example:5433/duet", "redis://r")
    assert source_of(settings, endpoints) == f"db.example:5433/duet {settings.features.project}"

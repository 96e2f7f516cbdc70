import json
from pathlib import Path

import pytest

from infra.settings import Settings
from pipelines.bench.errors import ForeignFolder
from pipelines.bench.world import WorldSpec, open_world, world_settings
from tests.clocks import FixedClock


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, settings: Settings, clock: FixedClock) -> None:
    mine = tmp_path / "people-300" / "diary.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with (
        pytest.raises(ForeignFolder, match="not a benchmark's world"),
        open_world(settings, tmp_path, WorldSpec(300), clock),
    ):
        pass
    assert mine.read_text() == "mine"


def test_the_servers_of_a_world_are_never_those_that_are_configured(tmp_path: Path) -> None:
    configured = Settings(
        database_url="postgresql://me:secret@example.com/mine",
        redis_url="redis://example.com/0",
        mlflow={"url": "http://example.com", "port": 5000},
        postgres={"port": 5433, "read_replica_url": "postgresql://example.com/replica"},
    )
    own = world_settings(configured, tmp_path)
    assert (own.database_url, own.redis_url, own.mlflow.url, own.postgres.read_replica_url) == (None,) * 4
    assert (own.postgres.port, own.redis.port, own.mlflow.port) == (0, 0, 0)
    assert own.data_dir == tmp_path.resolve()


def test_the_marker_names_what_the_world_is_made_of() -> None:
    assert json.loads(json.dumps(vars(WorldSpec(300)))) == {
        "people": 300,
        "interactions_per_person": 10.0,
        "days": 60,
        "seed": 11,
    }

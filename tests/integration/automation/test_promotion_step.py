"""The step that promotes by itself: only where it was asked to, only past the gates, never into an experiment."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from feature_repo.schema import offered_schema
from pipelines.release.assets import promoted_release
from pipelines.resources import Platform
from pipelines.results.store import StepResult
from registry.contracts import PRODUCTION, STAGING, ReleaseVersions
from registry.errors import IncoherentRelease
from registry.promotion.audit import PostgresPromotionLog
from tests.asset_runs import run_asset
from tests.fakes import MemoryRegistry
from tests.releases import judge, register_release, write_release

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def candidate(platform: Platform, registry: MemoryRegistry, tmp_path: Path) -> ReleaseVersions:
    """A release candidate that passed its gates, as `release_candidate` leaves it."""
    versions = register_release(registry, write_release(tmp_path, schema=offered_schema()))
    platform.results.publish(
        StepResult(
            asset="release_candidate", digest="d" * 64, run_id="r", as_of=NOW,
            facts={"release": versions.release_id}, has_files=False,
        )
    )  # fmt: skip
    return versions


def step(
    platform: Platform, instance: dg.DagsterInstance, stage: str | None, tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    return run_asset(promoted_release, platform, instance, tags, **({} if stage is None else {"stage": stage}))


def why(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.filter_events(lambda event: event.is_step_failure)
    return str(event.step_failure_data.user_failure_data.description)


def stands(registry: MemoryRegistry, stage: str) -> ReleaseVersions | None:
    try:
        return registry.resolve_stage(stage)
    except IncoherentRelease:
        return None


def test_a_run_started_by_hand_promotes_nothing(
    platform: Platform, instance: dg.DagsterInstance, registry: MemoryRegistry, candidate: ReleaseVersions
) -> None:
    result = step(platform, instance, stage=None)
    assert result.success
    assert result.asset_materializations_for_node("promoted_release") == []
    assert stands(registry, PRODUCTION) is None


def test_a_candidate_that_passed_its_gates_is_promoted_and_audited_as_automation(
    platform: Platform,
    instance: dg.DagsterInstance,
    registry: MemoryRegistry,
    candidate: ReleaseVersions,
    connection: psycopg.Connection[Any],
) -> None:
    result = step(platform, instance, "Production", {"dagster/schedule_name": "nightly_rebuild_index"})
    assert result.success
    (made,) = result.asset_materializations_for_node("promoted_release")
    assert made.metadata["release"].value == candidate.release_id
    assert stands(registry, PRODUCTION) == candidate
    (row,) = PostgresPromotionLog(connection).history(PRODUCTION)
    assert (row.versions, row.way, row.actor) == (candidate, "automation", "dagster:nightly_rebuild_index")
    assert row.gates["forced"] is False
    assert result.run_id in row.reason


def test_a_candidate_that_failed_a_gate_fails_the_step_and_stays_where_it_was(
    platform: Platform,
    instance: dg.DagsterInstance,
    registry: MemoryRegistry,
    candidate: ReleaseVersions,
    connection: psycopg.Connection[Any],
) -> None:
    judge(registry, candidate, passed=False)
    result = step(platform, instance, "Production")
    assert not result.success
    assert f"{candidate.release_id} was not promoted" in why(result)
    assert "recall" in why(result)
    assert stands(registry, PRODUCTION) is None
    assert PostgresPromotionLog(connection).history(PRODUCTION) == []


def test_a_promotion_under_way_is_a_clear_failure(
    platform: Platform,
    instance: dg.DagsterInstance,
    registry: MemoryRegistry,
    candidate: ReleaseVersions,
    connection: psycopg.Connection[Any],
) -> None:
    with PostgresPromotionLog(connection).exclusively():
        result = step(platform, instance, "Production")
    assert not result.success
    assert "Another promotion or rollback is under way" in why(result)


def test_nothing_moves_into_staging_while_an_experiment_runs_there(
    platform: Platform,
    instance: dg.DagsterInstance,
    registry: MemoryRegistry,
    candidate: ReleaseVersions,
    connection: psycopg.Connection[Any],
) -> None:
    connection.execute("insert into duet.experiments (name, salt, state) values ('taste', 's', 'running')")
    connection.commit()
    result = step(platform, instance, "Staging")
    assert "the experiment `taste` runs on the release in Staging" in why(result)
    connection.execute("update duet.experiments set state = 'off'")
    connection.commit()
    assert step(platform, instance, "Staging").success
    assert stands(registry, STAGING) == candidate

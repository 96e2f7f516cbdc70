"""A bad value in the Launchpad starts no run: it is refused while the launch is planned."""

from typing import Any

import dagster as dg
import pytest
from pydantic import Field

from pipelines.ranking.assets import RankerStep
from pipelines.runs.launchpad import CheckedShape, bounds_of, checked_assets, config_of

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


class Bounded(dg.Config):
    """A small model."""

    depth: int = Field(default=5, ge=1, le=16, description="depth of one tree")
    shares: list[float] = Field(default=[0.5, 0.9])
    limit: int | None = None


def job_that_records(seen: list[Any], model: type[dg.Config]) -> tuple[dg.JobDefinition, dg.DagsterInstance]:
    def record(config: Any) -> None:
        seen.append(config)

    record.__annotations__["config"] = model
    thing = dg.asset(name="thing")(record)
    job = dg.Definitions(assets=checked_assets([thing]), jobs=[dg.define_asset_job("job")]).resolve_job_def("job")
    return job, dg.DagsterInstance.ephemeral()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"max_depth": 99}, "`max_depth` = 99: Input should be less than or equal to 16"),
        ({"max_depth": "deep"}, "not valid for expected type"),
        ({"aggregator": "sum"}, "aggregator"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_bad_hyperparameter_is_refused_before_a_run_exists(config: dict[str, Any], told: str) -> None:
    seen: list[Any] = []
    job, instance = job_that_records(seen, RankerStep)
    with instance:
        with pytest.raises(dg.DagsterInvalidConfigError, match=told):
            job.execute_in_process(instance=instance, run_config={"ops": {"thing": {"config": config}}})
        assert instance.get_runs() == []
    assert seen == []


def test_defaults_and_edits_reach_the_step_as_the_model() -> None:
    seen: list[Any] = []
    job, instance = job_that_records(seen, Bounded)
    with instance:
        job.execute_in_process(instance=instance)
        edited = {"ops": {"thing": {"config": {"depth": 3, "shares": [0.1], "limit": 7}}}}
        job.execute_in_process(instance=instance, run_config=edited)
    assert seen == [Bounded(), Bounded(depth=3, shares=[0.1], limit=7)]


def test_the_launchpad_shows_bounds_beside_the_description() -> None:
    field = CheckedShape(Bounded).fields["depth"]
    assert field.description == "depth of one tree [>= 1, <= 16]"
    assert field.default_value == 5
    assert bounds_of(RankerStep.model_fields["seed"]) == "[>= 0, <= 2147483647]"


def test_rules_between_fields_are_checked_at_launch_too() -> None:
    from pipelines.ingest.assets import snapshots

    job = dg.Definitions(
        assets=checked_assets([snapshots]), jobs=[dg.define_asset_job("job")], resources={"platform": None}
    ).resolve_job_def("job")
    config = {"ops": {"snapshots": {"config": {"embedding_share": 0.9, "ranking_share": 0.8}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"embedding_share 0.9 must be below"):
        job.execute_in_process(run_config=config)


def test_dagster_still_has_what_the_check_at_launch_takes_hold_of() -> None:
    from pipelines.ranking.assets import ranker

    assert config_of(ranker.op) is RankerStep
    (checked,) = checked_assets([ranker])
    schema = checked.op.config_schema
    assert schema is not None
    assert isinstance(schema.config_type, CheckedShape)
    assert config_of(dg.asset(name="plain")(lambda: None).op) is None

"""A bad value in the Launchpad starts no run: it is refused while the launch is planned."""

from typing import Any

import dagster as dg
import pytest
from pydantic import BaseModel, Field

from pipelines.errors import UnsupportedConfigField
from pipelines.launchpad import CheckedShape, bounds_of, configured_by, launch_checked, read_config
from pipelines.ranking.config import RankerConfig

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


class Bounded(BaseModel):
    """A small model."""

    depth: int = Field(default=5, ge=1, le=16, description="depth of one tree")
    shares: tuple[float, ...] = (0.5, 0.9)
    limit: int | None = None


def job_that_records(seen: list[Any], model: type[BaseModel]) -> tuple[dg.JobDefinition, dg.DagsterInstance]:
    @dg.asset(config_schema=launch_checked(model))
    def thing(context: dg.AssetExecutionContext) -> None:
        seen.append(read_config(context, model))

    job = dg.Definitions(assets=[thing], jobs=[dg.define_asset_job("job")]).resolve_job_def("job")
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
    job, instance = job_that_records(seen, RankerConfig)
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
    assert seen == [Bounded(), Bounded(depth=3, shares=(0.1,), limit=7)]


def test_the_launchpad_shows_bounds_beside_the_description() -> None:
    field = CheckedShape(Bounded).fields["depth"]
    assert field.description == "depth of one tree [>= 1, <= 16]"
    assert field.default_value == 5
    assert bounds_of(RankerConfig.model_fields["seed"]) == "[>= 0, <= 2147483647]"


def test_rules_between_fields_are_checked_at_launch_too() -> None:
    from pipelines.ingest.config import SnapshotConfig

    @dg.multi_asset(specs=[dg.AssetSpec("one"), dg.AssetSpec("two")])
    def several():  # noqa: ANN202 - Dagster reads the annotation of several outputs as a tuple
        pass

    configured_by(several, SnapshotConfig)
    job = dg.Definitions(assets=[several], jobs=[dg.define_asset_job("job")]).resolve_job_def("job")
    config = {"ops": {"several": {"config": {"embedding_share": 0.9, "ranking_share": 0.8}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"embedding_share 0.9 must be below"):
        job.execute_in_process(run_config=config)


def test_a_field_that_the_launchpad_cannot_show_is_refused() -> None:
    class Nested(BaseModel):
        inner: dict[str, int] = {}

    with pytest.raises(UnsupportedConfigField, match="Nested_inner"):
        launch_checked(Nested)

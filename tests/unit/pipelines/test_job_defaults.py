"""The Launchpad opens with every hyperparameter of a job, and an edit or `--set` wins over what it opened with."""

from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import active_presets_from_job_def

from pipelines.definitions import ASSETS, JOBS, defs
from pipelines.errors import InvalidSetting
from pipelines.runs.launchpad import CheckedShape, config_of
from pipelines.runs.running import checked_config

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
STEPS = {asset.op.name: model for asset in ASSETS if (model := config_of(asset.op)) is not None}
NAMES = [job.name for job in JOBS if job.name != "measure_activity"]  # it has nothing to configure


def configured_steps(job: dg.JobDefinition) -> dict[str, CheckedShape]:
    """Return the config shape of each step of the job that has one."""
    schemas = {node.name: node.definition.config_schema for node in job.nodes_in_topological_order}
    found = {name: schema.config_type for name, schema in schemas.items() if schema is not None}
    return {name: shape for name, shape in found.items() if isinstance(shape, CheckedShape)}


def planned(job: dg.JobDefinition, config: dict[str, Any]) -> dict[str, Any]:
    """Return what each step of a launch is given."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(job, run_config=config)
    from dagster._core.system_config.objects import ResolvedRunConfig

    return {name: step.config for name, step in ResolvedRunConfig.build(job, config).ops.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_launchpad_of_a_job_opens_with_every_hyperparameter(name: str) -> None:
    job = defs.resolve_job_def(name)
    (preset,) = active_presets_from_job_def(job)
    shown: dict[str, Any] = dict(preset.run_config)
    steps = configured_steps(job)
    assert set(shown) == {"ops"}
    assert set(shown["ops"]) == set(steps)
    for step, shape in steps.items():
        values = shown["ops"][step]["config"]
        assert list(values) == list(STEPS[step].model_fields) == list(shape.fields)
        # The schema still says what each of them is, and bounds it.
        assert all(field.description for field in shape.fields.values())
    assert planned(job, shown) == planned(job, {})


@pytest.mark.parametrize("name", NAMES)
def test_what_the_launchpad_opens_with_is_what_a_launch_without_settings_does(name: str) -> None:
    job = defs.resolve_job_def(name)
    given = planned(job, {})
    expected = {step: model().model_dump(mode="json") for step, model in STEPS.items() if step in given}
    if name == "materialize_features":
        expected["features"]["history"] = False
    assert {step: given[step] for step in expected} == expected


def test_a_setting_wins_over_the_default_and_leaves_the_others() -> None:
    job = defs.resolve_job_def("train_all")
    config = checked_config(job, {"ranker": {"max_depth": 6}, "snapshots": {"as_of": "2026-01-01"}})
    given = planned(job, config)
    assert given["ranker"] == STEPS["ranker"]().model_dump(mode="json") | {"max_depth": 6}
    assert given["snapshots"]["as_of"] == "2026-01-01"
    assert given["evaluation"]["protocol"] == "auto"
    edited = planned(job, {"ops": {"ranker": {"config": {"max_depth": 7}}}})
    assert edited["ranker"]["max_depth"] == 7
    assert edited["embeddings"] == STEPS["embeddings"]().model_dump(mode="json")


def test_a_value_out_of_bounds_still_starts_no_run() -> None:
    job = defs.resolve_job_def("train_ranker")
    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(dg.DagsterInvalidConfigError, match="`max_depth` = 99: Input should be less than or equal to 16"),
    ):
        instance.create_run_for_job(job, run_config={"ops": {"ranker": {"config": {"max_depth": 99}}}})
    with pytest.raises(InvalidSetting, match="has no step `embeddings`"):
        checked_config(job, {"embeddings": {"dimensions": 8}})


def test_a_setting_that_a_step_does_not_have_is_refused_with_those_it_has() -> None:
    job = defs.resolve_job_def("train_all")
    with pytest.raises(InvalidSetting, match=r"`embeddings` has no setting `epochs`; its settings are .*iterations"):
        checked_config(job, {"embeddings": {"epochs": 5}})


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_a_job_can_be_materialised_alone(name: str) -> None:
    job = defs.resolve_job_def(name)
    step = next(iter(set(configured_steps(job)) - {"snapshots"}))
    part = job.get_subset(asset_selection={dg.AssetKey(step)})
    whole = planned(job, {})[step]
    assert planned(part, {})[step] == whole
    assert planned(part, {"ops": {step: {"config": whole}}})[step] == whole


def test_an_ad_hoc_materialisation_needs_no_configuration() -> None:
    part = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey("evaluation")})
    assert planned(part, {}) == {"evaluation": STEPS["evaluation"]().model_dump(mode="json")}
    assert planned(part, {"ops": {"evaluation": {"config": {"protocol": "met"}}}})["evaluation"]["protocol"] == "met"

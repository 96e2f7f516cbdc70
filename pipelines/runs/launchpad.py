"""Check the typed configuration of a step while its run is launched.

Dagster checks a pydantic bound only when the step starts, which may be minutes into a run. The schema made here hands
the whole value to its model while the launch is still being planned, so a bad value starts no run at all, whether it
comes from the Launchpad, a schedule, GraphQL or the command line.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipelines.dagster_private import PostProcessingError, replace_config_schema

HEAVY = {"duet/heavy": "yes"}
"""Tag of runs that share the cores: one at a time."""


class CheckedShape(dg.Shape):
    """A config shape whose value is validated by a `dg.Config` while the launch is planned."""

    model: type[dg.Config]

    def __new__(cls, model: type[dg.Config]) -> "CheckedShape":  # noqa: PYI034 - see below
        """Make a fresh instance: the base class would hand out a cached plain `Shape` with equal fields."""
        del model
        shape = object.__new__(cls)
        shape._initialized = False
        return shape

    def __init__(self, model: type[dg.Config]) -> None:
        fields = {name: _with_bounds(field, model.model_fields[name]) for name, field in model.to_fields_dict().items()}
        super().__init__(fields, description=model.__doc__)  # type: ignore[no-untyped-call]  # Dagster's is untyped
        self.key = f"{self.key}.{model.__module__}.{model.__qualname__}"
        self.model = model

    def post_process(self, value: Any) -> Any:
        """Refuse a value outside the model's bounds; Dagster calls this before the run is created."""
        try:
            self.model.model_validate(value)
        except ValidationError as error:
            raise PostProcessingError(sentence_for(error)) from None
        return value


def checked_assets(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Return the assets, each of which has its configuration checked at launch."""
    found = list(assets)
    for each in found:
        checked_op(each.op)
    return found


def checked_op(op: dg.OpDefinition) -> dg.OpDefinition:
    """Return the op, whose configuration is checked at launch where its function takes a `config`."""
    model = config_of(op)
    if model is not None:
        replace_config_schema(op, dg.Field(CheckedShape(model), description=model.__doc__))
    return op


def config_of(op: dg.OpDefinition) -> type[dg.Config] | None:
    """Return the type of the argument `config` of an op's function, None where it takes none."""
    function = getattr(op.compute_fn, "decorated_fn", None)
    found = None if function is None else inspect.signature(function).parameters.get("config")
    return None if found is None else found.annotation


def sentence_for(error: ValidationError) -> str:
    """Say in one sentence which values were refused and why."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        shown = f"`{name}` = {problem['input']!r}: " if name else ""
        parts.append(shown + problem["msg"].removeprefix("Value error, "))
    return f"configuration refused before any work started: {'; '.join(parts)}"


def defaults_of(model: type[dg.Config]) -> Mapping[str, object]:
    """Return the default of every field of `model` as plain JSON values."""
    return model().model_dump(mode="json")


def default_config(*assets: dg.AssetsDefinition, **changed: Mapping[str, object]) -> dict[str, Any]:
    """Return the run configuration with the default of every setting of `assets`, whose runs are a job.

    `changed` names steps, and settings that begin otherwise. The Launchpad opens with what this returns.
    """
    models = {asset.op.name: config_of(asset.op) for asset in assets}
    return {
        "ops": {
            step: {"config": {**defaults_of(model), **changed.get(step, {})}}
            for step, model in models.items()
            if model is not None
        }
    }


def bounds_of(info: FieldInfo) -> str:
    """Show the bounds of a number, such as `[>= 1, <= 512]`; empty where it has none."""
    signs = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}
    shown = [
        f"{sign} {getattr(limit, key)}"
        for limit in info.metadata
        for kind, (sign, key) in signs.items()
        if type(limit) is kind
    ]
    return f"[{', '.join(shown)}]" if shown else ""


def _with_bounds(field: dg.Field, info: FieldInfo) -> dg.Field:
    description = " ".join(filter(None, [info.description, bounds_of(info)]))
    if field.is_required:
        return dg.Field(field.config_type, is_required=True, description=description)
    return dg.Field(field.config_type, default_value=field.default_value, is_required=False, description=description)

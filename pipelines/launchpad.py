"""Turn the configuration models of the domains into Dagster config that is checked when a run is launched.

Dagster checks a pydantic bound only when the step starts, which may be minutes into a run. The schema made here hands
the whole value to its model while the launch is still being planned, so a bad value starts no run at all, whether it
comes from the Launchpad, a schedule, GraphQL or the command line. It refuses models with nested or exotic field types.
"""

import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import dagster as dg
from annotated_types import Ge, Gt, Le, Lt
from dagster._config.errors import PostProcessingError
from dagster._core.definitions.definition_config_schema import convert_user_facing_definition_config_schema
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipelines.errors import UnsupportedConfigField

Model = TypeVar("Model", bound=BaseModel)

_SCALARS: dict[object, Any] = {int: dg.Int, float: dg.Float, bool: dg.Bool, str: dg.String}


class CheckedShape(dg.Shape):
    """A config shape whose value is validated by a pydantic model while the launch is planned."""

    model: type[BaseModel]

    def __new__(cls, model: type[BaseModel]) -> "CheckedShape":  # noqa: PYI034 - see below
        """Make a fresh instance: the base class would hand out a cached plain `Shape` with equal fields."""
        del model
        shape = object.__new__(cls)
        shape._initialized = False
        return shape

    def __init__(self, model: type[BaseModel]) -> None:
        fields = {name: _field(model, name, info) for name, info in model.model_fields.items()}
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


def launch_checked(model: type[BaseModel]) -> dg.Field:
    """Return the config schema of an asset that is configured by `model`.

    Raises:
        UnsupportedConfigField: a field of the model has a type the Launchpad cannot show.
    """
    return dg.Field(CheckedShape(model), is_required=False, description=model.__doc__)


def configured_by(assets: dg.AssetsDefinition, model: type[BaseModel]) -> dg.AssetsDefinition:
    """Give a multi-asset the schema of `launch_checked`: its decorator takes plain mappings only.

    Raises:
        UnsupportedConfigField: a field of the model has a type the Launchpad cannot show.
    """
    assets.op._config_schema = convert_user_facing_definition_config_schema(launch_checked(model))  # noqa: SLF001
    return assets


def read_config(context: dg.AssetExecutionContext, model: type[Model]) -> Model:
    """Return the configuration of the running step as `model`."""
    return model.model_validate(context.op_execution_context.op_config or {})


def sentence_for(error: ValidationError) -> str:
    """Say in one sentence which values were refused and why."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        shown = f"`{name}` = {problem['input']!r}: " if name else ""
        parts.append(shown + problem["msg"].removeprefix("Value error, "))
    return f"configuration refused before any work started: {'; '.join(parts)}"


def defaults_of(model: type[BaseModel]) -> Mapping[str, object]:
    """Return the default of every field of `model` as plain JSON values."""
    return model().model_dump(mode="json")


def _field(model: type[BaseModel], name: str, info: FieldInfo) -> dg.Field:
    description = " ".join(filter(None, [info.description, bounds_of(info)]))
    config = _config_type(info.annotation, f"{model.__qualname__}_{name}")
    if info.default is PydanticUndefined:
        return dg.Field(config, is_required=True, description=description)
    default = list(info.default) if isinstance(info.default, tuple) else info.default
    return dg.Field(config, default_value=default, is_required=False, description=description)


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


def _config_type(annotation: Any, key: str) -> Any:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return dg.Enum(key, [dg.EnumValue(value) for value in arguments])
    if origin in {Union, types.UnionType} and len(arguments) == 2 and type(None) in arguments:
        return dg.Noneable(_config_type(next(a for a in arguments if a is not type(None)), key))
    if origin in {list, tuple} and arguments:
        return dg.Array(_config_type(arguments[0], key))
    raise UnsupportedConfigField(
        f"field `{key}` has type {annotation!r}, which the Launchpad cannot show; "
        "use a number, text, yes/no, a choice or a list of these"
    )

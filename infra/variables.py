"""Turns `DUET_…` variables into a tree of settings, and the tree into `.env.example`.

Every leaf of the tree is one variable. An unknown variable is refused with the closest known name, so that a
misspelling never silently means the default. Values of secrets never appear in a message.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_origin

from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from infra.errors import ConfigurationError
from infra.faults import VARIABLE as FAILPOINT_VARIABLE

PREFIX = "DUET_"
DELIMITER = "__"
SECRETS_VARIABLE = "DUET_SECRETS_DIR"
DEFAULT_SECRETS_DIR = Path("/run/secrets")
API_KEY_VARIABLE = "DUET_API_KEY"
# Read outside the tree: where secret files lie, what key the command line sends, where a test lets a process die, where
# tests find shared data sets.
OTHER_VARIABLES = frozenset({SECRETS_VARIABLE, API_KEY_VARIABLE, FAILPOINT_VARIABLE, "DUET_SHARED_DATA"})
DOTENV = Path(".env")


Model = TypeVar("Model", bound=BaseModel)


class Variable(NamedTuple):
    """One leaf of the settings tree."""

    name: str
    path: tuple[str, ...]
    field: FieldInfo

    @property
    def is_secret(self) -> bool:
        """Tell whether the value must never be shown."""
        return "SecretStr" in str(self.field.annotation)

    @property
    def is_list(self) -> bool:
        """Tell whether several values go into it."""
        return get_origin(self.field.annotation) is tuple


def variables(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Variable]:
    """Yield every leaf, groups after plain fields as they are declared."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from variables(annotation, (*path, name))
        else:
            yield Variable(PREFIX + DELIMITER.join((*path, name)).upper(), (*path, name), field)


def read_settings(model: type[Model], environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Model:
    """Build `model` from `environ`, `.env`, secret files and overrides; raises ConfigurationError."""
    values = _ours(environ)
    secrets = _secret_files(values)
    dotenv: dict[str, str] = {}
    environment = overrides.get("environment", values.get(f"{PREFIX}ENVIRONMENT", "development"))
    if environment == "development" and DOTENV.is_file():
        dotenv = _ours({k: v for k, v in dotenv_values(DOTENV).items() if v is not None})
        if dotenv.get(f"{PREFIX}ENVIRONMENT", "development") != "development":
            raise ConfigurationError(
                "`DUET_ENVIRONMENT` stands in `.env`, which is read in development only: set it in the environment."
            )
    known = {variable.name: variable for variable in variables(model)}
    tree: dict[str, Any] = {}
    for name, value in {**secrets, **dotenv, **values}.items():
        if name in OTHER_VARIABLES:
            continue
        if name not in known:
            raise ConfigurationError(_unknown(name, known))
        _put(tree, known[name].path, _listed(value) if known[name].is_list else value)
    _merge(tree, overrides)
    try:
        return model(**tree)
    except ValidationError as error:
        raise ConfigurationError(_sentence(model, error)) from None


def _ours(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep `DUET_` variables that say something; an empty value means "not set"."""
    found = {name.upper(): value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    return {name: value for name, value in found.items() if value.strip()}


def _secret_files(values: Mapping[str, str]) -> dict[str, str]:
    asked = values.get(SECRETS_VARIABLE)
    folder = Path(asked) if asked else DEFAULT_SECRETS_DIR
    if not folder.is_dir():
        if asked:
            raise ConfigurationError(f"`{SECRETS_VARIABLE}` is `{asked}`, which is no folder: create it or unset it.")
        return {}
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.upper().startswith(PREFIX) and path.is_file():
            try:
                found[path.name.upper()] = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"The secret file `{path}` cannot be read: {error}.") from None
    return {name: value for name, value in found.items() if value}


def _listed(value: str) -> list[Any]:
    """Read a JSON array, or values with commas between them."""
    with suppress(ValueError):
        found = json.loads(value)
        if isinstance(found, list):
            return found
    return [part.strip() for part in value.split(",") if part.strip()]


def _put(tree: dict[str, Any], path: tuple[str, ...], value: str | list[Any]) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _merge(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    for name, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(tree.setdefault(name, {}), dict):
            _merge(tree[name], value)
        else:
            tree[name] = value


def _unknown(name: str, known: Mapping[str, Variable]) -> str:
    group = [other for other in known if other.startswith(name + DELIMITER)]
    if group:
        return f"`{name}` is a group of settings, not one setting: set `{group[0]}` or another of its members."
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"`{name}` is not a setting of Duet: did you mean `{close[0]}`? `.env.example` lists all of them."


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    path = tuple(str(part) for part in first["loc"])
    found = next((variable for variable in variables(model) if variable.path == path[: len(variable.path)]), None)
    if found is None:
        name = PREFIX + DELIMITER.join(path).upper()
        return _unknown(name, {variable.name: variable for variable in variables(model)})
    value = "a secret" if found.is_secret else f"`{first['input']}`"
    complaint = first["msg"][:1].lower() + first["msg"][1:]
    return f"`{found.name}` is {value}, which is refused: {complaint}."


def render(model: type[BaseModel]) -> str:
    """Render `.env.example`."""
    lines = [
        "# Every setting of Duet with its default. Copy to `.env` (read in development only) and uncomment to change.",
        "# The environment wins over `.env`; a file of the same name in the secrets folder stands in for either.",
        "",
        "# API key that `duet recommend` sends to a service that asks for one.",
        f"# {API_KEY_VARIABLE}=",
        "# Folder of secret files, one per variable (default: /run/secrets, if it exists).",
        f"# {SECRETS_VARIABLE}=",
        "# Folder of the data sets that tests and examples use.",
        "# DUET_SHARED_DATA=../shared/data",
    ]
    group: tuple[str, ...] = ()
    for variable in variables(model):
        if variable.path[:-1] != group:
            group = variable.path[:-1]
            of: object = model
            for name in group:
                of = of.model_fields[name].annotation  # type: ignore[attr-defined]  # groups are models
            lines += ["", f"# --- {'.'.join(group)}: {_first_line(of)}"]
        lines += ["", f"# {variable.field.description}{_bounds(variable.field)}"]
        lines += [f"# {variable.name}={_default(variable)}"]
    return "\n".join(lines) + "\n"


def _first_line(model: object) -> str:
    return (model.__doc__ or "").splitlines()[0]


def _bounds(field: FieldInfo) -> str:
    marks = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    said = [
        f"{sign} {getattr(rule, mark)}"
        for mark, sign in marks.items()
        for rule in field.metadata
        if getattr(rule, mark, None) is not None
    ]
    options = getattr(field.annotation, "__args__", ())
    if options and all(isinstance(option, str) for option in options):
        said = ["one of " + ", ".join(options)]
    return f" [{', '.join(said)}]" if said else ""


def _default(variable: Variable) -> str:
    default = variable.field.default
    if default is None or isinstance(default, SecretStr):
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)

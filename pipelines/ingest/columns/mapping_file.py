"""Read `mapping.yaml` as its author wrote it: every key and value is the text that stands there.

YAML 1.1 makes `true` of the word `yes` and a date of `2024-01-01`; a mapping names columns and values of text files, so
nothing is converted. A key that stands twice is refused; whatever is wrong is told in the words of the file.
"""

from __future__ import annotations

from collections.abc import Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.ingest.columns.mapping import ColumnSource, InteractionsMapping, Mapping, PeopleMapping, Rating
from pipelines.ingest.errors import RefusedMapping

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SCALARS = {"str", "int", "float", "bool"}
_COLUMN = "should be the name of a column, or a map with `column` or `constant`"
_WORDS = {
    "string_type": "should be text; put it in quotes",
    "string_too_short": "should not be empty",
    "dict_type": "should be a map of source value to meaning, e.g. `{M: man, F: woman}`",
    "tuple_type": 'should be a list of texts, e.g. `[NA, "-"]`',
    "bool_type": "should be `true` or `false`",
    "bool_parsing": "should be `true` or `false`",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "finite_number": "should be a finite number",
    "missing": "is missing",
}


class _AsWritten(yaml.SafeLoader):
    """Plain YAML whose scalars stay text; only an empty value, `~` and `null` are no value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the signature of the base class
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"a key must be text (line {line})")
            if key.value in seen:
                told = f"the key `{key.value}` stands in line {seen[key.value]} and again in line {line}"
                raise yaml.constructor.ConstructorError(None, None, told)
            seen[key.value] = line
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}

    def construct_sequence(self, node: yaml.SequenceNode, deep: bool = False) -> list[Any]:  # noqa: FBT001, FBT002 - the signature of the base class
        return [
            item.value if isinstance(item, yaml.ScalarNode) else self.construct_object(item, deep=deep)
            for item in node.value
        ]

    def as_text(self, node: yaml.ScalarNode) -> str:
        return str(node.value)


for _tag in ("int", "float", "bool", "timestamp", "value", "str", "binary"):
    _AsWritten.add_constructor(f"tag:yaml.org,2002:{_tag}", _AsWritten.as_text)


def load_mapping(path: Path) -> Mapping:
    """Read and validate a mapping; raises RefusedMapping with the first thing that is wrong."""
    if path.is_dir():
        raise RefusedMapping(f"The mapping `{path}` is a folder; give the YAML file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RefusedMapping(f"The mapping `{path}` cannot be read: {reason}.") from error
    try:
        document = yaml.load(text, Loader=_AsWritten)  # noqa: S506 - a SafeLoader that knows less
    except yaml.constructor.ConstructorError as error:
        raise RefusedMapping(f"The mapping `{path}` is refused: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RefusedMapping(f"The mapping `{path}` is not YAML: {' '.join(str(error).split())}.") from error
    try:
        return Mapping.model_validate(document if document is not None else {})
    except ValidationError as error:
        first = error.errors()[0]
        where = _place(first["loc"], document)
        raise RefusedMapping(f"The mapping `{path}` is wrong at `{where}`: {_sentence(first)}.") from error


def _place(location: tuple[int | str, ...], document: Any) -> str:
    """Return the path of what is wrong as it stands in the file; pydantic names types there, too."""
    parts: list[str] = []
    here = document
    for part in location:
        is_key = isinstance(here, dict) and part in here
        is_position = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if is_key or is_position:
            here = here[part]
        elif part is not location[-1] or part in _SCALARS or not isinstance(here, dict):
            continue
        parts.append(str(part))
    return ".".join(parts) or "the document"


def _sentence(error: ErrorDetails) -> str:
    kind, place = error["type"], error["loc"]
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return _unknown_key(place)
    if kind in {"model_type", "model_attributes_type"}:
        if not place or place[-1] in {"people", "interactions"}:
            known = ", ".join(f"`{name}`" for name in _keys(_model_at(place)))
            return f"should be a map; its keys are {known}"
        return "should be a map with `column` and `like_at_or_above`" if place[-1] == "rating" else _COLUMN
    if kind == "literal_error":
        return f"`{error['input']}` is not known; give {error['ctx']['expected'].replace(chr(39), '`')}"
    if kind == "string_type" and place[-1] == "column":
        return _COLUMN
    told = _WORDS.get(kind)
    return told if told is not None else error["msg"][:1].lower() + error["msg"][1:]


def _unknown_key(place: tuple[int | str, ...]) -> str:
    known = _keys(_model_at(place[:-1]))
    close = get_close_matches(str(place[-1]).lower(), known, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return f"`{place[-1]}` is no key here; {hint}the keys are {', '.join(f'`{name}`' for name in known)}"


def _model_at(place: tuple[int | str, ...]) -> type[BaseModel]:
    if not place:
        return Mapping
    if len(place) == 1:
        return PeopleMapping if place[0] == "people" else InteractionsMapping
    return Rating if place[-1] == "rating" else ColumnSource


def _keys(model: type[BaseModel]) -> list[str]:
    return [found.alias or name for name, found in model.model_fields.items()]

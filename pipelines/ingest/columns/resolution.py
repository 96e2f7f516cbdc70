"""Hold a mapping against the columns that a file has: which source column is which contract column, and what is left.

Names are compared without case and outer blanks, because exports write `User_ID` and ` gender`. A source column that
the file does not have is refused by name; a column left over that looks like one of the contract is pointed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pipelines.ingest.columns.attributes import SOURCE_ID
from pipelines.ingest.columns.mapping import ColumnSource, InteractionsMapping, PeopleMapping, Rating
from pipelines.ingest.errors import RefusedMapping

# What an export calls these columns when it follows the contract without a mapping.
_ALIASES = {"actor": "actor_id", "target": "target_id", "time": "occurred_at", "timestamp": "occurred_at"}
# What other exports call the contract's columns: they are only pointed at, because a name alone proves nothing.
_ALSO_CALLED = {
    "user_id": ("id", "uid", "user", "personid", "memberid", "profileid"),
    "birth_date": ("dob", "birthday", "born", "dateofbirth"),
    "gender": ("sex",),
    "seeking": ("lookingfor", "interestedin", "orientation"),
    "age_min": ("minage", "minimumage"),
    "age_max": ("maxage", "maximumage"),
    "latitude": ("lat",),
    "longitude": ("lon", "lng", "long"),
    "max_distance_km": ("maxdistance", "distance", "radius"),
    "interests": ("hobbies", "tags"),
    "bio": ("about", "aboutme", "description"),
    "created_at": ("created", "joined", "joinedat", "signup", "signupdate", "registered", "registeredat"),
    "last_active_at": ("lastactive", "lastseen", "lastlogin", "lastonline"),
    "visible": ("isvisible", "active", "isactive"),
    "actor_id": ("from", "fromuser", "fromid", "sender", "swiper", "source", "userid"),
    "target_id": ("to", "touser", "toid", "receiver", "recipient", "swiped", "targetuser"),
    "kind": ("action", "type", "event", "decision", "direction", "liked"),
    "occurred_at": ("date", "datetime", "ts", "when", "createdat", "at"),
}
# Columns that say the opposite: whoever took them as they are would show the people that the app hides.
_OPPOSITE_OF_VISIBLE = frozenset(
    ("hidden", "invisible", "inactive", "paused", "disabled", "deactivated", "deleted", "banned", "suspended")
)
_SHOWN = 20


@dataclass(frozen=True)
class Resolved:
    """Contract column -> source with the file's own column names, the columns left over, and the rating if one."""

    origins: dict[str, ColumnSource]
    left: list[str]
    rating: Rating | None = None


def resolve(table: PeopleMapping | InteractionsMapping, header: Sequence[str], path: Path) -> Resolved:
    """Find the source of every contract column; raises RefusedMapping for an unknown or ambiguous column."""
    found = {name: _found(source, header, path) for name, source in table.origins().items()}
    _refuse_opposite(found)
    _refuse_one_person(found)
    rating = table.rating if isinstance(table, InteractionsMapping) else None
    if rating is not None:
        rating = rating.model_copy(update={"column": _column(rating.column, header, path)})
    ignored = {_column(name, header, path) for name in table.ignore} if isinstance(table, PeopleMapping) else set()
    named = {source.column for source in found.values() if source.column is not None}
    named |= {rating.column} if rating is not None else set()
    decided = {"kind"} if rating is not None else set()
    contract = [name for name in type(table).model_fields if name not in {"ignore", "rating"} | decided]
    free = [column for column in header if column not in named | ignored]
    for spelt in (_plain, _aliased):
        for name in [name for name in contract if name not in found]:
            matches = [column for column in free if spelt(column) == name and column not in named]
            if len(matches) > 1:
                both = ", ".join(f"`{column}`" for column in matches)
                called = type(table).model_fields[name].alias or name
                raise RefusedMapping(
                    f"`{path.name}` has {len(matches)} columns that mean `{called}`: {both}; "
                    "name the right one in the mapping, or rename the other."
                )
            if matches:
                found[name] = ColumnSource(column=matches[0])
                named.add(matches[0])
    left = [column for column in free if column not in named]
    if SOURCE_ID in left and "user_id" in found and found["user_id"].hash:
        raise RefusedMapping(
            f"`{path.name}` has a column `{SOURCE_ID}`, and with `hash: true` that attribute keeps the id that was "
            f"hashed; rename the column, or say `ignore: [{SOURCE_ID}]` for people in the mapping."
        )
    return Resolved(found, left, rating)


def left_over(resolved: Resolved, table: PeopleMapping | InteractionsMapping, path: Path) -> list[str]:
    """Return sentences about the columns that no contract column takes, each with what it may have meant."""
    if not resolved.left:
        return []
    shown = ", ".join(f"`{column}`" for column in resolved.left[:_SHOWN])
    more = f" and {len(resolved.left) - _SHOWN} more" if len(resolved.left) > _SHOWN else ""
    is_people = isinstance(table, PeopleMapping)
    what = "kept as attributes" if is_people else "that Duet has no place for"
    told = [f"Columns of `{path.name}` {what}: {shown}{more}."]
    free = [name for name in type(table).model_fields if name not in {*resolved.origins, "ignore", "rating"}]
    for column in resolved.left:
        meant = close_to(column, free)
        if meant is not None:
            called = type(table).model_fields[meant].alias or meant
            told.append(
                _opposite(column)
                if _says_hidden(column)
                else f"`{column}`: did you mean `{called}`? If so, rename it or map it with `--mapping`."
            )
    return told


def close_to(column: str, names: Sequence[str]) -> str | None:
    """Return the contract column among `names` that a source column may stand for."""
    letters = _letters(column)
    for name in names:
        is_opposite = name == "visible" and _says_hidden(column)
        if letters == _letters(name) or letters in _ALSO_CALLED.get(name, ()) or is_opposite:
            return name
    close = get_close_matches(letters, [_letters(name) for name in names], n=1, cutoff=0.84)
    return next((name for name in names if close and _letters(name) == close[0]), None)


def _says_hidden(column: str) -> bool:
    return _letters(column).removeprefix("is") in _OPPOSITE_OF_VISIBLE


def _opposite(column: str) -> str:
    return (
        f"`{column}` says the opposite of `visible`: map it with the words of the file, e.g. "
        f"`visible: {{column: {column}, values: {{yes: no, no: yes}}}}`."
    )


def _refuse_opposite(found: Mapping[str, ColumnSource]) -> None:
    visible = found.get("visible")
    if visible is not None and visible.column is not None and visible.values is None and _says_hidden(visible.column):
        raise RefusedMapping(_opposite(visible.column))


def _refuse_one_person(found: Mapping[str, ColumnSource]) -> None:
    columns = [found[name].column for name in ("actor_id", "target_id") if name in found]
    if len(columns) == 2 and columns[0] is not None and columns[0] == columns[1]:
        raise RefusedMapping(f"`actor` and `target` both read the column `{columns[0]}`; name the other one.")


def _found(source: ColumnSource, header: Sequence[str], path: Path) -> ColumnSource:
    if source.column is None:
        return source
    return source.model_copy(update={"column": _column(source.column, header, path)})


def _column(name: str, header: Sequence[str], path: Path) -> str:
    """Return the file's own spelling of a column that the mapping names."""
    if name in header:
        return name
    matches = [column for column in header if _plain(column) == _plain(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        both = ", ".join(f"`{column}`" for column in matches)
        raise RefusedMapping(
            f"The mapping names the column `{name}`, and `{path.name}` has {both}; write it exactly as the file does."
        )
    close = get_close_matches(_plain(name), [_plain(column) for column in header], n=1)
    meant = next((column for column in header if close and _plain(column) == close[0]), None)
    raise RefusedMapping(
        f"The mapping names the column `{name}`, which `{path.name}` does not have; "
        + (f"did you mean `{meant}`? It" if meant is not None else "it")
        + f" has {', '.join(f'`{column}`' for column in header)}."
    )


def _plain(name: str) -> str:
    return name.strip().casefold()


def _aliased(name: str) -> str:
    return _ALIASES.get(_plain(name), "")


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())

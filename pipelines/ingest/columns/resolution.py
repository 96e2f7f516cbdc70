"""Hold a mapping against the columns that a file has: which source column is which contract column, and what is left.

Names are compared without case and outer blanks, because exports write `User_ID` and ` gender`. A source column that
the file does not have is refused by name; a column left over that looks like one of the contract is pointed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

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
    "visible": ("isvisible", "active", "isactive", "hidden", "paused", "deleted", "banned"),
    "actor_id": ("from", "fromuser", "fromid", "sender", "swiper", "source", "userid"),
    "target_id": ("to", "touser", "toid", "receiver", "recipient", "swiped", "targetuser"),
    "kind": ("action", "type", "event", "decision", "direction", "liked"),
    "occurred_at": ("date", "datetime", "ts", "when", "createdat", "at"),
}
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
            if len(matches) > 1 and spelt is _plain:
                both = ", ".join(f"`{column}`" for column in matches)
                raise RefusedMapping(
                    f"`{path.name}` has {len(matches)} columns that mean `{name}`: {both}; "
                    "name the right one in the mapping, or rename the other."
                )
            if matches:
                found[name] = ColumnSource(column=matches[0])
                named.add(matches[0])
    return Resolved(found, [column for column in free if column not in named], rating)


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
            told.append(f"`{column}`: did you mean `{called}`? If so, rename it or map it with `--mapping`.")
    return told


def close_to(column: str, names: Sequence[str]) -> str | None:
    """Return the contract column among `names` that a source column may stand for."""
    letters = _letters(column)
    for name in names:
        if letters == _letters(name) or letters in _ALSO_CALLED.get(name, ()):
            return name
    close = get_close_matches(letters, [_letters(name) for name in names], n=1, cutoff=0.84)
    return next((name for name in names if close and _letters(name) == close[0]), None)


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

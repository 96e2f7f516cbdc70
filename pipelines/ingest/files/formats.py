"""Formats of dates and times, checked before any row is read.

Nothing is guessed: a format that leaves out the year, or that lets the parser choose between day and month, is refused.
"""

from __future__ import annotations

import re

ISO = "ISO8601"
_DIRECTIVE = re.compile(r"%(.)", re.DOTALL)
_YEARS = frozenset("YyG")
_HINTS = {
    "s": "for seconds since 1970 use `unit: s`",
    "L": "milliseconds are read by `%f`",
    "N": "fractions of a second are read by `%f`",
    "Q": "for milliseconds since 1970 use `unit: ms`",
    "e": "the day of the month is `%d`",
    "k": "the hour is `%H`",
    "l": "the hour of twelve is `%I`",
    "F": "write `%Y-%m-%d`",
    "T": "write `%H:%M:%S`",
    "D": "write `%m/%d/%y`",
    "R": "write `%H:%M`",
    "h": "the short name of the month is `%b`",
    "P": "the half of the day is `%p`",
    "c": "write the parts one by one",
    "x": "write the parts one by one",
    "X": "write the parts one by one",
}
# Of two parts of one kind the parser drops one.
_RIVALS = ("Yy", "mbB", "HI")
_WEEKDAY = ("djUWV", "a day of the week alone says no date")
# letter -> of which it needs one, and why; without it the parser drops the part or takes it for another.
_NEEDS = {
    "p": ("I", "an hour of twelve goes with its half of the day, `%H` is the hour of twenty-four"),
    "I": ("p", "an hour of twelve goes with its half of the day, `%H` is the hour of twenty-four"),
    "d": ("mbB", "a day belongs to a month"),
    "M": ("HI", "a minute belongs to an hour"),
    "S": ("M", "a second belongs to a minute"),
    "f": ("S", "a fraction belongs to a second"),
    **dict.fromkeys("aAwu", _WEEKDAY),
}
_KNOWN = frozenset("aAwdbBmyYHIMSfzZjpGVuUW%")


def check_format(text: str) -> str:
    """Return the format; raises ValueError with a sentence when no date or time can be read by it."""
    if text == ISO:
        return text
    directives = _DIRECTIVE.findall(text)
    if not directives:
        raise ValueError(f"the format `{text}` reads nothing; write it like `%d.%m.%Y`, or leave it out for ISO 8601")
    if _DIRECTIVE.sub("", text).endswith("%"):
        raise ValueError(f"the format `{text}` ends with a single `%`; write `%%` for the sign itself")
    for letter in directives:
        if letter not in _KNOWN:
            hint = _HINTS.get(letter, "the letters are those of strptime, e.g. `%d.%m.%Y %H:%M:%S`")
            raise ValueError(f"the format `{text}` has `%{letter}`, which nothing is read by; {hint}")
    read = [letter for letter in directives if letter != "%"]
    twice = sorted({letter for letter in read if read.count(letter) > 1})
    if twice:
        raise ValueError(f"the format `{text}` has `%{twice[0]}` more than once; a value holds each part once")
    if not _YEARS & set(read):
        raise ValueError(f"the format `{text}` reads no year; add `%Y`, or `%y` where it has two digits")
    _check_parts(text, read)
    import pandas as pd

    try:
        pd.to_datetime(pd.Series(["-"], dtype="object"), format=text, errors="coerce", utc=True)
    except (ValueError, re.error) as error:
        raise ValueError(
            f"the format `{text}` cannot be read by: {' '.join(str(error).split()).rstrip('.')}"
        ) from error
    return text


def _check_parts(text: str, read: list[str]) -> None:
    for rivals in _RIVALS:
        both = [letter for letter in rivals if letter in read]
        if len(both) > 1:
            raise ValueError(
                f"the format `{text}` has both `%{both[0]}` and `%{both[1]}`; a value holds each part once"
            )
    for letter in read:
        needed, reason = _NEEDS.get(letter, (letter, ""))
        if not set(needed) & set(read):
            *others, last = [f"`%{other}`" for other in needed]
            choice = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"the format `{text}` has `%{letter}` without {choice}; {reason}")


def knows_zone(name: str) -> bool:
    """Return whether times can be read in a zone; the databases of Python and of Arrow do not hold the same names."""
    import pyarrow as pa

    try:
        [shown] = pa.array([0], pa.timestamp("us", name)).cast(pa.string()).to_pylist()
        return shown is not None and pa.scalar(0, pa.timestamp("us", name)).as_py() is not None
    except (pa.ArrowInvalid, KeyError, ValueError):
        return False


def reads_zone(text: str) -> bool:
    """Return whether a format takes the zone from the text."""
    return bool({"z", "Z"} & set(_DIRECTIVE.findall(text)))

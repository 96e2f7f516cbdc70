"""JSON as RFC 8259 means it, and nothing more lenient.

Python's parser takes NaN, duplicate keys and lone surrogates; this refuses them, and any nesting deeper than a
request of ours can have, as MalformedBody. Shapes are pydantic's business, not this module's.
"""

import json
from collections import Counter
from typing import Any

from serving.errors import MalformedBody

MAX_DEPTH = 16
_SHOWN = 64


def check(body: bytes) -> None:
    """Refuse `body` with MalformedBody unless it is one strict JSON object."""
    if not body.strip():
        raise MalformedBody("The body is empty: send a JSON object.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8 at byte {error.start}: send JSON in UTF-8.") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise MalformedBody(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    except RecursionError:
        raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except ValueError:
        # int() refuses numbers of thousands of digits: no field of ours can hold one.
        raise MalformedBody("The body holds a number that is too long.") from None
    if not isinstance(value, dict):
        raise MalformedBody("The body must be a JSON object.")
    # Without an escape no text can hold what `_check_text` looks for: UTF-8 and JSON have no other way to say it.
    _walk(value, 1, escaped="\\" in text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = json.dumps(Counter(key for key, _ in pairs).most_common(1)[0][0])
        raise MalformedBody(f"The body names {twice[:_SHOWN]} twice in one object: send it once.")
    return members


def _refuse_constant(name: str) -> None:
    raise MalformedBody(f"The body holds {name}, which is not a JSON number.")


def _walk(value: object, depth: int, *, escaped: bool) -> None:
    if depth > MAX_DEPTH:
        raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, str):
        if escaped:
            _check_text(value)
    elif isinstance(value, list):
        for item in value:
            if type(item) is not int and (escaped or type(item) is not str):  # a request may have a thousand of them
                _walk(item, depth + 1, escaped=escaped)
    elif isinstance(value, dict):
        for key, item in value.items():
            if escaped:
                _check_text(key)
            _walk(item, depth + 1, escaped=escaped)


def _check_text(text: str) -> None:
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise MalformedBody("The body holds text with a NUL character or a lone surrogate.")

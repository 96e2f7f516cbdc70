"""Keeps typeguard from recompiling Feast's classes while they are imported.

That takes four seconds of CPU in every process that reads a feature, for checks of argument types that typeguard itself
calls not meant for production. Its own switch, `python -O`, would drop the asserts of every other library as well.
Only Feast uses typeguard here; it must be imported after this.
"""

from typing import Any

import typeguard


def _as_it_is(target: Any = None, **_: Any) -> Any:
    return _as_it_is if target is None else target


def leave_feast_unchecked() -> None:
    """Make `@typechecked` return what it decorates, in this process."""
    typeguard.typechecked = _as_it_is

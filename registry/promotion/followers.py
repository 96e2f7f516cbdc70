"""Waits until the serving workers of all machines serve a release, and names those that do not and why."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from infra.cli.console import print_note, print_success
from registry.contracts import PRODUCTION, STAGING

if TYPE_CHECKING:
    import psycopg

ROLLBACK_S: Final = 10.0
PROMOTION_S: Final = 60.0
"""A promoted release is fetched, tried in a process of its own and warmed before it serves; a rollback lies here."""
_REFUSED_S: Final = 5.0
"""A worker that looks while the three models move refuses what it sees; what it says for so long is its last word."""
_LOOK_S: Final = 0.2


class _Follower(NamedTuple):
    """What one worker serves of a stage, and why what it should serve of it is not that."""

    name: str
    release: str | None
    refused: str | None
    mark: str | None

    def serves(self, release: str, mark: str | None) -> bool:
        # A worker of an earlier version says no mark, and an audit of one knows no digests: numbers decide then.
        return self.release == release and (mark is None or self.mark is None or self.mark == mark)


def refusals(connection: "psycopg.Connection[Any]", stage: str = PRODUCTION) -> dict[str, str | None]:
    """Return why each worker refuses what it should serve of a stage, by its name."""
    return {worker.name: worker.refused for worker in _followers(connection, stage)}


def wait_until_challenging(
    connection: "psycopg.Connection[Any]", release: str, before: Mapping[str, str | None], *, mark: str | None = None
) -> None:
    """Wait like `wait_until_served` for a challenger where an experiment is active, and say so where none is."""
    from registry.experiments.table import ExperimentState, list_experiments

    with connection.transaction():
        is_active = any(one.state != ExperimentState.OFF for one in list_experiments(connection))
    if is_active:
        wait_until_served(connection, release, PROMOTION_S, before, mark=mark, stage=STAGING)
    else:
        print_note(f"{release} is staged, and served once an experiment starts: run `duet experiment start NAME`")


def wait_until_served(
    connection: "psycopg.Connection[Any]",
    release: str,
    most_s: float,
    before: Mapping[str, str | None] | None = None,
    *,
    mark: str | None = None,
    stage: str = PRODUCTION,
) -> None:
    """Say when all serving workers serve a release, or after `most_s` which ones do not and why.

    `mark` says which bytes of the release are meant, where the audit knows: the same numbers may name others, too.
    Where all that are late have refused something else than `before` for a while, no time is wasted on waiting.
    """
    arm = " as challenger" if stage == STAGING else ""
    began = time.monotonic()
    refused_since: dict[tuple[str, str | None], float] = {}
    while True:
        workers = _followers(connection, stage)
        late = [worker for worker in workers if not worker.serves(release, mark)]
        took_s = time.monotonic() - began
        if not workers:
            print_note("no serving worker has reported to Postgres of late")
            return
        if not late:
            print_success(f"served by {len(workers)} of {len(workers)} workers{arm} after {took_s:.1f} s")
            return
        refused_since = {
            (worker.name, worker.refused): refused_since.get((worker.name, worker.refused), took_s)
            for worker in late
            if before is not None and worker.refused is not None and worker.refused != before.get(worker.name)
        }
        settled = len(refused_since) == len(late) and took_s - max(refused_since.values()) > _REFUSED_S
        if took_s > most_s or settled:
            break
        time.sleep(_LOOK_S)
    print_note(f"served by {len(workers) - len(late)} of {len(workers)} workers{arm} after {took_s:.1f} s")
    for worker in late:
        which = f"{release}@{worker.mark}" if worker.release == release else worker.release or "no release"
        serves = f"still serves {which}{arm}"
        print_note(f"{worker.name} {serves}: {worker.refused or 'no reason said'}")


def _followers(connection: "psycopg.Connection[Any]", stage: str) -> list[_Follower]:
    from registry.promotion.workers import live_workers

    if stage == STAGING:
        return [
            _Follower(one.name, one.challenger, one.challenger_refused, one.challenger_mark)
            for one in live_workers(connection)
        ]
    return [_Follower(one.name, one.release, one.refused, one.mark) for one in live_workers(connection)]

"""Which release was in Production when, by whom and why; and whether what stands there now is what serves."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from pipelines.resources import Platform
from registry.contracts import PRODUCTION, STAGING, ReleaseIdentity, mark_of
from registry.errors import IncoherentRelease, RegistryError, RegistryUnavailable
from registry.mlflow.observer import observe
from registry.promotion.audit import PostgresPromotionLog, Promotion
from registry.promotion.promotion import verify_release
from registry.promotion.release_cache import ReleaseCache
from registry.promotion.views import what_happened
from registry.promotion.workers import Worker, live_workers

if TYPE_CHECKING:
    import psycopg

SHOWN: Final = 100


@dataclass(frozen=True)
class ReleaseStanding:
    """What was found: the rows of the history, the newest first, and what is wrong with what stands in Production."""

    rows: list[dict[str, Any]]
    added: list[Promotion]
    refusal: str | None
    pinned: str | None
    workers: list[Worker]


def look(platform: Platform) -> ReleaseStanding:
    """Bring audit and MLflow in step, and say how things stand; without MLflow, say what Postgres knows."""
    with platform.connection(autocommit=True) as connection:
        log = PostgresPromotionLog(connection)
        added: list[Promotion] = []
        problem = None
        try:
            added = observe(platform.registry, log, honoured=_honoured(platform, connection))
            problem = added.pin_problem or _incoherence(platform)
        except RegistryUnavailable:
            problem = None  # nothing is known to be wrong with the release; MLflow has alerts of its own
        except RegistryError as error:
            problem = str(error)
        workers = live_workers(connection)
        history = [*log.history(PRODUCTION, SHOWN), *log.history(STAGING, SHOWN)]
        pin = log.open_pin()
    said = sorted({worker.refused for worker in workers if worker.refused})
    return ReleaseStanding(
        rows=rows_of(history),
        added=added,
        refusal=" ".join(dict.fromkeys([*([problem] if problem else []), *said])) or None,
        pinned=None if pin is None else pin.versions.release_id,
        workers=workers,
    )


def rows_of(history: list[Promotion]) -> list[dict[str, Any]]:
    """Return one row per promotion, the newest first, in few columns: a page of Dagster is not wide.

    Times are UTC; `until` is when the next one to the same stage came.
    """
    rows: list[dict[str, Any]] = []
    until: dict[str, str] = {}
    for entry in sorted(history, key=lambda entry: (entry.at is not None, entry.at), reverse=True):
        stage = next(filter(None, entry.from_stages.values()), "") if entry.is_departure else entry.stage
        why = f": {entry.reason}" if entry.reason else ""
        since = entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if entry.at else ""
        rows.append(
            {
                "since": since,
                "until": until.get(stage, ""),
                "release": "" if entry.is_departure else entry.versions.release_id,
                "stage": stage,
                "how": f"{what_happened(entry)} by {entry.actor} ({entry.way}){why}",
            }
        )
        until[stage] = since
    return rows


def _honoured(platform: Platform, connection: "psycopg.Connection[Any]") -> Callable[[ReleaseIdentity], bool]:
    """Ask those who serve whether they serve a release; where nobody serves, verify every byte here."""

    def honoured(release: ReleaseIdentity) -> bool:
        from feature_repo.schema import offered_schema

        workers = live_workers(connection)
        if workers:
            name, mark = release.versions.release_id, mark_of(release.digests)
            return any(worker.release == name and worker.mark in {mark, None} for worker in workers)
        cache = ReleaseCache(platform.settings.data_dir / "releases")
        try:
            verify_release(platform.registry, release.versions, offered_schema(), cache)
        except RegistryUnavailable:
            raise
        except RegistryError:
            return False
        return True

    return honoured


def _incoherence(platform: Platform) -> str | None:
    from feature_repo.schema import offered_schema

    if not platform.registry.in_stage(PRODUCTION):
        return None
    try:
        platform.registry.resolve_stage(PRODUCTION, offered_schema())
    except IncoherentRelease as error:
        return str(error)
    return None

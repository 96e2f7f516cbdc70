"""Feast's online store as serving uses it: opened on first use, in a thread, and never in the way.

When it cannot be opened or read, whole-population reads give nobody and `problem` says why: the population then comes
from Postgres alone, without activity.
"""

import threading
from typing import TYPE_CHECKING

import structlog
from numpy import int64
from numpy.typing import NDArray

from feature_repo.people import People
from infra.clock import Clock
from infra.endpoints import Endpoints
from infra.settings import Settings

if TYPE_CHECKING:
    from feature_repo.store import PersonReader

_log = structlog.get_logger(__name__)


class StoredPeople:
    """People by id from the online store; every method blocks."""

    def __init__(self, settings: Settings, endpoints: Endpoints, clock: Clock) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._clock = clock
        self._lock = threading.Lock()
        self._reader: PersonReader | None = None
        self.problem: str | None = None

    def one(self, user_id: int) -> People:
        """Return nobody or one person; raises whatever Feast raises."""
        return self._opened().read(user_id, self._at()) or People.empty()

    def many(self, user_ids: NDArray[int64]) -> People:
        """Return those of `user_ids` that the store knows; nobody when it does not answer."""
        try:
            reader = self._opened()  # also for nobody: the first request must not wait for Feast to be imported
            people = reader.read_many(user_ids, self._at()) if len(user_ids) else People.empty()
        except Exception as error:  # noqa: BLE001 Feast, its registry and its client each raise errors of their own
            self.problem = f"The online feature store cannot be read: {type(error).__name__}."
            _log.warning("online_store_failed", why=str(error))
            return People.empty()
        self.problem = None
        return people

    def _opened(self) -> "PersonReader":
        from feature_repo.store import PersonReader, open_feature_store

        with self._lock:
            if self._reader is None:
                self._reader = PersonReader(open_feature_store(self._settings, self._endpoints))
            return self._reader

    def _at(self) -> float:
        return self._clock.now().timestamp()

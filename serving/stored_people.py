"""Feast's online store as serving uses it: opened on first use, in a thread, and never in the way.

When it cannot be opened or read, whole-population reads give nobody and `problem` says why: the population then comes
from Postgres alone, without activity.
"""

import threading
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from feature_repo.people import People
from infra.endpoints import Endpoints
from infra.settings import Settings

_log = structlog.get_logger(__name__)


class StoredPeople:
    """People by id from the online store; every method blocks."""

    def __init__(self, settings: Settings, endpoints: Endpoints) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._store: Any = None
        self.problem: str | None = None

    def one(self, user_id: int) -> People:
        """Return nobody or one person; raises whatever Feast raises."""
        from feature_repo.store import read_people

        return read_people(self._opened(), np.array([user_id], dtype=np.int64))

    def many(self, user_ids: NDArray[np.int64]) -> People:
        """Return those of `user_ids` that the store knows; nobody when it does not answer."""
        from feature_repo.store import read_people

        if not len(user_ids):
            return People.empty()
        try:
            people = read_people(self._opened(), user_ids, chunk=self._settings.features.chunk_rows)
        except Exception as error:  # noqa: BLE001 Feast, its registry and its client each raise errors of their own
            self.problem = f"The online feature store cannot be read: {type(error).__name__}."
            _log.warning("online_store_failed", exc_info=error)
            return People.empty()
        self.problem = None
        return people

    def _opened(self) -> Any:
        from feature_repo.store import open_feature_store

        with self._lock:
            if self._store is None:
                self._store = open_feature_store(self._settings, self._endpoints)
            return self._store

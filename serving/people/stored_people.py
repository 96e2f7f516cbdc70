"""Feast's online store as serving uses it: opened on first use, in a thread, and never in the way."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from numpy import int64
from numpy.typing import NDArray

from feature_repo.errors import CatalogueNotApplied
from feature_repo.population.people import People
from infra.clock import Clock
from infra.endpoints import Endpoints
from infra.settings import Settings
from serving.errors import FeaturesLost, FeaturesUnavailable
from serving.resilience.batching import RequestBatcher

if TYPE_CHECKING:
    from feature_repo.store import PersonReader


class StoredPeople:
    """People by id from the online store; every method blocks that is not asynchronous."""

    def __init__(self, settings: Settings, endpoints: Endpoints, clock: Clock) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._clock = clock
        self._lock = threading.Lock()
        self._reader: PersonReader | None = None
        self._together = RequestBatcher(self._several)

    def open(self) -> None:
        """Import Feast and open the store now, so that no request waits for it; raises FeaturesUnavailable."""
        with self._reading():
            self._opened()

    def one(self, user_id: int) -> People:
        """Return nobody or one person; raises whatever Feast raises."""
        return self._opened().read(user_id, self._at()) or People.empty()

    async def one_async(self, user_id: int) -> People:
        """Return nobody or one person without blocking; the first call opens the store in a thread.

        Those who are asked for in one turn of the event loop are read together.
        """
        return await self._together.ask(None, user_id)

    async def _several(self, _: None, user_ids: Sequence[int]) -> list[People]:
        reader = self._reader
        if reader is None:
            reader = await asyncio.to_thread(self._opened)
        people = await reader.read_async(user_ids, self._at())
        rows = people.positions(user_ids)
        return [
            people.take(rows[place : place + 1]) if rows[place] >= 0 else People.empty() for place in range(len(rows))
        ]

    async def aclose(self) -> None:
        """Close the connections of `one_async`."""
        if self._reader is not None:
            await self._reader.aclose()

    def many(self, user_ids: NDArray[int64]) -> People:
        """Return those of `user_ids` that the store knows; raises FeaturesUnavailable."""
        if not len(user_ids):
            return People.empty()
        with self._reading():
            return self._opened().read_many(user_ids, self._at())

    def filled_at(self) -> datetime | None:
        """Return until when the store was filled, None before the first time.

        Raises FeaturesLost where it does not hold any more what it was filled with, and FeaturesUnavailable.
        """
        with self._reading():
            until, emptied = self._opened().filled_until(), self._opened().was_emptied()
        if emptied:
            raise FeaturesLost(
                "The online feature store was emptied: people are as if they had never done anything until the next "
                "run of `materialize_changes`."
            )
        return until

    def require(self, user_ids: NDArray[int64]) -> None:
        """Raise FeaturesLost where some of a few people are not online any more, and FeaturesUnavailable."""
        from feature_repo.stores.losses import lost_people

        with self._reading():
            due, lost = lost_people(self._opened(), user_ids)
        if lost:
            raise FeaturesLost(
                f"The online feature store has lost {lost} of {due} people who were looked at: they are as if they had "
                "never done anything until the next run of `materialize_changes`, which fills everybody in again."
            )

    @staticmethod
    @contextlib.contextmanager
    def _reading() -> Iterator[None]:
        try:
            yield
        except CatalogueNotApplied as error:
            raise FeaturesUnavailable(f"The online feature store cannot be read. {error}") from error
        except Exception as error:
            # Feast, its registry and its client each raise errors of their own.
            raise FeaturesUnavailable(f"The online feature store cannot be read: {type(error).__name__}.") from error

    def _opened(self) -> "PersonReader":
        from feature_repo.store import PersonReader, open_feature_store

        with self._lock:
            if self._reader is None:
                self._reader = PersonReader(open_feature_store(self._settings, self._endpoints))
            return self._reader

    def _at(self) -> float:
        return self._clock.now().timestamp()

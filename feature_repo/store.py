"""The feature store as the rest of Duet uses it: open, apply, join for training, materialise, read people.

Feast is imported when a store is opened, not when this module is. Nothing here computes a feature.
"""

import asyncio
import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import CatalogueNotApplied, FeatureStoreUnavailable
from feature_repo.layout import CONTEXT_COLUMNS, RANKING_FEATURES, VIEWS
from feature_repo.population.people import People

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore, FeatureView

    from feature_repo.stores.online import FailFastRedisOnlineStore
    from infra.endpoints import Endpoints
    from infra.settings import Settings

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
"""Called with the view's name, the people done and the people in all."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FAR = datetime(9000, 1, 1, tzinfo=UTC)
CHUNK_PAIRS = 400_000  # joined at once: 200 MB of vectors
SLICE_PAIRS = 50_000  # turned into features at once: Feast copies every column several times
CHUNK_PEOPLE = 2_000
DAY_S = 86_400.0
INSUFFICIENT_PRIVILEGE = "42501"
NOT_APPLIED = (
    "The feature catalogue is not in the registry: run `duet train --job materialize_features`, which puts it there."
)


@dataclass(frozen=True)
class ViewMaterialization:
    """What materialising one view did."""

    view: str
    people: int  # with a row in the interval
    rows: int  # newer than what was online
    seconds: float


@dataclass(frozen=True)
class MaterializationReport:
    """What one materialisation did, in all and per view."""

    until: datetime
    views: tuple[ViewMaterialization, ...] = field(default_factory=tuple)

    @property
    def rows(self) -> int:
        """Return the rows written to the online store."""
        return sum(view.rows for view in self.views)

    @property
    def seconds(self) -> float:
        """Return the seconds all views took."""
        return sum(view.seconds for view in self.views)

    @property
    def rows_per_s(self) -> float:
        """Return people read and written per second, 0 when there was nothing to do."""
        people = sum(view.people for view in self.views)
        return people / self.seconds if people else 0.0


def open_feature_store(settings: "Settings", endpoints: "Endpoints") -> "FeatureStore":
    """Open the feature store that `settings.features` describes; touches the registry's database."""
    from feast import FeatureStore

    from feature_repo.repo_config import repo_config

    return FeatureStore(config=repo_config(settings, endpoints))


def apply_catalogue(store: "FeatureStore") -> None:
    """Register the catalogue; applying it again changes nothing."""
    from feature_repo.definitions import CATALOGUE

    with warnings.catch_warnings():
        # Its advice is to avoid slow on-demand views offline; the benchmark says what ours costs.
        warnings.filterwarnings("ignore", message="On demand feature view is an experimental", category=RuntimeWarning)
        # Feast notes in the views that are applied what was materialised of them.
        store.apply(copy.deepcopy(list(CATALOGUE)))
    store.refresh_registry()


def user_views(store: "FeatureStore") -> "list[FeatureView]":
    """Return the four views of a person in the order of `layout.VIEWS`; raises CatalogueNotApplied.

    A view may have more features than this version knows, and in another order.
    """
    from feast.errors import FeatureViewNotFoundException
    from sqlalchemy.exc import ProgrammingError

    try:
        views = [store.get_feature_view(layout.name) for layout in VIEWS]
    except FeatureViewNotFoundException as error:
        raise CatalogueNotApplied(NOT_APPLIED) from error
    except ProgrammingError as error:
        # Feast makes its tables when it first looks, and a role that only reads may not: nobody was there before.
        if getattr(error.orig, "pgcode", None) != INSUFFICIENT_PRIVILEGE:
            raise
        raise CatalogueNotApplied(NOT_APPLIED) from error
    for layout, view in zip(VIEWS, views, strict=True):
        if lacking := set(layout.columns) - {field.name for field in view.features}:
            raise CatalogueNotApplied(
                f"The registry lacks {', '.join(sorted(lacking))} of {layout.name}: run "
                "`duet train --job materialize_features`, which applies the catalogue and writes all features anew."
            )
    return views


def historical_ranking_features(
    store: "FeatureStore", pairs: "pd.DataFrame", *, chunk: int = CHUNK_PAIRS, progress: Progress | None = None
) -> Float32:
    """Return float32[n, len(RANKING_FEATURES)] of directed pairs as they were at their instants, in input order.

    `pairs` has requester_id, candidate_id, event_timestamp (UTC) and the columns `layout.CONTEXT_COLUMNS`. Joined and
    computed by Feast, `chunk` pairs at a time.
    """
    from feature_repo.definitions import PAIR_VIEW, SERVICE
    from feature_repo.stores.offline import FastRetrievalJob

    user_views(store)
    service = store.get_feature_service(SERVICE)
    out = np.empty((len(pairs), len(RANKING_FEATURES)), dtype=np.float32)
    for start in range(0, len(pairs), chunk):
        part = pairs.iloc[start : start + chunk]
        job = store.get_historical_features(_entities(part), service, full_feature_names=True)
        # One join for the chunk, features a slice at a time; the stock store's job knows no slices.
        tables = job.slices(SLICE_PAIRS) if isinstance(job, FastRetrievalJob) else [job.to_arrow()]
        for table in tables:
            for position, name in enumerate(RANKING_FEATURES):
                out[start : start + table.num_rows, position] = table.column(f"{PAIR_VIEW}__{name}").to_numpy()
            start += table.num_rows  # noqa: PLW2901 - the slices of a chunk follow each other
        if progress is not None:
            progress(PAIR_VIEW, start, len(pairs))
    return out


def _entities(pairs: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    at = pd.to_datetime(pairs["event_timestamp"], utc=True)
    micros = at.to_numpy(dtype="datetime64[us]").astype(np.int64)
    columns: dict[str, Any] = {
        "requester_id": pairs["requester_id"].to_numpy(dtype=np.int64),
        "candidate_id": pairs["candidate_id"].to_numpy(dtype=np.int64),
        "event_timestamp": at.to_numpy(dtype="datetime64[us]"),
        "requested_at": micros / 1e6,
    }
    for column in CONTEXT_COLUMNS:
        columns[column] = pairs[column].to_numpy(dtype=np.float32)
    frame = pd.DataFrame(columns)
    frame["event_timestamp"] = frame["event_timestamp"].dt.tz_localize("UTC")
    return frame


def materialize(
    store: "FeatureStore",
    until: datetime,
    *,
    since: datetime | None = None,
    progress: Progress | None = None,
    chunk: int = 20_000,
) -> MaterializationReport:
    """Bring every view's latest rows up to `until` online; only what came since the last time is read.

    The last materialised instant of each view is Feast's own record of it, written after its rows are. `since` goes
    further back, for rows that were written late: an import of old data. A row that is already newer online stays. A
    store that was emptied is filled with everybody.
    """
    online = own_store(store)
    if online is not None and not online.begin_filling(store.config):
        since = EPOCH
    done = []
    for view, layout in zip(user_views(store), VIEWS, strict=True):
        began = time.monotonic()
        recorded = view.most_recent_end_time or EPOCH
        start = recorded if since is None else min(recorded, since)
        people = rows = 0
        if start < until:
            total, blocks = _latest(store, view, start, until, chunk)
            for user_ids, micros, values in blocks:
                rows += _write_online(store, view, user_ids, micros, values)
                people += len(user_ids)
                if progress is not None:
                    progress(layout.name, people, total)
            store.registry.apply_materialization(view, store.project, start, until)
        done.append(ViewMaterialization(layout.name, people, rows, time.monotonic() - began))
    if online is not None:
        online.end_filling(store.config)
    store.refresh_registry()
    return MaterializationReport(until, tuple(done))


def materialize_people(
    store: "FeatureStore", user_ids: ArrayLike, until: datetime, *, announce: bool = False, chunk: int = CHUNK_PEOPLE
) -> MaterializationReport:
    """Bring the newest rows of some people online; the cost is that of these people alone.

    Until it is announced, only those who read people one by one see it: whoever holds everybody in memory reads anew
    what was announced. Announce only where nothing older waits to come online: see `materialize`.
    """
    ids = np.unique(np.asarray(user_ids, dtype=np.int64))
    done = []
    for view, layout in zip(user_views(store), VIEWS, strict=True):
        began, people, rows = time.monotonic(), 0, 0
        for first in range(0, len(ids), chunk):
            _, blocks = _latest(store, view, EPOCH, FAR, chunk, user_ids=ids[first : first + chunk])
            for found, micros, values in blocks:
                rows += _write_online(store, view, found, micros, values)
                people += len(found)
        if announce:
            store.registry.apply_materialization(view, store.project, view.most_recent_end_time or EPOCH, until)
        done.append(ViewMaterialization(layout.name, people, rows, time.monotonic() - began))
    store.refresh_registry()
    return MaterializationReport(until, tuple(done))


def online_until(store: "FeatureStore") -> datetime | None:
    """Return until when everybody was announced to be online, None before the first time."""
    ends = [view.most_recent_end_time for view in user_views(store)]
    return None if any(end is None for end in ends) else min(ends)


def own_store(store: "FeatureStore") -> "FailFastRedisOnlineStore | None":
    """Return our online store, or None where another one is configured, which leaves no mark."""
    from feature_repo.feast_private import provider_of
    from feature_repo.stores.online import FailFastRedisOnlineStore

    online = provider_of(store).online_store
    return online if isinstance(online, FailFastRedisOnlineStore) else None


def _latest(
    store: "FeatureStore",
    view: "FeatureView",
    start: datetime,
    until: datetime,
    chunk: int,
    *,
    user_ids: Int64 | None = None,
) -> Any:
    from feature_repo.stores.offline import FastPostgresOfflineStore

    # The stock store reads the same tables, so the fast reader serves both; only its SQL differs.
    return FastPostgresOfflineStore.latest(store.config, view, start, until, chunk, user_ids=user_ids)


def _write_online(store: "FeatureStore", view: "FeatureView", ids: Int64, micros: Int64, values: Float32) -> int:
    from feature_repo.feast_private import provider_of

    online = own_store(store)
    if online is not None:
        return online.write_packed(store.config, view, ids, values, micros)
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    names = [field.name for field in view.features]
    rows = [
        (
            EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=int(user_id))]),
            {name: Value(float_val=value) for name, value in zip(names, row, strict=True)},
            EPOCH + timedelta(microseconds=int(at)),
            None,
        )
        for user_id, at, row in zip(ids, micros, values.tolist(), strict=True)
    ]
    provider_of(store).online_write_batch(store.config, view, rows, None)
    return len(rows)


class PersonReader:
    """Reads people from the online store, prepared once: one round trip per person or per chunk of people."""

    def __init__(self, store: "FeatureStore") -> None:
        self.store = store
        self._views = user_views(store)
        self._names = [[field.name for field in view.features] for view in self._views]
        self._ttl_micros = [round(view.ttl.total_seconds() * 1e6) if view.ttl else 0 for view in self._views]

    def filled_until(self) -> datetime | None:
        """Return until when every view is online, by Feast's own record of it; None before the first time."""
        # Views are filled in this order, each recorded after its rows: past the cache, the last one tells it all.
        view = self.store.registry.get_feature_view(VIEWS[-1].name, self.store.project, allow_cache=False)
        until: datetime | None = view.most_recent_end_time
        return until

    def was_emptied(self) -> bool:
        """Tell whether the store has lost what it was filled with; False before the first time, or if it is away."""
        online = own_store(self.store)
        return online is not None and self.filled_until() is not None and online.was_emptied(self.store.config)

    def read(self, user_id: int, at: float | None = None) -> People | None:
        """Return one person (a row of People), or None for somebody without any features online."""
        people = self._read(np.array([user_id], dtype=np.int64), at)
        return people if len(people) else None

    def read_many(self, user_ids: ArrayLike, at: float | None = None, *, chunk: int = CHUNK_PEOPLE) -> People:
        """Return those of `user_ids` who have features online, sorted by id.

        A view without a row, or with one older than its ttl at unix seconds `at`, gives its default row.
        Raises FeatureStoreUnavailable.
        """
        ids = np.unique(np.asarray(user_ids, dtype=np.int64))
        parts = [self._read(ids[start : start + chunk], at) for start in range(0, len(ids), chunk)]
        if len(parts) == 1:
            return parts[0]
        return People.concat(parts)

    async def read_async(self, user_ids: ArrayLike, at: float | None = None) -> People:
        """Return what `read_many` returns of a few people, without blocking the event loop."""
        ids = np.unique(np.asarray(user_ids, dtype=np.int64))
        online = own_store(self.store)
        if online is None:
            return await asyncio.to_thread(self._read, ids, at)
        return self._people(
            ids, await online.read_packed_async(self.store.config, self._wanted(timed=at is not None), ids), at
        )

    async def aclose(self) -> None:
        """Close the connections of `read_async`."""
        online = own_store(self.store)
        if online is not None:
            await online.close_async()

    def _read(self, ids: Int64, at: float | None) -> People:
        return self._people(ids, self._stored(ids, timed=at is not None), at)

    def _people(self, ids: Int64, stored: "list[tuple[Float32, Int64]]", at: float | None) -> People:
        views, known = [], np.zeros(len(ids), dtype=np.bool_)
        for layout, names, ttl, (found, micros) in zip(VIEWS, self._names, self._ttl_micros, stored, strict=True):
            rows = found if tuple(names) == layout.columns else found[:, [names.index(name) for name in layout.columns]]
            present = micros >= 0
            known |= present
            if ttl and at is not None:
                present &= micros >= round(at * 1e6) - ttl
            rows[~present] = layout.default_row
            views.append(rows)
        people = People(ids, *views)
        return people if known.all() else people.take(np.flatnonzero(known))

    def _wanted(self, *, timed: bool) -> "list[tuple[FeatureView, bool]]":
        return [(view, timed and ttl > 0) for view, ttl in zip(self._views, self._ttl_micros, strict=True)]

    def _stored(self, ids: Int64, *, timed: bool) -> list[tuple[Float32, Int64]]:
        from feature_repo.feast_private import provider_of

        online, wanted = own_store(self.store), self._wanted(timed=timed)
        if online is not None:
            return online.read_packed(self.store.config, wanted, ids)
        return [self._generic(provider_of(self.store), view, ids) for view, _ in wanted]

    def _generic(self, provider: Any, view: "FeatureView", ids: Int64) -> tuple[Float32, Int64]:
        """Read one view through Feast's plain interface, whatever the online store."""
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        keys = [EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=int(i))]) for i in ids]
        names = [field.name for field in view.features]
        rows, micros = np.empty((len(ids), len(names)), dtype=np.float32), np.full(len(ids), -1, dtype=np.int64)
        try:
            # A fresh list: the store appends to it.
            found = provider.online_read(self.store.config, view, keys, list(names))
        except (OSError, RuntimeError) as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error
        for position, (stamp, values) in enumerate(found):
            if values and values[names[0]].WhichOneof("val"):
                rows[position] = [values[name].float_val for name in names]
                micros[position] = round(stamp.timestamp() * 1e6)
        return rows, micros


def read_people(
    store: "FeatureStore", user_ids: ArrayLike, *, chunk: int = CHUNK_PEOPLE, at: float | None = None
) -> People:
    """Return those of `user_ids` who have features online; see PersonReader.read_many."""
    return PersonReader(store).read_many(user_ids, at, chunk=chunk)

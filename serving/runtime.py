"""Everything a serving process holds, wired together: the one place of serving that chooses real dependencies.

`start` returns at once and never fails because a server is down: what is missing is fetched in the background, and
until then answers are worse in the way the ladder says.
"""

import asyncio
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

import numpy as np
import structlog

from infra import postgres
from infra import redis as infra_redis
from infra.clock import Clock
from infra.connection_pool import ConnectionPool
from infra.endpoints import Endpoints, open_endpoints
from infra.metrics import serving_metrics
from infra.safe_settings import needs_key
from infra.settings import Settings
from infra.urls import libpq_url
from infra.web.token import mlflow_token, own_token
from registry.experiments import State
from registry.mlflow_rest import MlflowRest
from serving import process
from serving.access.door import Door
from serving.build_process import BuildProcess
from serving.cache.answer_cache import AnswerCache
from serving.errors import FeaturesUnavailable
from serving.experiments.assignment import Variant
from serving.experiments.shadow import Shadow
from serving.experiments.table import ACTIVE, Experiments
from serving.features import OnlineFeatures
from serving.following import Following
from serving.fresh_changes import FreshChanges
from serving.generations import Generations, source_of
from serving.impressions import AnswerLogs
from serving.interactions import Interactions
from serving.levels import FullLevel, ladder
from serving.newcomers_keeper import NewcomersKeeper
from serving.people_store import PeopleStore, PostgresPeople
from serving.pools import Pools
from serving.population_source import Snapshot
from serving.pulse import Pulse, pulse_of
from serving.recent_likes import RecentLikes
from serving.recommend import Recommender, World
from serving.releases import ReleaseWatcher
from serving.replica import Replica, ReplicatedPeople, open_replica
from serving.resilience.breaker import Dependency, breakers
from serving.resilience.limiter import Limiter
from serving.snapshot import SnapshotKeeper
from serving.stored_people import StoredPeople
from serving.warm_up import warm_up

_log = structlog.get_logger(__name__)
_STATEMENT_S = 600.0
_PLACE_SHARE = 0.4
"""Of the deadline, how long a call may hold its place: it waited for it before, and some take longer than most."""
_OPEN_S = 10.0
_LOGS = "logs"


class Runtime:
    """A serving process from `start` to `stop`; attributes are there after `start`."""

    endpoints: Endpoints
    pool: ConnectionPool
    replica: Replica | None
    pools: Pools
    pulse: Pulse
    registry: MlflowRest | None
    snapshot: SnapshotKeeper
    newcomers: NewcomersKeeper
    experiments: Experiments
    releases: ReleaseWatcher
    cache: AnswerCache | None
    recommender: Recommender
    interactions: Interactions

    def __init__(self, settings: Settings, clock: Clock, seed: int | None = None) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = serving_metrics()
        self._rng = np.random.default_rng(seed)
        self._servers = ExitStack()
        self._opened = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.door = Door(settings, clock, self.metrics, own_token(settings) if needs_key(settings) else None)
        self.limiter = Limiter(
            max_concurrency=settings.serving.max_concurrency,
            max_queued=settings.serving.max_queued,
            queue_timeout_s=settings.serving.queue_timeout_ms / 1000,
            clock=clock,
            metrics=self.metrics,
            longest_s=settings.serving.deadline_ms / 1000 * _PLACE_SHARE,
        )
        self.breakers = breakers(settings.serving.breaker, clock, self.metrics)
        self.warm = False

    async def start(self) -> None:
        """Wire everything and begin the background work."""
        settings, clock, metrics = self.settings, self.clock, self.metrics
        process.share_fairly()
        self.endpoints = await asyncio.to_thread(self._find_servers)
        self.pool = postgres.open_pool(self.endpoints.database_url, settings.postgres)
        self.pool.open()
        self.redis = infra_redis.connect_async(self.endpoints.redis_url, settings.redis)
        self._stored = StoredPeople(settings, self.endpoints, clock)
        self._changes = FreshChanges()
        self._features = OnlineFeatures(self._stored.one_async, self.breakers[Dependency.ONLINE_STORE])
        self.registry = self._registry()
        generations = Generations(settings.data_dir / "snapshot", source_of(settings, self.endpoints))
        self.snapshot = SnapshotKeeper(
            generations=generations,
            builds=BuildProcess(settings, self.endpoints, generations),
            refresh=self._refresh_people,
            filled_at=self._stored.filled_at,
            settings=settings.serving,
            clock=clock,
            metrics=metrics,
        )
        self._following = Following(
            settings,
            clock,
            metrics,
            registry=self.registry,
            guard=self.breakers[Dependency.MLFLOW].call,
            pool=self.pool,
            connect=self._offline_connection,
            snapshot=lambda: self.snapshot.current,
            challenger_wanted=lambda: self.experiments.state is not State.OFF,
        )
        self.releases = self._following.watcher
        self.experiments = Experiments(self._read_experiments, settings.serving.experiment_poll_s, self.releases.nudge)
        self.newcomers = NewcomersKeeper(
            snapshot=lambda: self.snapshot.current,
            releases=lambda: {
                Variant.CHAMPION: self.releases.current,
                Variant.CHALLENGER: self.releases.challenger,
            },
            most=settings.serving.newcomers,
            clock=clock,
            metrics=metrics,
        )
        people = await self._people()
        pools = {"primary": self.pool} | ({} if self.replica is None else {"replica": self.replica.pool})
        self.pools = Pools(pools, metrics)
        self._logs = AnswerLogs(self.pool, metrics)
        self.cache = self._cache()
        self.interactions = Interactions(
            self.pool,
            self.breakers[Dependency.POSTGRES_WRITES],
            metrics=metrics,
            timeout_s=settings.serving.timeout_s / 2,
            changed=self.cache.forget if self.cache is not None else None,
        )
        self._shadow = Shadow(
            strategy=FullLevel(settings, np.random.default_rng(self._rng.integers(2**63))),
            state=lambda: self.experiments.state,
            challenger=lambda: self.releases.challenger,
            busy=lambda: self.limiter.in_flight > 0,
            log_impressions=self._logs.impressions.add,
            log_answers=self._logs.answers.add,
            metrics=metrics,
            clock=clock,
        )
        self.recommender = Recommender(
            settings=settings,
            people=people,
            features=self._features,
            world=self.world,
            ladder=ladder(settings, people, self._rng),
            log_impressions=self._logs.impressions.add,
            log_answers=self._logs.answers.add,
            metrics=metrics,
            clock=clock,
            assign=self.experiments.assign,
            ranked=self._shadow.offer,
            cache=self.cache,
        )
        self.pulse = pulse_of(
            database_url=self.endpoints.database_url,
            redis=self.redis,
            registry=self.registry,
            clock=clock,
            after=self.pools.note,
            stack=self._opened,
        )
        self._tasks = [
            asyncio.create_task(self.pulse.run(), name="pulse"),
            asyncio.create_task(self.snapshot.run(), name="snapshot"),
            asyncio.create_task(self.newcomers.run(), name="newcomers"),
            asyncio.create_task(self.experiments.run(), name="experiments"),
            *(asyncio.create_task(work, name=name) for name, work in self._following.work(self.snapshot.tried).items()),
            asyncio.create_task(self._shadow.run(), name="shadow"),
            asyncio.create_task(self._logs.run(), name=_LOGS),
            asyncio.create_task(self._settle(), name="settle"),
            *([asyncio.create_task(self.replica.lag.run(), name="replica")] if self.replica is not None else []),
            *(
                [asyncio.create_task(self.door.attach(self.pool, self.redis).run(), name="keys")]
                if self.door.closed
                else []
            ),
        ]

    async def _people(self) -> PeopleStore:
        primary = PostgresPeople(
            self.pool, self.breakers[Dependency.POSTGRES], pending_likes=self.settings.ranking.pending_likes
        )
        self.replica = await open_replica(
            self.settings, self.endpoints.database_url, self.breakers[Dependency.REPLICA], self.clock, self.metrics
        )
        if self.replica is None:
            return primary
        self._opened.push_async_callback(self.replica.close)
        return ReplicatedPeople(primary, self.replica.people, self.replica.usable, self.clock)

    async def stop(self) -> None:
        """End the background work, write what is queued, close every connection."""
        self._logs.close()
        for task in self._tasks:
            if task.get_name() != _LOGS:
                task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(task, 5.0)
        self.snapshot.close()
        self.newcomers.close()
        self._shadow.close()
        self._following.close()
        await self._stored.aclose()
        await self._opened.aclose()
        await self.pool.close()
        await self.redis.aclose()
        if self.registry is not None:
            self.registry.close()
        await asyncio.to_thread(self._servers.close)

    def _cache(self) -> AnswerCache | None:
        settings = self.settings.serving.cache
        if not settings.enabled:
            return None
        cache = AnswerCache(self.settings, self.clock, self.metrics, self._rng.random)
        return cache.attach(self.redis, self.breakers[Dependency.REDIS]) if settings.redis else cache

    def world(self) -> World:
        """Return what a request captures once."""
        snapshot, release = self.snapshot.current, self.releases.current
        return World(
            release=release,
            no_release=None if release is not None else self.releases.absence(),
            population=snapshot.population if snapshot else None,
            recent_likes=snapshot.recent_likes if snapshot else RecentLikes.nobody(),
            slots=snapshot.slots if snapshot else {},
            since=snapshot.since if snapshot else None,
            challenger=self.releases.challenger,
            no_challenger=self.releases.challenger_absence(),
            newcomers=self.newcomers.current,
            features_lost=self.snapshot.features_lost,
        )

    def problems(self) -> list[str]:
        """Return what makes answers worse than they could be, as sentences."""
        found = []
        if self.releases.current is None:
            found.append(str(self.releases.absence()))
        elif self.releases.refusal is not None:
            found.append(self.releases.refusal)
        if self.snapshot.current is None or not len(self.snapshot.current.population):
            found.append("There is nobody in the snapshot of people.")
        if self.snapshot.problem is not None:
            found.append(self.snapshot.problem)
        return found

    def _find_servers(self) -> Endpoints:
        settings = self.settings
        if settings.database_url is None or settings.redis_url is None:
            return self._servers.enter_context(open_endpoints(settings))
        # Given servers may be down just now, and their schema is the deployment's to migrate: only note the addresses.
        return Endpoints(
            libpq_url(settings.database_url.get_secret_value()),
            settings.redis_url.get_secret_value(),
            settings.mlflow.url,
            mlflow_token(settings),
        )

    def _registry(self) -> MlflowRest | None:
        url = self.endpoints.mlflow_url
        if url is None:
            return None
        timeout_s = self.settings.mlflow.request_timeout_s
        return MlflowRest(url, token=self.endpoints.mlflow_token, timeout_s=timeout_s)

    def _refresh_people(self, snapshot: Snapshot, *, thorough: bool) -> Snapshot:
        with self._offline_connection() as connection:
            return self._changes.applied(connection, snapshot, thorough=thorough)

    async def _read_experiments(self) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as connection:
            rows: list[tuple[Any, ...]] = await (await connection.execute(ACTIVE)).fetchall()
        return rows

    def _offline_connection(self) -> Any:
        return postgres.connect(
            self.endpoints.database_url,
            autocommit=True,
            statement_timeout_s=_STATEMENT_S,
            application_name="duet-serving-background",
            parallel=False,  # after a large import a look reads it all: requests need the other cores
        )

    async def _settle(self) -> None:
        """Be warm once everything was loaded, or found not to be there."""
        # Feast's three seconds of imports go beside the release's, not beside the first requests.
        opened = asyncio.get_running_loop().run_in_executor(None, self._stored.open)
        await asyncio.to_thread(warm_up)
        await self.releases.tried.wait()
        with suppress(FeaturesUnavailable, TimeoutError):
            await asyncio.wait_for(opened, _OPEN_S)
        process.settle()
        self.warm = True
        _log.info("warm", problems=self.problems())

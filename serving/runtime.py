"""Everything a serving process holds, wired together: the one place of serving that chooses real dependencies.

`start` returns at once and never fails because a server is down: what is missing is fetched in the background, and
until then answers are worse in the way the ladder says.
"""

import asyncio
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import structlog
from psycopg.sql import SQL

from infra import redis as infra_redis
from infra.clock import Clock
from infra.db import postgres
from infra.db.connection_pool import ConnectionPool
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.own_process import OwnProcess
from infra.safe_settings import needs_key
from infra.settings import Settings
from infra.tracing import start_tracing, stop_tracing
from infra.web.token import own_token
from registry.experiments.table import ExperimentState
from registry.measurements import READ
from registry.mlflow.aliases import registry_at
from registry.mlflow.rest import MlflowRest
from registry.scoring.recent_likes import RecentLikes
from serving.access.authentication import Authenticator
from serving.cache.answer_cache import AnswerCache
from serving.endpoints import servers_of
from serving.errors import FeaturesUnavailable
from serving.experiments.assignment import Variant
from serving.experiments.shadow import Shadow
from serving.experiments.table import ACTIVE, Experiments
from serving.logs.impressions import AnswerLogs
from serving.logs.measurements import Measurements
from serving.people.connection_pools import Pools
from serving.people.newcomers_keeper import NewcomersKeeper
from serving.people.people_store import PeopleStore, PostgresPeople
from serving.people.replica import Replica, ReplicatedPeople, open_replica
from serving.people.stored_people import StoredPeople
from serving.people.stores import Stores
from serving.recommend.features import OnlineFeatures
from serving.recommend.levels import FullLevel, ladder
from serving.recommend.recommender import Recommender
from serving.recommend.remote_ranker import RemoteRanker
from serving.recommend.serving_state import ServingState
from serving.recommend.stages.ranking import Predict, predict_here
from serving.recommend.unlogged import UnloggedLists
from serving.releases.following import Following
from serving.releases.watcher import ReleaseWatcher
from serving.resilience import event_loop
from serving.resilience.background import BackgroundTasks, Closing
from serving.resilience.breaker import BreakerState, Dependency, breakers
from serving.resilience.health_checker import HealthChecker, health_checker_of
from serving.resilience.limiter import Limiter
from serving.resilience.models import ModelBreakers, Releases
from serving.snapshots.build_process import BuildProcess
from serving.snapshots.fresh_changes import FreshChanges
from serving.snapshots.generations import Generations, source_of
from serving.snapshots.population_source import PopulationSnapshot
from serving.snapshots.snapshot import SnapshotKeeper
from serving.streams.watcher import StreamWatcher, open_watcher
from serving.warm_up import warm_up
from serving.webhooks.sender import WebhookSender, open_sender

_log = structlog.get_logger(__name__)
_STATEMENT_S = 600.0
_PLACE_SHARE = 0.4
"""Of the deadline, how long a call may hold its place: it waited for it before, and some take longer than most."""
_OPEN_S = 10.0
SILENT_S = 15.0
"""Without a round of health checks for so long, what they said last is not believed any more."""
_LOGS = "logs"


class Runtime:
    """A serving process from `start` to `stop`; attributes are there after `start`."""

    endpoints: Endpoints
    pool: ConnectionPool
    replica: Replica | None
    pools: Pools
    health_checker: HealthChecker
    registry: MlflowRest | None
    snapshot: SnapshotKeeper
    newcomers: NewcomersKeeper
    experiments: Experiments
    releases: ReleaseWatcher
    cache: AnswerCache | None
    recommender: Recommender
    stores: Stores
    webhooks: WebhookSender | None
    streams: StreamWatcher | None

    def __init__(self, settings: Settings, clock: Clock, seed: int | None = None) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = serving_metrics()
        self._rng = np.random.default_rng(seed)
        self._servers = ExitStack()
        self._closing = Closing()
        self._logs: AnswerLogs | None = None
        self.tasks = BackgroundTasks(clock, self.metrics, event_loop.end)
        self.authenticator = Authenticator(
            settings, clock, self.metrics, own_token(settings) if needs_key(settings) else None
        )
        self.limiter = Limiter(
            max_concurrency=settings.serving.max_concurrency,
            max_queued=settings.serving.max_queued,
            queue_timeout_s=settings.serving.queue_timeout_ms / 1000,
            clock=clock,
            metrics=self.metrics,
            longest_s=settings.serving.deadline_ms / 1000 * _PLACE_SHARE,
        )
        self.breakers = breakers(settings.serving.breaker, clock, self.metrics)
        self.models = ModelBreakers(settings.serving.breaker, clock, self.metrics)
        self._own = OwnProcess(settings.data_dir)
        self.warm = False

    async def start(self) -> None:
        """Wire everything and begin the background work; what was opened is closed again when that fails."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings, clock, metrics = self.settings, self.clock, self.metrics
        event_loop.share_fairly()
        if start_tracing(settings, "duet-serving"):
            self._closing.add("traces", lambda: asyncio.to_thread(stop_tracing))
        self._closing.add("servers", lambda: asyncio.to_thread(self._servers.close))
        self.endpoints = await asyncio.to_thread(servers_of, settings, self._servers)
        self.pool = postgres.open_pool(self.endpoints.database_url, settings.postgres)
        self._closing.add("pool", self.pool.close)
        self.pool.open()
        self.redis = infra_redis.connect_async(self.endpoints.redis_url, settings.redis)
        self._closing.add("redis", self.redis.aclose)
        self._stored = StoredPeople(settings, self.endpoints, clock)
        self._closing.add("online store", self._stored.aclose)
        self._changes = FreshChanges()
        self._features = OnlineFeatures(self._stored.one_async, self.breakers[Dependency.ONLINE_STORE])
        self.registry = self._registry()
        if self.registry is not None:
            self._closing.add("registry", self.registry.close)
        generations = Generations(settings.data_dir / "snapshot", source_of(settings, self.endpoints))
        self.snapshot = SnapshotKeeper(
            generations=generations,
            builds=BuildProcess(settings, self.endpoints, generations),
            refresh=self._refresh_people,
            filled_at=self._stored.filled_at,
            require=self._stored.require,
            settings=settings.serving,
            clock=clock,
            metrics=metrics,
        )
        self._closing.add("snapshot", self.snapshot.close)
        self._following = Following(
            settings,
            clock,
            metrics,
            registry=self.registry,
            guard=self.breakers[Dependency.MLFLOW].call,
            pool=self.pool,
            connect=self._offline_connection,
            snapshot=lambda: self.snapshot.current,
            challenger_wanted=lambda: self.experiments.state is not ExperimentState.OFF,
            people_read_at=generations.oldest_read_at,
        )
        self._closing.add("releases", self._following.close)
        self.releases = self._following.watcher
        self.experiments = Experiments(
            lambda: self._rows(ACTIVE), settings.serving.experiment_poll_s, self.releases.nudge
        )
        self.newcomers = NewcomersKeeper(
            snapshot=lambda: self.snapshot.current,
            releases=self.serving_releases,
            most=settings.serving.newcomers,
            clock=clock,
            metrics=metrics,
        )
        self._closing.add("newcomers", self.newcomers.close)
        people = await self._people()
        pools = {"primary": self.pool} | ({} if self.replica is None else {"replica": self.replica.pool})
        self.pools = Pools(pools, metrics)
        self._logs = logs = AnswerLogs(self.pool, metrics)
        self.cache = self._cache()
        changed = self.cache.forget if self.cache is not None else None
        self.webhooks = open_sender(
            settings.webhooks, self.pool, self._closing, clock=clock, metrics=metrics, random=self._rng.random
        )
        self.streams = open_watcher(settings, self.endpoints, self._closing, clock=clock, metrics=metrics)
        notify = None if self.webhooks is None else self.webhooks.nudge
        self.stores = Stores.on(
            self.pool, self.breakers, settings, clock=clock, metrics=metrics, changed=changed, notify=notify
        )
        self._shadow = Shadow(
            strategy=FullLevel(settings, np.random.default_rng(self._rng.integers(2**63))),
            state=lambda: self.experiments.state,
            challenger=lambda: self.releases.challenger,
            busy=lambda: self.limiter.in_flight > 0,
            log_impressions=logs.impressions.add,
            log_answers=logs.answers.add,
            metrics=metrics,
            clock=clock,
        )
        self._closing.add("shadow", self._shadow.close)
        levels = ladder(settings, people, self._rng, self.models, self._predict())
        self.unlogged = UnloggedLists(
            settings=settings,
            people=people,
            features=self._features,
            world=self.world,
            ladder=levels,
            sees=self.stores.relations.sees,
            rng=self._rng,
            metrics=metrics,
            clock=clock,
        )
        self.recommender = Recommender(
            settings=settings,
            people=people,
            features=self._features,
            world=self.world,
            ladder=levels,
            log_impressions=logs.impressions.add,
            log_answers=logs.answers.add,
            metrics=metrics,
            clock=clock,
            assign=self.experiments.assign,
            ranked=self._shadow.offer,
            cache=self.cache,
        )
        self.health_checker = health_checker_of(
            pool=self.pool,
            redis=self.redis,
            registry=self.registry,
            clock=clock,
            after=self._note,
            closing=self._closing,
        )
        self._begin_work(logs)

    def _begin_work(self, logs: AnswerLogs) -> None:
        """Begin what runs beside the requests. Only two tasks are vital: all others leave what they loaded behind."""
        tasks = self.tasks
        tasks.start("health", self.health_checker.run, vital=True)  # or else nobody would know how this worker is
        tasks.start("settle", self._settle, once=True, vital=True)  # or else it would never be ready
        tasks.start("snapshot", self.snapshot.run)
        tasks.start("newcomers", self.newcomers.run)
        tasks.start("experiments", self.experiments.run)
        tasks.start("measurements", Measurements(lambda: self._rows(READ), self.metrics).run)
        for name, work in self._following.work(self.snapshot.tried).items():
            tasks.start(name, work)
        tasks.start("shadow", self._shadow.run)
        lag = None if self.replica is None else self.replica.lag
        for name, wanted in {"webhooks": self.webhooks, "streams": self.streams, "replica": lag}.items():
            if wanted is not None:
                tasks.start(name, wanted.run)
        tasks.start(_LOGS, logs.run)
        if self.authenticator.closed:
            tasks.start("keys", self.authenticator.attach(self.pool, self.redis).run)

    async def _people(self) -> PeopleStore:
        primary = PostgresPeople(
            self.pool, self.breakers[Dependency.POSTGRES], pending_likes=self.settings.ranking.pending_likes
        )
        self.replica = await open_replica(
            self.settings, self.endpoints.database_url, self.breakers[Dependency.REPLICA], self.clock, self.metrics
        )
        if self.replica is None:
            return primary
        self._closing.add("replica", self.replica.close)
        return ReplicatedPeople(primary, self.replica.people, self.replica.usable, self.clock)

    async def stop(self) -> None:
        """End the background work, write what is queued, close every connection, whatever fails on the way."""
        if self._logs is not None:
            self._logs.close()
        try:
            await self.tasks.stop(finishing={_LOGS})
        finally:
            await self._closing.close()

    def _predict(self) -> Predict:
        settings = self.settings.serving
        if settings.ranker_url is None:
            return predict_here
        remote = RemoteRanker(
            settings.ranker_url,
            timeout_s=settings.ranker_timeout_ms / 1000,
            breaker=self.breakers[Dependency.RANKER_SERVICE],
            metrics=self.metrics,
        )
        self._closing.add("ranker service", remote.aclose)
        return remote.predict

    def _cache(self) -> AnswerCache | None:
        settings = self.settings.serving.cache
        if not settings.enabled:
            return None
        cache = AnswerCache(self.settings, self.clock, self.metrics, self._rng.random)
        return cache.attach(self.redis, self.breakers[Dependency.REDIS]) if settings.redis else cache

    def world(self) -> ServingState:
        """Return what a request captures once."""
        snapshot, release = self.snapshot.current, self.releases.current
        return ServingState(
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

    def serving_releases(self) -> Releases:
        """Return the release of each arm."""
        return {Variant.CHAMPION: self.releases.current, Variant.CHALLENGER: self.releases.challenger}

    def _note(self) -> None:
        self._own.note(self.metrics)
        self.pools.note()
        for breaker in self.breakers.values():
            breaker.note()
        self.models.note(self.serving_releases())

    def problems(self) -> list[str]:
        """Return what makes answers worse than they could be, as sentences."""
        found = []
        if self.releases.current is None:
            found.append(str(self.releases.absence()))
        elif self.releases.refusal is not None:
            found.append(self.releases.refusal)
        if self.releases.pin_problem is not None:
            found.append(self.releases.pin_problem)
        if self.snapshot.current is None or not len(self.snapshot.current.population):
            found.append("There is nobody in the snapshot of people.")
        if self.breakers[Dependency.POSTGRES_WRITES].state is BreakerState.OPEN:
            found.append("Interactions cannot be stored just now: writes to Postgres failed a moment ago.")
        if self.breakers[Dependency.ONLINE_STORE].state is BreakerState.OPEN:
            found.append("The online feature store failed a moment ago: older features are used.")
        found += [problem for problem in (self.authenticator.problem, self.snapshot.problem) if problem is not None]
        return [*found, *self.models.problems(self.serving_releases()), *self.tasks.problems()]

    def outage(self) -> str | None:
        """Return why a request could not be answered now, as a sentence; None when it could."""
        if (silent_s := self.health_checker.silent_s) > SILENT_S:
            return f"No dependency was checked for {silent_s:.0f} s: the health checker of this worker hangs."
        postgres_report = self.health_checker.report("postgres")
        if postgres_report.status == "down":
            why = self.pool.stats().problem or postgres_report.message
            return f"No request gets a connection to Postgres, so nobody can be shown safely: {why}"
        if self.breakers[Dependency.POSTGRES].state is BreakerState.OPEN:
            return "Reads of Postgres failed a moment ago and are cut off, so nobody can be shown safely."
        return self.authenticator.outage()

    def _registry(self) -> MlflowRest | None:
        url = self.endpoints.mlflow_url
        return None if url is None else registry_at(url, self.settings.mlflow, token=self.endpoints.mlflow_token)

    def _refresh_people(self, snapshot: PopulationSnapshot, *, thorough: bool) -> PopulationSnapshot:
        with self._offline_connection() as connection:
            return self._changes.applied(connection, snapshot, thorough=thorough)

    async def _rows(self, statement: SQL) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as connection:
            return list(await (await connection.execute(statement)).fetchall())

    def _offline_connection(self) -> Any:
        return postgres.connect(
            self.endpoints.database_url,
            autocommit=True,
            statement_timeout_s=_STATEMENT_S,
            application_name="duet-serving-background",
            parallel=False,  # after a large import a look reads it all: requests need the other cores
            prepared=self.settings.postgres.prepared_statements,
        )

    async def _settle(self) -> None:
        """Be warm once everything was loaded, or found not to be there."""
        # Feast's three seconds of imports go beside the release's, not beside the first requests.
        opened = asyncio.get_running_loop().run_in_executor(None, self._stored.open)
        await asyncio.to_thread(warm_up)
        await self.releases.tried.wait()
        with suppress(FeaturesUnavailable, TimeoutError):
            await asyncio.wait_for(opened, _OPEN_S)
        event_loop.settle()
        self.warm = True
        _log.info("warm", problems=self.problems())

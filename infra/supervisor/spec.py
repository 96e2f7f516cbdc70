"""What a supervised process is: its command, how one sees that it is healthy, and how long that may take."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import httpx

from infra.web.client import tls


class Probe(Protocol):
    """Tells whether a service answers."""

    def check(self) -> str | None:
        """Return None when healthy, else the reason in a few words; never raises, never blocks for long."""
        ...


@runtime_checkable
class StartedProbe(Probe, Protocol):
    """A probe that must know when the process was started, because what it reads outlives a process."""

    def started(self, at: float) -> Probe:
        """Return the probe for a process that was started at `at`, seconds since 1970."""
        ...


@dataclass(frozen=True)
class HttpProbe:
    """Healthy when `url` answers 200; a service of ours says in its answer why it is not."""

    url: str
    timeout_s: float = 2.0

    def check(self) -> str | None:
        """Return None when `url` answers 200, else the reason."""
        try:
            response = httpx.get(self.url, timeout=self.timeout_s, trust_env=False, verify=tls())
        except httpx.HTTPError as failure:
            return f"{self.url} does not answer ({type(failure).__name__})"
        if response.status_code == httpx.codes.OK:
            return None
        return f"{self.url} answers {response.status_code}{_reasons(response)}"


@dataclass(frozen=True)
class TcpProbe:
    """Healthy when something accepts connections on `host`:`port`."""

    host: str
    port: int
    timeout_s: float = 1.0

    def check(self) -> str | None:
        """Return None when a connection is accepted, else the reason."""
        try:
            with socket.create_connection((self.host, self.port), timeout=self.timeout_s):
                return None
        except OSError as failure:
            return f"{self.host}:{self.port} accepts no connection ({failure.strerror or type(failure).__name__})"


@dataclass(frozen=True)
class Service:
    """A process that runs until it is stopped.

    Attributes:
        name: unique; also the name of the log file.
        command: program and arguments.
        environment: variables on top of the inherited ones.
        probe: how health is seen; None counts a started process as healthy.
        alive: how a process that hangs is seen, which is ended and started again; None when only its end counts.
        hung_after_s: for how long it may hang before it is ended, where that is more than the usual minute.
        url: the address for a person; None when there is none.
        after: names that must be healthy (a step: done) before this one starts.
        again: names of steps that are done again after each restart of this process.
        outlives: a word in the command lines of those processes it started that a restart must not end.
        start_timeout_s: longest time without progress until the first healthy answer.
        limit_setting: the variable that sets `start_timeout_s`.
        stop_grace_s: from SIGTERM to SIGKILL.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    probe: Probe | None = None
    alive: Probe | None = None
    hung_after_s: float = 0.0
    url: str | None = None
    after: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    outlives: str | None = None
    start_timeout_s: float = 120.0
    limit_setting: str | None = None
    stop_grace_s: float = 10.0


@dataclass(frozen=True)
class StartStep:
    """A process that must end with exit code 0 before others start; fields as in `Service`."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    start_timeout_s: float = 120.0
    limit_setting: str | None = None
    stop_grace_s: float = 5.0


@dataclass(frozen=True)
class External:
    """A server that somebody else started: it is watched and shown, never stopped here.

    Attributes:
        name: unique.
        probe: how health is seen.
        url: the address for a person, without a password.
        log: its log file; None when it is not on this machine.
        revive: starts it again after it died; None when that is not our business. What it raises is shown, and it is
            tried again.
        stop: ends it, so that `revive` starts it anew; None when that is not our business. Raises DuetError.
    """

    name: str
    probe: Probe
    url: str
    log: Path | None = None
    revive: Callable[[], None] | None = None
    stop: Callable[[], None] | None = None


Spec = Service | StartStep


def _reasons(response: httpx.Response) -> str:
    try:
        reasons = response.json()["reasons"]
        return f": {'; '.join(map(str, reasons))}"[:300] if reasons else ""
    except (ValueError, KeyError, TypeError):
        return ""

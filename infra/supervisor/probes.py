"""Real questions to the servers of a platform, asked the way requests ask them.

An open port proves nothing: the kernel accepts connections for a server that hangs, and Dagster's code server for an
inner process that is gone.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from infra.sign_of_life import silent_streams
from infra.web.client import tls
from infra.web.token import bearer

DAEMON_SILENT_S = 300.0
_DAEMONS = "{instance{daemonHealth{allDaemonStatuses{daemonType required healthy lastHeartbeatTime}}}}"
_NO_ANSWER = (httpx.HTTPError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class PostgresProbe:
    """Healthy when the database answers `select 1`."""

    url: str = field(repr=False)
    timeout_s: float = 5.0

    def check(self) -> str | None:
        """Return None when it answers, else the reason."""
        import psycopg

        from infra.db.postgres import connect
        from infra.errors import ServerUnavailable

        place = urlsplit(self.url)
        try:
            with connect(
                self.url,
                connect_timeout_s=self.timeout_s,
                statement_timeout_s=self.timeout_s,
                application_name="duet-supervisor",
                autocommit=True,
            ) as connection:
                connection.execute("select 1").fetchone()
        except (ServerUnavailable, psycopg.Error) as failure:
            return f"{place.hostname}:{place.port or 5432} answers no query ({_first_line(failure)})"
        return None


@dataclass(frozen=True)
class RedisProbe:
    """Healthy when Redis answers PING."""

    url: str = field(repr=False)
    timeout_s: float = 5.0

    def check(self) -> str | None:
        """Return None when it answers, else the reason."""
        import redis

        from infra.redis import connect
        from infra.settings import RedisSettings

        place = urlsplit(self.url)
        try:
            with connect(self.url, RedisSettings(), socket_timeout_s=self.timeout_s) as client:
                client.ping()
        except redis.RedisError as failure:
            return f"{place.hostname}:{place.port or 6379} answers no PING ({_first_line(failure)})"
        return None


@dataclass(frozen=True)
class CodeServerProbe:
    """Healthy when the process that holds our code answers through the code server that the code is loaded.

    What could not be loaded, while Postgres was away for instance, the server never tries again by itself. The request
    is Dagster's `ListRepositories`; an empty message is all it needs, so nothing of Dagster is imported.
    """

    socket: Path
    timeout_s: float = 10.0

    def check(self) -> str | None:
        """Return None when it answers, else the reason."""
        import grpc

        try:
            with grpc.insecure_channel(f"unix:{self.socket}") as channel:
                reply = channel.unary_unary("/api.DagsterApi/ListRepositories")(b"", timeout=self.timeout_s)
        except grpc.RpcError as failure:
            code = failure.code().name if isinstance(failure, grpc.Call) else type(failure).__name__
            return f"the code server at {self.socket} does not answer ({code})"
        try:
            return _not_loaded(reply)
        except (ValueError, KeyError, TypeError):
            return f"the code server at {self.socket} gives an answer that nobody knows"


@dataclass(frozen=True)
class GraphqlProbe:
    """Healthy when Dagster's web server has loaded our code location or, with `daemons`, when its daemons beat.

    Heartbeats of an earlier daemon, from before `since` (seconds since 1970), do not count, nor do those older than
    five minutes: Dagster itself believes in a silent daemon for half an hour.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    daemons: bool = False
    since: float = field(default_factory=time.time)
    timeout_s: float = 5.0

    def check(self) -> str | None:
        """Return None when healthy, else the reason."""
        query = (
            _DAEMONS
            if self.daemons
            else "{workspaceOrError{__typename ... on Workspace{locationEntries{name loadStatus "
            "locationOrLoadError{__typename ... on PythonError{message}}}} ... on PythonError{message}}}"
        )
        try:
            data = _answered(self.url, self.token, query, self.timeout_s)
            oldest = max(self.since, time.time() - DAEMON_SILENT_S)
            return _sick_daemons(data, oldest) if self.daemons else _broken_location(data)
        except _NO_ANSWER as failure:
            return f"{self.url}/graphql gives no answer ({type(failure).__name__})"

    def started(self, at: float) -> "GraphqlProbe":
        """Return the probe for a process that was started at the time `at`."""
        return replace(self, since=at)


@dataclass(frozen=True)
class HeartbeatProbe:
    """Not healthy only where Dagster's web server says that a daemon was silent for five minutes: the daemon hangs.

    A web server that gives no answer tells nothing of the daemon, nor does a heartbeat with an error in it.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0

    def check(self) -> str | None:
        """Return None unless a daemon is known to be silent, else which."""
        try:
            statuses = _statuses(_answered(self.url, self.token, _DAEMONS, self.timeout_s))
        except _NO_ANSWER:
            return None
        oldest = time.time() - DAEMON_SILENT_S
        silent = [
            str(s["daemonType"]) for s in statuses if s["required"] and (s["lastHeartbeatTime"] or oldest) < oldest
        ]
        return f"no heartbeat from {', '.join(silent)} for more than {DAEMON_SILENT_S:.0f} s" if silent else None


@dataclass(frozen=True)
class StreamProbe:
    """Healthy when the consumer of streams began a round on each of them within a minute, and after `since`.

    A consumer that was killed leaves its signs behind, so those from before `since` (seconds since 1970) do not count.
    """

    data_dir: Path
    since: float = 0.0

    def check(self) -> str | None:
        """Return None when it is at work, else the reason."""
        try:
            silent = silent_streams(self.data_dir, time.time(), self.since)
        except OSError as failure:
            return f"the signs of its rounds cannot be read ({failure.strerror})"
        return f"no round on the streams of {', '.join(silent)}" if silent else None

    def started(self, at: float) -> "StreamProbe":
        """Return the probe for a process that was started at the time `at`."""
        return replace(self, since=at)


def _answered(url: str, token: str | None, query: str, timeout_s: float) -> Any:
    """Return the data that Dagster's web server answers with; raises one of `_NO_ANSWER`."""
    answer = httpx.post(
        f"{url}/graphql",
        json={"query": query},
        headers=bearer(token),
        timeout=timeout_s,
        trust_env=False,
        verify=tls(),
    )
    return answer.raise_for_status().json()["data"]


def _not_loaded(reply: bytes) -> str | None:
    """Return why the code server could not load the code; its reply holds one text of JSON."""
    told = json.loads(reply[reply.index(b'{"') : reply.rindex(b"}") + 1])  # its length may be a brace by itself
    if told["__class__"] != "SerializableErrorInfo":
        return None
    while told["cause"] is not None:
        told = told["cause"]
    return f"the code cannot be loaded: {told['message'].strip().splitlines()[0][:300]}"


def _first_line(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return lines[0][:200] if lines else type(failure).__name__


def _broken_location(data: Mapping[str, Mapping[str, object]]) -> str | None:
    workspace = data["workspaceOrError"]
    entries = workspace.get("locationEntries")
    if not isinstance(entries, list) or not entries:
        return "no code location is loaded"
    for entry in entries:
        if entry["loadStatus"] != "LOADED":
            return f"the code location {entry['name']} is loading"
        result = entry["locationOrLoadError"]
        if result["__typename"] != "RepositoryLocation":
            return f"the code location {entry['name']} cannot be loaded: {str(result.get('message', ''))[:300]}"
    return None


def _statuses(data: Mapping[str, Mapping[str, Mapping[str, list[dict[str, Any]]]]]) -> list[dict[str, Any]]:
    return data["instance"]["daemonHealth"]["allDaemonStatuses"]


def _sick_daemons(data: Mapping[str, Mapping[str, Mapping[str, list[dict[str, Any]]]]], since: float) -> str | None:
    sick = [
        str(s["daemonType"])
        for s in _statuses(data)
        if s["required"] and not (s["healthy"] and (s["lastHeartbeatTime"] or 0) >= since)
    ]
    return f"no heartbeat from {', '.join(sick)}" if sick else None

"""The MLflow server: tracking and model registry on our Postgres, artefacts below the data folder.

Its job runner is off (2.6 GB of memory otherwise) and so is its telemetry. The database URL travels in the
environment, because arguments can be read by everybody on the machine.
"""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import psutil

from infra.embedded.files import write_text
from infra.embedded.lease import Running
from infra.embedded.ports import choose
from infra.embedded.processes import end, identity, is_alive, working_in
from infra.errors import ServerUnavailable
from infra.files import PRIVATE
from infra.progress import Progress, family
from infra.settings import Settings
from infra.telemetry import TELEMETRY_OFF
from infra.web.token import guard_environment

PATIENCE_S = 15.0
"""How long a live server may take to answer before it counts as hung."""


@dataclass(frozen=True)
class _State:
    """What is remembered of a started server."""

    pid: int
    identity: str
    host: str
    port: int
    backend: str


class EmbeddedMlflow:
    """One MLflow server on the database `backend_url`."""

    name = "mlflow"

    def __init__(self, settings: Settings, backend_url: str = "") -> None:
        root = settings.data_dir.absolute()
        self.folder = root / "run" / "mlflow"
        self.data = root / "mlflow"
        self.log = root / "logs" / "mlflow.log"
        self._state = self.folder / "state.json"
        self._backend_url = backend_url
        self._all = settings
        self._settings = settings.mlflow

    def url(self, running: Running) -> str:
        """Return the address for clients on this machine."""
        host = "127.0.0.1" if running.host in {"0.0.0.0", "::"} else running.host  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{running.port}" if ":" in host else f"http://{host}:{running.port}"

    def running(self, patience_s: float = PATIENCE_S) -> Running | None:
        """Return the running server if it answers and works on our database."""
        state = self._read()
        if state is None or (self._backend_url and state.backend != self._backend_digest()):
            return None
        until = time.monotonic() + patience_s
        while is_alive(state.pid, state.identity):
            if self._is_healthy(state.host, state.port):
                return Running(state.pid, state.host, state.port)
            if time.monotonic() > until:
                return None
            time.sleep(0.1)
        return None

    def start(self) -> Running:
        """Start the server and wait until its health page answers."""
        self.stop()
        self.data.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        host = self._settings.host
        port = choose(self._settings.port, self.folder / "port", "DUET_MLFLOW__PORT", host)
        command = [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", host, "--port", str(port), "--workers", "1"),
            *("--serve-artifacts", "--artifacts-destination", str(self.data)),
            # Inside our checks of Host, Origin and token, on connections within our bounds. Its log of every request
            # would say nothing but our own polls.
            *("--app-name", "duet", "--uvicorn-opts", "--no-access-log --http infra.web.limits:LimitedHttp"),
        ]
        environment = {
            **os.environ,
            **TELEMETRY_OFF,
            **guard_environment(self._all),
            "DUET_MLFLOW__HOST": host,
            # Ours are stricter, and know every name of the server.
            "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
            "MLFLOW_BACKEND_STORE_URI": self._backend_url,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        for name in ("MLFLOW_TRACKING_URI", "DUET_MLFLOW__URL", "DUET_MLFLOW__TOKEN"):
            environment.pop(name, None)  # the server must not become a client of itself
        # A shell between us: the server is nobody's child, so neither Ctrl-C nor our end reaches it.
        started = subprocess.run(  # noqa: S603 - our own command
            ["/bin/sh", "-c", '"$@" >>"$SERVER_LOG" 2>&1 </dev/null & echo $!', "sh", *command],
            env={**environment, "SERVER_LOG": str(self.log)},
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
            umask=PRIVATE,
            cwd=self.data,
        )
        pid = int(started.stdout)
        state = _State(
            pid=pid,
            identity=identity(pid) or "",
            host=host,
            port=port,
            backend=self._backend_digest(),
        )
        write_text(self._state, json.dumps(asdict(state)))
        limit_s = self._settings.start_timeout_s
        progress = Progress(limit_s, self.log, lambda: family(pid))
        how_long = None
        while how_long is None:
            if self._is_healthy(host, port):
                return Running(pid, host, port)
            time.sleep(0.1)
            how_long = progress.given_up() if is_alive(pid, state.identity) else "and ended"
        self.stop()
        raise ServerUnavailable(
            f"The MLflow server did not become healthy on port {port} {how_long}: its log `{self.log}` says why;"
            f" DUET_MLFLOW__START_TIMEOUT_S ({limit_s:g} s) sets the limit."
        )

    def stop(self) -> None:
        """End the server and its workers."""
        # Found by folder, not by the remembered pid: a SIGKILL may have come before it was written, or left workers.
        end([process for process in working_in(self.data, "") if _is_mlflow(process)], grace_s=10.0)
        self._state.unlink(missing_ok=True)

    def _read(self) -> "_State | None":
        try:
            return _State(**json.loads(self._state.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _backend_digest(self) -> str:
        return hashlib.sha256(self._backend_url.encode()).hexdigest()

    @staticmethod
    def _is_healthy(host: str, port: int) -> bool:
        target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        connection = http.client.HTTPConnection(target, port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()


def _is_mlflow(process: psutil.Process) -> bool:
    try:
        return "mlflow" in " ".join(process.cmdline())
    except psutil.Error:
        return False

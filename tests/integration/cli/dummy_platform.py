"""A platform of tiny web servers, run as a process of its own: `python dummy_platform.py DATA_DIR SPECS_JSON`.

SPECS_JSON is a list of {"name", "code", "after", "port", "step"}; a port of null means that nothing is probed.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import DuetError
from infra.settings import Settings
from infra.supervisor.platform import run_platform
from infra.supervisor.spec import External, HttpProbe, Service, Spec, StartStep
from infra.supervisor.state import PlatformState, ServiceState

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"well")
print("serving on", sys.argv[1], flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def make_spec(wanted: dict[str, object]) -> Spec:
    name, port = str(wanted["name"]), wanted.get("port")
    command = (sys.executable, "-c", str(wanted.get("code") or SERVER), str(port))
    after = tuple(map(str, wanted.get("after") or ()))  # type: ignore[call-overload]
    if wanted.get("step"):
        return StartStep(name, command, after=after, start_timeout_s=20)
    url = f"http://127.0.0.1:{port}"
    probe = HttpProbe(url, timeout_s=1) if port else None
    timeout_s = float(str(wanted.get("start_timeout_s") or 20))
    return Service(name, command, probe=probe, url=url, after=after, start_timeout_s=timeout_s, stop_grace_s=1.0)


@contextmanager
def dummy_stack(_settings: Settings) -> Iterator[tuple[list[Spec], list[External]]]:
    yield [make_spec(wanted) for wanted in json.loads(sys.argv[2])], []


def report(service: ServiceState) -> None:
    sys.stdout.write(f"{service.name} {service.phase} {service.detail or ''}\n")
    sys.stdout.flush()


def ready(state: PlatformState) -> None:
    sys.stdout.write(f"ready {state.phase}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        run_platform(Settings(data_dir=Path(sys.argv[1])), report=report, on_ready=ready, stack=dummy_stack)
    except DuetError as failure:
        sys.exit(f"error: {failure}")

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from infra.web.probe import problem


class Page(BaseHTTPRequestHandler):
    """Healthy at /well, and at every other address not."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()
        self.wfile.write(b"no connection to Postgres")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_that_answers_200_is_healthy(url: str) -> None:
    assert problem(f"{url}/well") is None


def test_an_unhealthy_server_is_named_with_what_it_says(url: str) -> None:
    said = problem(f"{url}/health/ready")
    assert said == f"{url}/health/ready answers 503: no connection to Postgres"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/health", "http://127.0.0.1:1/health does not answer: "),
        ("file:///etc/passwd", "`file:///etc/passwd` is not a URL"),
    ],
)
def test_whoever_does_not_answer_is_unhealthy(url: str, said: str) -> None:
    assert str(problem(url)).startswith(said)


def test_the_exit_code_is_what_a_container_goes_by(url: str) -> None:
    command = [sys.executable, "-m", "infra.web.probe"]
    assert subprocess.run([*command, f"{url}/well"], check=False).returncode == 0
    ill = subprocess.run([*command, f"{url}/ill"], capture_output=True, text=True, check=False)
    assert (ill.returncode, ill.stderr) == (1, f"{url}/ill answers 503: no connection to Postgres\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1

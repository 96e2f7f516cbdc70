import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.settings import Settings
from infra.tracing import request_span, span, start_tracing, stop_tracing
from tests.spans import traced


class Collector(ThreadingHTTPServer):
    """A receiver of traces on a free port of this machine."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_traces_are_off_unless_it_is_said_where_they_go(tmp_path: Path) -> None:
    assert not start_tracing(Settings(data_dir=tmp_path), "test")
    with request_span("request") as request, span("stage") as stage:
        assert request is stage is None


def test_a_step_is_a_part_of_its_request_and_outside_of_one_there_is_none() -> None:
    with traced() as spans:
        with span("alone") as alone:
            assert alone is None
        with request_span("request"), span("stage", {"level": "full"}), span("store"):
            pass
    (request,) = spans.named("request")
    assert spans.below(request) == {"stage"}
    assert spans.below(spans.named("stage")[0]) == {"store"}
    assert dict(spans.named("stage")[0].attributes or {}) == {"level": "full"}
    assert request.resource.attributes["service.name"] == "test"


def test_the_trace_of_the_caller_goes_on_and_theirs_is_the_choice_whether() -> None:
    with traced(share=0.0) as spans:
        for sampled in (True, False):
            with request_span("request", TRACE, SPAN, sampled=sampled):
                pass
        with request_span("ours"):
            pass
    (one,) = spans.named("request")
    assert one.context is not None
    assert one.parent is not None
    assert (f"{one.context.trace_id:032x}", f"{one.parent.span_id:016x}") == (TRACE, SPAN)
    assert spans.named("ours") == []


def test_of_an_error_only_its_kind_is_told() -> None:
    with traced() as spans, pytest.raises(LookupError), request_span("request"), span("stage"):
        raise LookupError("Nobody has the id 987654.")
    assert spans.named("stage")[0].status.description == "LookupError"
    assert "987654" not in spans.text()


def test_traces_are_sent_to_where_the_settings_say_and_the_last_ones_before_the_end() -> None:
    with collector() as receiver:
        assert start_tracing(Settings(tracing={"endpoint": receiver.url, "share": 1.0}), "test")
        with request_span("POST /asked"):
            pass
        stop_tracing()
        assert b"POST /asked" in b"".join(receiver.bodies)

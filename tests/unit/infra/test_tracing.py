from pathlib import Path

import pytest

from infra.settings import Settings
from infra.tracing import request_span, span, start_tracing
from tests.spans import traced

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

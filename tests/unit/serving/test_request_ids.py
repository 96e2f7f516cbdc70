from uuid import UUID

import pytest

from serving.api.request_ids import TraceParent, accept_request_id, accept_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "theirs",
    [
        "0b6f3c52-14ce-4a0c-8d5a-5a0f2b3f4a10", "01J9Z3NDEKTSV4RRFFQ69G5FAV", "7", "web-3/42", "a.b_c~d:e+f=",
        "user@host",
        "Root=1-67891233-abcdef012345678912345678", "x" * 128,
    ],
)  # fmt: skip
def test_an_id_of_any_sane_form_is_kept(theirs: str) -> None:
    assert accept_request_id(theirs.encode()) == theirs


@pytest.mark.parametrize(
    "theirs",
    [
        None, b"", b" ", b"x" * 129, b"a b", b"'; drop table users; --", b'"', b"\\", b"a\n", b"{7}", b"<a>", b"\xff",
        "é".encode(),
    ],
)  # fmt: skip
def test_any_other_is_replaced_by_a_uuid(theirs: bytes | None) -> None:
    assert UUID(accept_request_id(theirs)).version == 4


@pytest.mark.parametrize(
    ("header", "sampled"),
    [(f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-00", False), (f"01-{TRACE}-{SPAN}-03-later", True)],
)
def test_a_trace_of_the_caller_is_taken_up(header: str, sampled: bool) -> None:  # noqa: FBT001
    assert accept_traceparent(header.encode()) == TraceParent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None, b"", b"00", f"ff-{TRACE}-{SPAN}-01".encode(), f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(), f"00-{TRACE}-{SPAN}-01-more".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(), f"00-{TRACE}-{SPAN}-01\n".encode(), b"x" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_trace_is_none(header: bytes | None) -> None:
    assert accept_traceparent(header) is None

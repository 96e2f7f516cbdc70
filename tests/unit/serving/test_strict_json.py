import pytest

from serving.api.strict_json import MAX_DEPTH, check
from serving.errors import MalformedBody

REFUSED = {
    "nothing": b"",
    "blank": b"  \n",
    "half an object": b'{"user_id": 1',
    "an array": b"[1]",
    "a number": b"1",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice inside": b'{"a": {"b": 1, "b": 1}}',
    "a lone surrogate": rb'{"a": "\ud800"}',
    "a lone surrogate as a key": rb'{"\udfff": 1}',
    "NUL in text": rb'{"a": "x\u0000y"}',
    "bytes that are not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "deep nesting": b'{"a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
    "very deep nesting": b'{"a":' + b"[" * 30_000,
    "a number of ten thousand digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "a trailing comma": b'{"a": 1,}',
    "two documents": b"{}{}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        check(body)


def test_a_key_that_comes_twice_is_named() -> None:
    with pytest.raises(MalformedBody, match='names "limit" twice'):
        check(b'{"user_id": 1, "limit": 5, "filters": {"age_min": 20}, "limit": 6}')


@pytest.mark.parametrize("body", [b"{}", b'{"a": [1, 2.5, true, null, "\xc3\xa9"]}', rb'{"a": "\ud83d\ude00"}'])
def test_strict_json_passes(body: bytes) -> None:
    check(body)

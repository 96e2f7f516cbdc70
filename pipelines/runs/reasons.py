"""Why a step failed, in the one sentence that a person reads."""

from typing import Any


def innermost_reason(error: Any) -> str:
    """Return the sentence of the innermost cause: that is where our own errors are."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "no reason was recorded"
    text = " ".join(str(error.message).split())
    name, colon, told = text.partition(": ")
    return told if colon and "." in name and " " not in name else text

"""What one HTTP request carries from the request checks to the code that answers it.

Held in a context variable, because BentoML hands a method its input and nothing else.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from serving.access.authentication import Caller


@dataclass
class RequestContext:
    """One request: its id, when it came in (monotonic, s), and whether its answer already has our shape.

    `request_id` may be the client's, and be used again; `answer_id` is ours, where the answer is logged under one.
    `headers` have names in lower case. `caller` is set once the request was let in. `route` is the path of the call
    that is asked for, as the document names it.
    """

    request_id: str
    started_s: float
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    caller: Caller | None = field(default=None)
    answered_by_us: bool = field(default=False)
    answer_id: UUID | None = field(default=None)
    route: str | None = field(default=None)


_current: ContextVar[RequestContext | None] = ContextVar("duet_request", default=None)


def enter(context: RequestContext) -> None:
    """Make `context` the current request of this task."""
    _current.set(context)


def current() -> RequestContext:
    """Return the current request; outside of one, a new nameless context."""
    return _current.get() or RequestContext(str(uuid4()), 0.0)

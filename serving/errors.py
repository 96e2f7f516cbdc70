"""What serving refuses or cannot do, and how HTTP says so.

Each class below `ApiError` carries its HTTP status and its stable code; only `serving.api.middleware` turns it into the
envelope. `Degraded` errors never reach a client: they make the ladder step down a level.

    DuetError
    └── ServingError
        ├── ApiError                    has a status and a code
        │   ├── MalformedBody           400  not JSON as RFC 8259 means it
        │   ├── Unauthorized            401  no key, or none that counts
        │   ├── LikesPrivate            403  who likes somebody is told to nobody here
    │   ├── VariantForbidden        403  only testers choose the arm of an experiment
        │   ├── UnknownUser             404  nobody has this id
        │   ├── UnknownPath             404  no such route
        │   ├── WrongMethod             405  the route exists for another method
        │   ├── BodyTimeout             408  the body did not arrive in time
        │   ├── EventConflict           409  the event id belongs to another interaction
        │   ├── BodyTooLarge            413  more bytes than settings allow
        │   ├── UnsupportedMediaType    415  not plain JSON
        │   ├── InvalidRequest          422  JSON of the wrong shape
        │   ├── RateLimited             429  the key's calls of this minute are used up
        │   ├── InternalError           500  a defect of ours
        │   ├── KeysUnavailable         503  the table of keys could not be read yet
        │   ├── Overloaded              503  more calls at once than this worker can do in time
        │   ├── StorageUnavailable      503  the database did not answer
        │   └── RequestTimeout          504  not answered in time
        ├── KeyNameTaken                another API key has this name
        ├── AmbiguousKey                id of one key and name of another
        ├── NoSuchKey                   no API key has this id or name
        ├── NotServing                  `duet recommend` found no serving app
        ├── RefusedByService            `duet recommend` was answered with an error
        ├── DeliveryFailed              the webhook did not take an event: it is sent again
        ├── NotConsuming                `duet stream --alive` found no consumer at work
        ├── StreamMoved                 another process stored of this stream since it was read: it is read again
        ├── BreakerOpen                 a dependency failed a moment ago and is not asked again yet
        ├── RankerServiceFailed         the ranker's service answered with something else than probabilities
        ├── FeaturesUnavailable         the online store did not answer: older features are used
        │   └── FeaturesLost            it answers, but lost people since it was filled
        ├── Overtaken                   a newer order for releases came while an older one was carried out
        ├── SnapshotError
        │   ├── UnusableGeneration      files of a snapshot that are damaged, or of another version or source
        │   ├── TooManyChanges          more changed than a refresh in place may read: it is written anew
        │   └── BuildFailed             the process that writes the snapshot ended without one
        └── Degraded                    carries the reason the answer will name
            ├── LevelUnavailable        this level cannot answer now
            └── EligibilityUnknown      who may be shown cannot be established: nobody is
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Self

from infra.errors import DuetError
from serving.reasons import Reason


class ServingError(DuetError):
    """Base of everything serving raises on purpose."""


class ApiError(ServingError):
    """A refusal with an HTTP status and a stable code."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, message: str, details: list[dict[str, str]] | None = None, *, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or []
        self.retry_after_s = retry_after_s


class MalformedBody(ApiError):
    """The body is not JSON as RFC 8259 means it."""

    status = 400
    code = "malformed_body"


class Unauthorized(ApiError):
    """No key, or none that counts."""

    status = 401
    code = "unauthorized"
    headers = MappingProxyType({"www-authenticate": "Bearer"})


class LikesPrivate(ApiError):
    """Who likes somebody is told to nobody here."""

    status = 403
    code = "likes_private"


class VariantForbidden(ApiError):
    """Only testers choose the arm of an experiment."""

    status = 403
    code = "variant_forbidden"


class UnknownUser(ApiError):
    """Nobody has this id."""

    status = 404
    code = "unknown_user"

    @classmethod
    def named(cls, name: int | str, fields: Sequence[str] = ("user_id",)) -> Self:
        """Return the refusal of an id; `fields` of the request name it."""
        return cls(
            f"Nobody has the id {name}.", [{"field": field, "message": "nobody has this id"} for field in fields]
        )


class UnknownPath(ApiError):
    """No such route."""

    status = 404
    code = "unknown_path"


class WrongMethod(ApiError):
    """The route exists for another method; `allowed` names those it has, where that is known."""

    status = 405
    code = "wrong_method"

    def __init__(
        self, message: str, details: list[dict[str, str]] | None = None, *, allowed: Sequence[str] = ()
    ) -> None:
        super().__init__(message, details)
        if allowed:
            self.headers = {"allow": ", ".join(allowed)}


class BodyTimeout(ApiError):
    """The body did not arrive in time."""

    status = 408
    code = "body_timeout"


class EventConflict(ApiError):
    """The event id belongs to another interaction."""

    status = 409
    code = "event_conflict"


class BodyTooLarge(ApiError):
    """More bytes than settings allow."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaType(ApiError):
    """Not plain JSON."""

    status = 415
    code = "unsupported_media_type"


class InvalidRequest(ApiError):
    """JSON of the wrong shape."""

    status = 422
    code = "invalid_request"


class RateLimited(ApiError):
    """The key's calls of this minute are used up."""

    status = 429
    code = "rate_limited"


class InternalError(ApiError):
    """A defect of ours; the log has the cause, the client does not."""


class KeysUnavailable(ApiError):
    """The table of keys could not be read yet."""

    status = 503
    code = "keys_unavailable"


class Overloaded(ApiError):
    """More calls at once than this worker can do in time."""

    status = 503
    code = "overloaded"


class StorageUnavailable(ApiError):
    """The database did not answer."""

    status = 503
    code = "storage_unavailable"


class RequestTimeout(ApiError):
    """Not answered in time."""

    status = 504
    code = "timeout"


class KeyNameTaken(ServingError):
    """Another API key has this name."""


class AmbiguousKey(ServingError):
    """What was said is the id of one key and the name of another."""


class NoSuchKey(ServingError):
    """No API key has this id or name."""


class NotServing(ServingError):
    """The command line found no serving app."""


class RefusedByService(ServingError):
    """The command line was answered with an error."""


class DeliveryFailed(ServingError):
    """The webhook did not take an event: it is sent again, until it is too old."""


class NotConsuming(ServingError):
    """No consumer of streams works on this data folder."""


class StreamMoved(ServingError):
    """Another process stored of this stream since it was read: it is read again."""


class BreakerOpen(ServingError):
    """A dependency failed a moment ago; it may be asked again in `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RankerServiceFailed(ServingError):
    """The ranker's service answered with something else than probabilities: the worker predicts itself."""


class FeaturesUnavailable(ServingError):
    """The online store did not answer: older features are used; `late` when more time might have been enough."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class FeaturesLost(FeaturesUnavailable):
    """The online store answers, but was emptied or has lost people since it was filled."""


class Overtaken(ServingError):
    """A newer order for releases came while an older one was carried out: the older one changes nothing."""


class SnapshotError(ServingError):
    """The snapshot of people could not be read, refreshed or written: the last one stays."""


class UnusableGeneration(SnapshotError):
    """The files of a snapshot are damaged, or of another version or source."""


class TooManyChanges(SnapshotError):
    """More changed than a refresh in place may read: the snapshot is written anew."""


class BuildFailed(SnapshotError):
    """The process that writes the snapshot ended without one."""


class Degraded(ServingError):
    """A reason to answer less well; `reason` is what the answer names."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LevelUnavailable(Degraded):
    """This level cannot answer now: the next one tries."""


class EligibilityUnknown(Degraded):
    """Who may be shown cannot be established: nobody is; `late` when more time might have been enough."""

    def __init__(self, reason: Reason, message: str, *, late: bool = False) -> None:
        super().__init__(reason, message)
        self.late = late

"""The mark that a full materialisation leaves in the online store: where it is gone, what was filled in is gone too.

Redis that restarted without persistence, was flushed or failed over to an empty copy answers as before, only that it
knows nobody. The mark is set when a filling ends, and only if the store was not emptied while it went on.
"""

from typing import Final

import redis

from feature_repo.schema import layout_digest
from infra.endpoints import Endpoints
from infra.redis import connect
from infra.settings import Settings

_LOOK_S: Final = 2.0


def begin(client: redis.Redis, project: str) -> None:
    """Note that a filling goes on; raises what redis raises."""
    client.set(_key(project, "filling"), 1)


def end(client: redis.Redis, project: str) -> bool:
    """Mark the store as filled and return True; False where it was emptied since `begin`."""
    try:
        client.rename(_key(project, "filling"), _key(project, "filled"))
    except redis.ResponseError:
        return False
    return True


def is_marked(client: redis.Redis, project: str) -> bool:
    """Tell whether the mark is there; raises what redis raises."""
    return bool(client.exists(_key(project, "filled")))


def forget(client: redis.Redis, project: str) -> None:
    """Take the mark away: the store does not hold what it was filled with; raises what redis raises."""
    client.delete(_key(project, "filled"))


def was_emptied(settings: Settings, endpoints: Endpoints) -> bool:
    """Tell whether a store that was filled before lost its mark; False while it does not answer, or leaves none."""
    if settings.features.online_store != "fail_fast":
        return False
    try:
        with connect(endpoints.redis_url, settings.redis, socket_timeout_s=_LOOK_S) as client:
            return not is_marked(client, settings.features.project)
    except redis.RedisError:
        return False


def _key(project: str, what: str) -> str:
    # Of another catalogue, everybody's rows are missing, too.
    return f"duet:features:{project}:{layout_digest()[:12]}:{what}"

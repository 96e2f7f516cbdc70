"""What Redis holds of a person: their features online, and the answers that serving keeps for them."""

from typing import Any, Final

import redis

from infra.errors import ServerUnavailable
from infra.redis import connect
from pipelines.upkeep.erasure.found import Gone, PlaceFound

_SCANNED: Final = 1_000


def erase_features(gone: Gone) -> PlaceFound:
    """Delete everything that the online store has of the person; raises FeatureStoreUnavailable."""
    from feature_repo.store import open_feature_store, own_store

    store = open_feature_store(gone.platform.settings, gone.platform.endpoints)
    own = own_store(store)
    if own is None:
        return PlaceFound(0, 1, "the online store is not ours: delete the row of the person there")
    before, after = own.forget_person(store.config, gone.user_id)
    return PlaceFound(int(before), int(after))


def erase_kept_answers(gone: Gone) -> PlaceFound:
    """Delete the answers that are kept for the person; those of others that name them expire by themselves.

    Raises ServerUnavailable.
    """
    settings = gone.platform.settings
    pattern = f"{settings.features.project}:answer:*:{gone.user_id}:*"
    try:
        with connect(gone.platform.endpoints.redis_url, settings.redis, socket_timeout_s=30.0) as client:
            before = _deleted(client, pattern)
            after = sum(1 for _ in client.scan_iter(pattern, _SCANNED))
    except redis.RedisError as error:
        raise ServerUnavailable(f"Redis does not answer: {error}.") from error
    if gone.now < gone.cached_until:
        until = f"{gone.cached_until:%Y-%m-%d %H:%M} UTC"
        return PlaceFound(before, after, f"answers for others that name them expire by {until}")
    return PlaceFound(before, after)


def _deleted(client: redis.Redis, pattern: str) -> int:
    keys: list[Any] = list(client.scan_iter(pattern, _SCANNED))
    return int(client.delete(*keys)) if keys else 0  # type: ignore[arg-type]

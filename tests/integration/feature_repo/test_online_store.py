"""The packed path and Feast's own path read and write the same bytes; a slow or dead Redis is an error at once."""

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis.connection import AbstractConnection

from feature_repo.errors import CatalogueNotApplied, FeatureStoreUnavailable
from feature_repo.layout import ACTIVITY, ATTRIBUTES, PROFILE, VIEWS
from feature_repo.store import EPOCH, PersonReader, apply_catalogue, materialize, open_feature_store, read_people
from infra.endpoints import Endpoints
from infra.settings import Settings

T = datetime(2026, 3, 1, tzinfo=UTC)


def stock(settings: Settings, endpoints: Endpoints) -> Any:
    features = settings.features.model_copy(update={"online_store": "redis"})
    return open_feature_store(settings.model_copy(update={"features": features}), endpoints)


def some_people(put: Any) -> None:
    rng = np.random.default_rng(0)
    for user_id in range(1, 30):
        put(PROFILE, user_id, T - timedelta(days=user_id), birth_day=rng.integers(0, 9000), n_interests=user_id)
        if user_id % 3:
            put(ATTRIBUTES, user_id, T, attribute_05=rng.normal())


def assert_same(one: Any, other: Any) -> None:
    assert one.user_ids.tolist() == other.user_ids.tolist()
    for mine, theirs in zip(one.views, other.views, strict=True):
        np.testing.assert_array_equal(mine.view(np.uint32), theirs.view(np.uint32))


def test_single_features_are_read_by_name_like_from_the_stock_store(
    store: Any, put: Any, connected_settings: Settings, endpoints: Endpoints
) -> None:
    some_people(put)
    plain = stock(connected_settings, endpoints)
    materialize(store, T)
    packed = read_people(store, range(40), chunk=7)
    assert len(packed) == 29
    asked = {
        "features": ["user_attributes:attribute_05", "user_profile:n_interests", "user_profile:birth_day"],
        "entity_rows": [{"user_id": 4}, {"user_id": 99}, {"user_id": 3}],
    }
    ours = store.get_online_features(**asked).to_dict()
    assert ours["n_interests"] == [4.0, None, 3.0]
    assert ours["attribute_05"] == [packed.attributes[packed.positions([4])[0], 5], None, None]
    materialize(plain, T, since=EPOCH)
    assert_same(packed, read_people(plain, range(40)))
    assert plain.get_online_features(**asked).to_dict() == ours


def test_feast_s_own_materialisation_writes_what_ours_writes(store: Any, put: Any, redis_client: Any) -> None:
    some_people(put)
    store.materialize(T - timedelta(days=99), T)
    theirs = read_people(store, range(40))
    redis_client.flushdb()
    materialize(store, T)
    assert_same(theirs, read_people(store, range(40)))


def test_a_row_of_some_features_leaves_the_others_as_they_are(store: Any) -> None:
    online = store._get_provider().online_store
    view = store.get_feature_view(ACTIVITY.name)
    who = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=7)])
    first = {name: Value(float_val=place) for place, name in enumerate(ACTIVITY.columns)}
    online.online_write_batch(store.config, view, [(who, first, T, None)], None)
    later = T + timedelta(seconds=1)
    some = [(who, {"likes_sent_30d": Value(float_val=50)}, later, None), (who, first, T, None)]
    online.online_write_batch(store.config, view, some, None)
    assert read_people(store, [7]).activity[0].tolist() == [0, 50, *range(2, ACTIVITY.width)]
    online.delete_table(store.config, view)
    assert len(read_people(store, [7])) == 0


def test_the_stores_of_one_machine_give_the_same_people(
    store: Any, put: Any, connected_settings: Settings, endpoints: Endpoints
) -> None:
    some_people(put)
    materialize(store, T)
    features = connected_settings.features.model_copy(update={"online_store": "sqlite", "registry": "file"})
    local = open_feature_store(connected_settings.model_copy(update={"features": features}), endpoints)
    apply_catalogue(local)
    materialize(local, T)
    assert_same(read_people(store, range(40)), read_people(local, range(40)))
    assert sorted(file.name for file in (connected_settings.data_dir / "feast").iterdir()) == [
        "online.db",
        "registry.db",
    ]


def test_an_older_row_never_replaces_a_newer_one(store: Any) -> None:
    online = store._get_provider().online_store
    view = store.get_feature_view(ACTIVITY.name)
    row = ACTIVITY.default_rows(1)
    newer, older = np.array([2_000_000]), np.array([1_000_000])
    row[0, 0] = 2
    assert online.write_packed(store.config, view, np.array([7]), row, newer) == 1
    row[0, 0] = 1
    assert online.write_packed(store.config, view, np.array([7]), row, older) == 0
    assert read_people(store, [7]).activity[0, 0] == 2


def test_rows_of_another_catalogue_are_neither_misread_nor_kept(store: Any) -> None:
    online = store._get_provider().online_store
    view, older = store.get_feature_view(ACTIVITY.name), store.get_feature_view(ACTIVITY.name)
    older.features = older.features[:-1]
    row, at = ACTIVITY.default_rows(1), np.array([1_000_000])
    assert online.write_packed(store.config, older, np.array([7]), row[:, :-1], at) == 1
    assert len(read_people(store, [7])) == 0
    assert online.write_packed(store.config, view, np.array([7]), row, at) == 1
    assert len(read_people(store, [7])) == 1


def test_a_store_that_was_filled_for_another_catalogue_counts_as_emptied(
    store: Any, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_people(put)
    materialize(store, T)
    reader = PersonReader(store)
    assert not reader.was_emptied()
    monkeypatch.setattr("feature_repo.stores.filling.layout_digest", lambda: "f" * 64)
    assert reader.was_emptied()


def test_people_are_read_in_one_round_trip(store: Any, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    some_people(put)
    materialize(store, T)
    reader = PersonReader(store)
    assert reader.read(3) is not None  # connects
    sent: list[int] = []
    send = AbstractConnection.send_packed_command

    def counted(connection: Any, command: Any, **how: Any) -> None:
        sent.append(1)
        send(connection, command, **how)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    assert reader.read(4, at=T.timestamp()) is not None
    assert len(sent) == 1
    assert len(reader.read_many(range(40))) == 29
    assert len(sent) == 2


def test_a_silent_redis_is_an_error_within_the_time_limit(
    store: Any, connected_settings: Settings, endpoints: Endpoints
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lost = Endpoints(endpoints.database_url, f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        reader = PersonReader(open_feature_store(connected_settings, lost))
        with pytest.raises(FeatureStoreUnavailable, match="does not answer"):
            reader.read(1)


def test_a_reply_with_an_error_in_it_does_not_poison_the_connection(store: Any, put: Any, redis_client: Any) -> None:
    some_people(put)
    materialize(store, T)
    online = store._get_provider().online_store
    key = online._keys(store.config, np.array([2], "<i8"))[0]
    redis_client.delete(key)
    redis_client.set(key, "not a hash")
    reader = PersonReader(store)
    with pytest.raises(FeatureStoreUnavailable, match="WRONGTYPE"):
        reader.read_many([1, 2, 3, 4])
    for user_id in (1, 3, 4):
        person = reader.read(user_id)
        assert person is not None
        assert person.profile[0, PROFILE.index("n_interests")] == user_id


def test_reading_without_a_catalogue_says_what_to_do(
    store: Any, connected_settings: Settings, endpoints: Endpoints
) -> None:
    features = connected_settings.features.model_copy(update={"project": "another"})
    empty = open_feature_store(connected_settings.model_copy(update={"features": features}), endpoints)
    with pytest.raises(CatalogueNotApplied, match="run `duet train --job materialize_features`"):
        PersonReader(empty)


def test_a_catalogue_that_lacks_a_feature_is_not_read(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    view = store.get_feature_view(ACTIVITY.name)
    view.features = view.features[1:]
    monkeypatch.setattr(store, "get_feature_view", lambda name: view if name == ACTIVITY.name else real(name))
    real = type(store).get_feature_view.__get__(store)
    with pytest.raises(
        CatalogueNotApplied, match=r"lacks likes_sent_7d of user_activity: run `duet train --job materialize_features`"
    ):
        PersonReader(store)


def test_nobody_is_read_when_nobody_is_asked_for(store: Any) -> None:
    assert len(read_people(store, [])) == 0
    assert len(read_people(store, [5, 6], at=T.timestamp())) == 0


def test_applying_the_catalogue_again_keeps_what_was_materialised(store: Any, put: Any) -> None:
    some_people(put)
    materialize(store, T)
    apply_catalogue(store)
    assert [view.most_recent_end_time for view in (store.get_feature_view(layout.name) for layout in VIEWS)] == [T] * 4
    assert materialize(store, T).rows == 0

"""Hashed ids: exact in JSON, the same for every spelling of a UUID, and unchanged for whoever has one already."""

import hashlib

import pyarrow as pa

from feature_repo.contract.identities import LARGEST_EXACT, former_ids, hashed_id
from pipelines.ingest.columns.identities import hashed_ids, nobody

UUID = "0b6f5f4e-8c7b-4d6e-9a3f-1b2c3d4e5f60"


def hashed_before(source_id: str) -> int:
    """Return the id that earlier versions gave."""
    return int.from_bytes(hashlib.blake2b(source_id.encode(), digest_size=8).digest(), "big") & (2**63 - 1)


def test_new_ids_are_exact_in_json() -> None:
    assert all(1 <= hashed_id(str(number)) <= LARGEST_EXACT for number in range(2_000))
    assert len({hashed_id(str(number)) for number in range(2_000)}) == 2_000


def test_a_uuid_is_the_same_person_however_it_is_cased_and_a_name_is_not() -> None:
    assert hashed_id(UUID) == hashed_id(UUID.upper())
    assert hashed_id("ann") != hashed_id("Ann")


def test_people_who_have_a_longer_id_keep_it_and_new_ones_get_a_short_one() -> None:
    there = {hashed_before("ann"), hashed_before(UUID.upper())}

    def known(ids: list[int]) -> set[int]:
        return there & set(ids)

    found = hashed_ids(pa.array(["ann", "bob", None, UUID, "ann"]), known).to_pylist()
    assert found == [
        hashed_before("ann"),
        hashed_id("bob"),
        None,
        hashed_before(UUID.upper()),
        hashed_before("ann"),
    ]
    assert hashed_ids(pa.array(["ann"]), nobody).to_pylist() == [hashed_id("ann")]


def test_the_longer_ids_asked_for_are_those_that_were_given() -> None:
    assert set(former_ids("ann")) == {hashed_before("ann")}
    assert set(former_ids(UUID)) == {hashed_before(UUID), hashed_before(UUID.upper())}

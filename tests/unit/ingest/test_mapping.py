"""`mapping.yaml`: what is accepted, and that every refusal is one sentence that names the place."""

from pathlib import Path

import pytest

from pipelines.ingest.errors import RefusedMapping
from pipelines.ingest.frames import hashed_id
from pipelines.ingest.mapping import InteractionsMapping, Mapping, PeopleMapping, load_mapping, resolve


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("people: {colour: x}", "people.colour.*extra inputs"),
        ("people: {gender: {column: a, constant: b}}", "either `column` or `constant`"),
        ("people: {gender: {}}", "either `column` or `constant`"),
        ("interactions: {kind: a, rating: {column: b, like_at_or_above: 3}}", "either `kind` or `rating`"),
        ("interactions: {rating: {column: b, like_at_or_above: .nan}}", "finite"),
        ("interactions: {occurred_at: {column: a, unit: weeks}}", "unit"),
        ("interactions: {occurred_at: {column: a, timezone: Mars/Base}}", "not a time zone"),
        ("delimiter: '||'", "delimiter"),
        ("people: [", "is not YAML"),
        ("- a", "valid dictionary"),
    ],
)
def test_a_wrong_mapping_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(RefusedMapping, match=f"(?i){sentence}") as refused:
        load_mapping(path)
    assert "\n" not in str(refused.value)


def test_a_missing_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedMapping, match="cannot be read"):
        load_mapping(tmp_path / "none.yaml")


def test_an_empty_mapping_is_the_contract_itself(tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text("")
    assert load_mapping(tmp_path / "mapping.yaml") == Mapping()


def test_columns_of_the_contract_need_no_mapping_and_the_rest_is_left_over() -> None:
    origins, extras = resolve(PeopleMapping(), ["user_id", "gender", "height"], Path("p.csv"))
    assert (list(origins), extras) == (["user_id", "gender"], ["height"])


def test_a_mapped_column_wins_over_one_of_the_same_name_which_becomes_an_attribute() -> None:
    mapping = PeopleMapping.model_validate({"gender": "sex", "ignore": ["junk"]})
    origins, extras = resolve(mapping, ["user_id", "sex", "gender", "junk"], Path("p.csv"))
    assert origins["gender"].column == "sex"
    assert extras == ["gender"]


def test_short_names_and_long_names_of_an_interaction_mean_the_same() -> None:
    for header in (["actor", "target", "time", "kind"], ["actor_id", "target_id", "occurred_at", "kind"]):
        origins, extras = resolve(InteractionsMapping(), header, Path("i.csv"))
        assert set(origins) == {"actor_id", "target_id", "occurred_at", "kind"}
        assert extras == []


def test_numbers_as_keys_of_a_value_map_are_read_as_text() -> None:
    mapping = PeopleMapping.model_validate({"gender": {"column": "g", "values": {0: "woman", 1: "man"}}})
    assert mapping.gender is not None
    assert mapping.gender.values == {"0": "woman", "1": "man"}


def test_a_hashed_id_is_stable_positive_and_fits_a_bigint() -> None:
    assert hashed_id("ann") == hashed_id("ann") != hashed_id("bob")
    assert all(1 <= hashed_id(str(number)) <= 2**63 - 1 for number in range(1000))

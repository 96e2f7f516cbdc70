"""`mapping.yaml`: what is accepted, and that every refusal is one sentence that names the place."""

from pathlib import Path

import pytest

from feature_repo.contract.identities import hashed_id
from pipelines.ingest.columns.mapping import InteractionsMapping, Mapping, PeopleMapping
from pipelines.ingest.columns.mapping_file import load_mapping
from pipelines.ingest.columns.resolution import resolve
from pipelines.ingest.errors import RefusedMapping


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("people: {colour: x}", "people.colour.*`colour` is no key here; the keys are `user_id`"),
        ("people: {gender: {column: a, constant: b}}", "either `column` or `constant`"),
        ("people: {gender: {}}", "either `column` or `constant`"),
        ("interactions: {kind: a, rating: {column: b, like_at_or_above: 3}}", "either `kind` or `rating`"),
        ("interactions: {rating: {column: b, like_at_or_above: .nan}}", "should be a.* number"),
        ("interactions: {occurred_at: {column: a, unit: weeks}}", "unit"),
        ("interactions: {occurred_at: {column: a, timezone: Mars/Base}}", "not a time zone"),
        ("delimiter: '||'", "delimiter"),
        ("people: [", "is not YAML"),
        ("- a", "should be a map; its keys are `people`"),
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
    found = resolve(PeopleMapping(), ["user_id", "gender", "height"], Path("p.csv"))
    assert (list(found.origins), found.left) == (["user_id", "gender"], ["height"])


def test_a_mapped_column_wins_over_one_of_the_same_name_which_becomes_an_attribute() -> None:
    mapping = PeopleMapping.model_validate({"gender": "sex", "ignore": ["junk"]})
    found = resolve(mapping, ["user_id", "sex", "gender", "junk"], Path("p.csv"))
    assert found.origins["gender"].column == "sex"
    assert found.left == ["gender"]


def test_short_names_and_long_names_of_an_interaction_mean_the_same() -> None:
    for header in (["actor", "target", "time", "kind"], ["actor_id", "target_id", "occurred_at", "kind"]):
        found = resolve(InteractionsMapping(), header, Path("i.csv"))
        assert set(found.origins) == {"actor_id", "target_id", "occurred_at", "kind"}
        assert found.left == []


def test_numbers_as_keys_of_a_value_map_are_read_as_text() -> None:
    mapping = PeopleMapping.model_validate({"gender": {"column": "g", "values": {0: "woman", 1: "man"}}})
    assert mapping.gender is not None
    assert mapping.gender.values == {"0": "woman", "1": "man"}


def test_a_value_may_stand_in_two_spellings_that_mean_the_same() -> None:
    values = {"M": "man", "m": "man", "1": "x", "1.0": "X"}
    mapping = PeopleMapping.model_validate({"gender": {"column": "g", "values": values}})
    assert mapping.gender is not None
    assert mapping.gender.values == {"M": "man", "m": "man", "1": "x", "1.0": "x"}


def test_a_hashed_id_is_stable_positive_and_is_exact_in_json() -> None:
    assert hashed_id("ann") == hashed_id("ann") != hashed_id("bob")
    assert all(1 <= hashed_id(str(number)) <= 2**53 - 1 for number in range(1000))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("interactions: {actor: a, actor: b}", "the key `actor` stands in line 1 and again in line 1"),
        ("people:\n  gender: a\npeople:\n  bio: b", "the key `people` stands in line 1 and again in line 3"),
        ("? [a]\n: b", "a key must be text"),
        ("people: {gender: {column: a, hash: true}}", "at `people`: `gender` does not obey `hash`, only `column`"),
        ("people: {user_id: {column: a, separator: x}}", "`user_id` does not obey `separator`"),
        ("people: {birth_date: {column: a, timezone: UTC}}", "`birth_date` does not obey `timezone`"),
        ("people: {bio: {column: a, values: {a: b}}}", "`bio` does not obey `values`"),
        ("interactions: {time: {column: a, values: {a: b}}}", "`time` does not obey `values`"),
        ("interactions: {time: {column: a, format: '%Y', unit: s}}", "either `format` .* or `unit`"),
        ("interactions: {time: {column: a, unit: s, timezone: UTC}}", "obeys no `timezone`"),
        ("interactions: {time: {column: a, format: '%Y %z', timezone: UTC}}", "leave `timezone` out"),
        ("interactions: {kind: {column: a, values: {yes: likes}}}", "`kind` has no value `likes`; it has `like`"),
        ("people: {gender: {column: a, values: {}}}", "`values` is empty"),
        ("people: {gender: {column: a, values: [b]}}", "at `people.gender.values`: should be a map of source value"),
        ("people: {user_id: [a]}", "at `people.user_id`: should be the name of a column, or a map with `column`"),
        ("people: {user_id: {column: [a]}}", "at `people.user_id.column`: should be the name of a column"),
        ("people: {user_id: {constant: 5}}", "same `user_id`"),
        ("people: {genderr: a}", "did you mean `gender`"),
        ("peeple: {gender: a}", "at `peeple`: `peeple` is no key here; did you mean `people`"),
        ("people: a", "at `people`: should be a map; its keys are `user_id`"),
        ("interactions: {rating: stars}", "at `interactions.rating`: should be a map with `column` and `like_at"),
        ("interactions: {rating: {column: a}}", "at `interactions.rating.like_at_or_above`: is missing"),
        ("interactions: {rating: {column: a, like_at_or_above: many}}", "should be a number"),
        ("interactions: {actor: {column: a, hash: maybe}}", "`true` or `false`"),
        ("interactions: {actor: a, target: a}", "`actor` and `target` both read the column `a`"),
        (
            "people: {gender: {column: g, values: {M: man, m: woman}}}",
            "`M` and `m` are one value",
        ),
        ("people: {gender: {column: g, values: {1: man, 1.0: woman}}}", "`1` and `1.0` are one value"),
        ("interactions: {event_id: {constant: 5}}", "every interaction the same `event_id`"),
        ("interactions: {actor: {constant: 5}, target: {constant: 5}}", "`actor` and `target` are both `5`"),
        ("interactions: {time: {column: a, unit: weeks}}", "`weeks` is not known; give `s`, `ms`, `us` or `ns`"),
        ("interactions: {time: {column: a, timezone: Mars/Base}}", "`Mars/Base` is not a time zone"),
        ("interactions: {time: {column: a, timezone: Factory}}", "`Factory` is not a time zone"),
        ("null_values: {a: b}", "at `null_values`: should be a list of texts"),
        ("delimiter: ö", "`ö` cannot be a delimiter"),
        ("delimiter: '\"'", "cannot be a delimiter"),
        ("quote: single", "`single` is not known; give `double` or `none`"),
        ("[" * 3000, "is not YAML"),
    ],
)
def test_what_a_mapping_says_wrong_is_told_in_the_words_of_its_author(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(RefusedMapping, match=sentence) as refused:
        load_mapping(path)
    told = str(refused.value)
    assert "\n" not in told
    assert not [word for word in ("Input", "instance", "tuple", "PeopleMapping", "peoplemapping") if word in told]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("%s", "`%s`, which nothing is read by; for seconds since 1970 use `unit: s`"),
        ("%Q", "`%Q`, which nothing is read by"),
        ("%Y-%m-%d %", "ends with a single `%`"),
        ("%Y %f%f", "`%f` more than once"),
        ("%G-%V", "cannot be read by: ISO year directive"),
        ("%H:%M", "reads no year"),
        ("%Y-%m-%d %H:%M %p", "has `%p` without `%I`; "),
        ("%Y-%m-%d %I:%M", "has `%I` without `%p`; .*`%H`"),
        ("%Y-%m-%d %H %I %p", "has both `%H` and `%I`"),
        ("%Y-%m-%b", "has both `%m` and `%b`"),
        ("%Y %y", "has both `%Y` and `%y`"),
        ("%Y-%d", "has `%d` without `%m`, `%b` or `%B`; "),
        ("%Y-%m %A", "has `%A` without `%d`"),
        ("%Y-%m-%d %M", "has `%M` without `%H` or `%I`"),
        ("%Y-%m-%d %H:%S", "has `%S` without `%M`"),
        ("%Y-%m-%d %H:%M:%f", "has `%f` without `%S`"),
        ("mixed", "reads nothing"),
        ("YYYY-MM-DD", "reads nothing"),
    ],
)
def test_a_format_that_reads_nothing_is_refused_with_what_to_write_instead(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(f"interactions: {{time: {{column: time, format: '{text}'}}}}")
    with pytest.raises(RefusedMapping, match=sentence):
        load_mapping(path)


@pytest.mark.parametrize(
    "text",
    ["%Y", "%Y-%m", "%Y %j", "%a %d %b %Y", "%G-%V-%u", "%Y-%U-%w", "%d.%m.%y %I:%M %p", "%Y-%m-%d %H:%M:%S.%f %z"],
)
def test_a_format_that_loses_nothing_is_accepted(text: str) -> None:
    mapping = InteractionsMapping.model_validate({"time": {"column": "time", "format": text}})
    assert mapping.occurred_at is not None
    assert mapping.occurred_at.format == text


def test_every_key_and_value_is_the_text_that_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(
        "people: {user_id: 1, gender: {column: g, values: {no: Woman, 010: man, 1.0: x, null: none}},"
        " ignore: 2024-01-01, visible: {column: on, values: {off: no}}, bio: ~}\n"
        "interactions:\n  kind: {constant: yes}\n  time: {constant: 2024-01-01}\n"
        "null_values: [-1, NA, null, no, 1e3]\n"
        "delimiter: tab\n"
    )
    found = load_mapping(path)
    people = found.people
    assert people.user_id is not None
    assert (people.user_id.column, people.bio, people.ignore) == ("1", None, ("2024-01-01",))
    assert people.gender is not None
    assert people.gender.values == {"no": "woman", "010": "man", "1.0": "x", "null": "none"}
    assert people.visible is not None
    assert (people.visible.column, people.visible.values) == ("on", {"off": "no"})
    assert found.interactions.occurred_at is not None
    assert found.interactions.occurred_at.constant == "2024-01-01"
    assert found.null_values == ("-1", "NA", "null", "no", "1e3")
    assert found.delimiter == "\t"


@pytest.mark.parametrize("text", ["people:", "people: {}\ninteractions:\nnull_values:\n", "# nothing\n", "{}"])
def test_an_empty_section_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    assert load_mapping(path) == Mapping()


def test_one_text_is_a_list_of_one(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text("null_values: NA\npeople: {ignore: junk}\n")
    found = load_mapping(path)
    assert (found.null_values, found.people.ignore) == (("NA",), ("junk",))


def test_an_anchor_may_be_used_twice(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text("interactions:\n  actor: &id {column: a, hash: true}\n  target: {<<: *id, column: b}\n")
    target = load_mapping(path).interactions.target_id
    assert target is not None
    assert (target.column, target.hash) == ("b", True)


@pytest.mark.parametrize(("written", "meant"), [("utc", "UTC"), ("europe/paris", "Europe/Paris")])
def test_a_time_zone_is_found_however_it_is_cased(written: str, meant: str) -> None:
    mapping = InteractionsMapping.model_validate({"time": {"column": "t", "timezone": written}})
    assert mapping.occurred_at is not None
    assert mapping.occurred_at.timezone == meant


def test_a_folder_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(RefusedMapping, match="is a folder"):
        load_mapping(tmp_path)

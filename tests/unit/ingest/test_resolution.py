"""Which source column is which contract column: case and outer blanks do not matter, and nothing is left unsaid."""

from pathlib import Path

import pytest

from pipelines.ingest.columns.mapping import InteractionsMapping, PeopleMapping
from pipelines.ingest.columns.resolution import close_to, left_over, resolve
from pipelines.ingest.errors import RefusedMapping

FILE = Path("p.csv")


def test_names_are_compared_without_case_and_outer_blanks() -> None:
    found = resolve(PeopleMapping(), ["USER_ID", "Gender", "Visible"], FILE)
    assert {name: source.column for name, source in found.origins.items()} == {
        "user_id": "USER_ID",
        "gender": "Gender",
        "visible": "Visible",
    }
    assert found.left == []
    events = resolve(InteractionsMapping(), ["Actor", "TARGET", "Kind", "Timestamp"], FILE)
    assert set(events.origins) == {"actor_id", "target_id", "kind", "occurred_at"}


def test_a_column_that_the_mapping_names_is_found_however_it_is_cased() -> None:
    mapping = PeopleMapping.model_validate({"gender": "sex", "ignore": "junk"})
    found = resolve(mapping, ["user_id", "Sex", "JUNK"], FILE)
    assert (found.origins["gender"].column, found.left) == ("Sex", [])
    rated = InteractionsMapping.model_validate({"rating": {"column": "stars", "like_at_or_above": 4}})
    rating = resolve(rated, ["Stars"], FILE).rating
    assert rating is not None
    assert rating.column == "Stars"


def test_two_columns_that_mean_the_same_are_refused_unless_the_mapping_chooses() -> None:
    header = ["user_id", "Visible", "visible"]
    with pytest.raises(RefusedMapping, match="2 columns that mean `visible`: `Visible`, `visible`"):
        resolve(PeopleMapping(), header, FILE)
    chosen = resolve(PeopleMapping.model_validate({"visible": "Visible"}), header, FILE)
    assert chosen.origins["visible"].column == "Visible"
    with pytest.raises(RefusedMapping, match="write it exactly as the file does"):
        resolve(PeopleMapping.model_validate({"visible": "VISIBLE"}), header, FILE)


def test_a_contract_name_wins_over_its_short_form() -> None:
    found = resolve(InteractionsMapping(), ["actor", "target", "kind", "timestamp", "occurred_at"], FILE)
    assert (found.origins["occurred_at"].column, found.left) == ("occurred_at", ["timestamp"])


def test_two_short_forms_of_one_name_are_refused_unless_the_mapping_chooses() -> None:
    header = ["actor", "target", "kind", "timestamp", "Time"]
    with pytest.raises(RefusedMapping, match="2 columns that mean `time`: `timestamp`, `Time`; name the right one"):
        resolve(InteractionsMapping(), header, FILE)
    chosen = resolve(InteractionsMapping.model_validate({"time": "time"}), header, FILE)
    assert (chosen.origins["occurred_at"].column, chosen.left) == ("Time", ["timestamp"])


def test_actor_and_target_are_two_columns_however_they_are_cased() -> None:
    mapping = InteractionsMapping.model_validate({"actor": "A", "target": "a"})
    with pytest.raises(RefusedMapping, match="`actor` and `target` both read the column `a`"):
        resolve(mapping, ["a", "kind", "time"], FILE)
    both = resolve(mapping, ["a", "A", "kind", "time"], FILE).origins
    assert (both["actor_id"].column, both["target_id"].column) == ("A", "a")


@pytest.mark.parametrize("column", ["hidden", "Paused", "is_deleted", "banned", "invisible"])
def test_the_opposite_of_visible_is_mapped_with_its_values_or_not_at_all(column: str) -> None:
    found = resolve(PeopleMapping(), ["user_id", column], FILE)
    [_, told] = left_over(found, PeopleMapping(), FILE)
    advice = f"`visible: {{column: {column}, values: {{yes: no, no: yes}}}}`"
    assert told.startswith(f"`{column}` says the opposite of `visible`")
    assert advice in told
    with pytest.raises(RefusedMapping, match=f"`{column}` says the opposite of `visible`") as refused:
        resolve(PeopleMapping.model_validate({"visible": column}), ["user_id", column], FILE)
    assert advice in str(refused.value)
    turned = PeopleMapping.model_validate({"visible": {"column": column, "values": {"yes": "no", "no": "yes"}}})
    assert resolve(turned, ["user_id", column], FILE).origins["visible"].column == column


def test_a_column_called_as_the_attribute_that_keeps_a_hashed_id_is_refused() -> None:
    hashed = {"user_id": {"column": "login", "hash": True}}
    with pytest.raises(RefusedMapping, match=r"`p\.csv` has a column `source_id`.*say `ignore: "):
        resolve(PeopleMapping.model_validate(hashed), ["login", "source_id"], FILE)
    ignoring = PeopleMapping.model_validate({**hashed, "ignore": "source_id"})
    assert resolve(ignoring, ["login", "source_id"], FILE).left == []
    own = PeopleMapping.model_validate({"user_id": {"column": "source_id", "hash": True}})
    assert resolve(own, ["source_id", "a"], FILE).left == ["a"]
    assert resolve(PeopleMapping(), ["user_id", "source_id"], FILE).left == ["source_id"]


def test_columns_left_over_are_listed_and_near_misses_pointed_at() -> None:
    table = PeopleMapping()
    found = resolve(table, ["user_id", "birthDate", "lng", "height"], FILE)
    told = left_over(found, table, FILE)
    assert told[0] == "Columns of `p.csv` kept as attributes: `birthDate`, `lng`, `height`."
    assert [sentence.split("?")[0] for sentence in told[1:]] == [
        "`birthDate`: did you mean `birth_date`",
        "`lng`: did you mean `longitude`",
    ]
    many = resolve(table, ["user_id", *[f"a{n}" for n in range(30)]], FILE)
    assert left_over(many, table, FILE)[0].endswith("`a19` and 10 more.")
    assert left_over(resolve(table, ["user_id"], FILE), table, FILE) == []


def test_an_unknown_column_is_refused_with_the_nearest_that_there_is() -> None:
    with pytest.raises(RefusedMapping, match=r"`gendr`, which `p\.csv` does not have; did you mean `gender`"):
        resolve(PeopleMapping.model_validate({"gender": "gendr"}), ["user_id", "gender"], FILE)


@pytest.mark.parametrize(
    ("column", "meant"),
    [("hidden", "visible"), ("isVisible", "visible"), ("sex", "gender"), ("latitud", "latitude"), ("height", None)],
)
def test_a_column_is_held_against_the_names_that_other_exports_use(column: str, meant: str | None) -> None:
    assert close_to(column, list(PeopleMapping.model_fields)) == meant

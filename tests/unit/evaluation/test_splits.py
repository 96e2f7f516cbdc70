"""Published splits: what is held out, what may be ranked, and what counts as found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.evaluation.errors import RefusedSplit
from pipelines.evaluation.splits import given_split, hits_in, leave_last_out, ranked_lists, read_interactions


def interactions(*rows: tuple[int, int, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["actor", "target", "kind", "at"], index=[7] * len(rows))


def test_everybodys_last_like_is_held_out_unless_it_is_their_only_one() -> None:
    found = interactions(
        (3, 2, "like", 6), (1, 2, "like", 1), (1, 3, "like", 2), (1, 4, "pass", 3), (2, 1, "like", 4), (3, 1, "like", 5)
    )
    train, test = leave_last_out(found)
    assert test["at"].tolist() == [2, 6]
    assert train["at"].tolist() == [1, 3, 4, 5]


def test_what_is_done_to_the_held_out_person_afterwards_is_in_neither_part() -> None:
    found = interactions((1, 2, "like", 1), (1, 3, "like", 2), (1, 3, "pass", 3), (1, 2, "pass", 4))
    train, test = leave_last_out(found)
    assert test["at"].tolist() == [2]
    assert train["at"].tolist() == [1, 4]


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (pd.DataFrame({"actor": [1], "target": [2]}), "no column of times"),
        (pd.DataFrame({"actor": [1, 2], "target": [2, 1], "timestamp": [1, 2]}), "Nobody in the file likes two"),
    ],
)
def test_a_file_without_times_or_without_two_likes_of_anybody_is_not_split(refused: pd.DataFrame, says: str) -> None:
    with pytest.raises(RefusedSplit, match=says):
        leave_last_out(refused)


TRAIN = pd.DataFrame({"user": [7, 7, 8, 8], "item": ["a", "b", "a", "c"], "rating": [5, 2, 4, 4]})
TEST = pd.DataFrame({"user": [7, 7, 8, 9], "item": ["c", "a", "b", "d"], "rating": [5, 5, 1, 4]})


def test_users_and_items_are_numbered_apart_and_ratings_above_the_threshold_are_likes() -> None:
    split = given_split(TRAIN, TEST, one_sided=True, threshold=3)
    assert split.actor_ids.tolist() == [7, 8, 9]
    assert split.target_ids.tolist() == ["a", "b", "c", "d"]
    assert split.train.toarray().tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert split.closed.toarray().tolist() == [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    # 7 liked a in training already, and 8 did not like b.
    assert split.test.toarray().tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert split.n_left_out == 1


def test_every_target_is_ranked_but_those_decided_on_in_training() -> None:
    split = given_split(TRAIN, TEST, one_sided=True, threshold=3)
    [(actors, shown)] = ranked_lists(split, lambda who: np.tile([4.0, 3.0, 2.0, 1.0], (len(who), 1)), 3)
    assert actors.tolist() == [0, 2]
    assert shown.tolist() == [[2, 3, -1], [0, 1, 2]]
    hits, relevant = hits_in(split, actors, shown)
    assert hits.tolist() == [[True, False, False], [False, False, False]]
    assert relevant.tolist() == [1, 1]


def test_between_people_nobody_is_shown_to_themselves_and_both_sides_are_numbered_alike() -> None:
    train = pd.DataFrame({"actor": [1, 2], "target": [2, 1], "kind": ["like", "pass"]})
    test = pd.DataFrame({"actor": [1, 3], "target": [3, 1]})
    split = given_split(train, test, one_sided=False)
    assert split.actor_ids.tolist() == split.target_ids.tolist() == [1, 2, 3]
    [(actors, shown)] = ranked_lists(split, lambda who: np.zeros((len(who), 3)), 3)
    assert actors.tolist() == [0, 2]
    assert shown.tolist() == [[2, -1, -1], [0, 1, -1]]
    assert hits_in(split, actors, shown)[0].sum() == 2


def test_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    TRAIN.to_csv(tmp_path / "train.csv", index=False)
    TEST.to_parquet(tmp_path / "test.parquet")
    assert read_interactions(tmp_path / "train.csv").equals(TRAIN)
    assert read_interactions(tmp_path / "test.parquet").equals(TEST)


def test_what_is_no_split_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "train.xls").write_text("")
    with pytest.raises(RefusedSplit, match="not from"):
        read_interactions(tmp_path / "train.xls")
    with pytest.raises(RefusedSplit, match="no file"):
        read_interactions(tmp_path / "absent.csv")
    with pytest.raises(RefusedSplit, match="test part has neither"):
        given_split(TRAIN, TEST.drop(columns="item"), one_sided=True)
    with pytest.raises(RefusedSplit, match="training part holds no like"):
        given_split(TRAIN, TEST, one_sided=True, threshold=9)


def test_users_and_items_of_equal_ids_are_not_the_same() -> None:
    train = pd.DataFrame({"user": [1, 2], "item": [2, 1]})
    split = given_split(train, pd.DataFrame({"user": [1], "item": [1]}), one_sided=True)
    [(_, shown)] = ranked_lists(split, lambda who: np.zeros((len(who), 2)), 2)
    assert shown.tolist() == [[0, -1]]  # item 1 has nothing to do with user 1

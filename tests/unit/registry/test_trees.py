"""Trees walked without XGBoost: the same answers, or none."""

from typing import Any

import numpy as np
import pytest
import xgboost

from registry.models.trees import Trees

K = 5
NAN = np.float32(np.nan)


def trained(rows: np.ndarray, rounds: int = 25, **parameters: Any) -> xgboost.Booster:
    labels = (np.nan_to_num(rows[:, 0], nan=1.0) + np.abs(np.nan_to_num(rows[:, 1])) > 0.7).astype(np.float32)
    settings = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "seed": 3, **parameters}
    return xgboost.train(settings, xgboost.DMatrix(rows, labels), rounds)


def rows(n: int, holes: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(7)
    drawn = rng.normal(size=(n, K)).astype(np.float32)
    drawn[rng.random(drawn.shape) < holes] = np.nan
    drawn[np.isnan(drawn).all(axis=1), 2] = 0.5
    return drawn


def walked(booster: xgboost.Booster) -> Trees:
    trees = Trees.of(booster)
    assert trees is not None
    return trees


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_every_row_scores_as_xgboost_scores_it(holes: float, depth: int) -> None:
    drawn = rows(700, holes)
    booster = trained(drawn, max_depth=depth)
    answer, refused = walked(booster).predict(drawn, np.arange(K), NAN)
    assert refused == -1
    np.testing.assert_array_max_ulp(answer, booster.inplace_predict(drawn), maxulp=2)


def test_columns_are_read_where_they_are_offered() -> None:
    drawn = rows(50)
    trees = walked(trained(drawn))
    offered = np.full((50, K + 3), 9.0, dtype=np.float32)
    columns = np.array([6, 0, 3, 2, 7])
    offered[:, columns] = drawn
    np.testing.assert_array_equal(trees.predict(offered, columns, NAN)[0], trees.predict(drawn, np.arange(K), NAN)[0])


def test_what_stands_for_a_missing_value_is_walked_like_that_value() -> None:
    holed = rows(300, holes=0.3)
    filled = np.where(np.isnan(holed), np.float32(-1e31), holed)
    trees = walked(trained(filled))
    np.testing.assert_array_equal(
        trees.predict(holed, np.arange(K), np.float32(-1e31))[0], trees.predict(filled, np.arange(K), NAN)[0]
    )


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_the_first_row_that_cannot_be_scored_is_named(value: float) -> None:
    drawn = rows(20)
    drawn[[7, 9]] = value
    assert walked(trained(rows(200))).predict(drawn, np.arange(K), NAN)[1] == 7


@pytest.mark.parametrize(
    "parameters",
    [{"objective": "reg:squarederror"}, {"booster": "dart"}, {"max_depth": 9}],
    ids=str,
)
def test_what_is_not_a_shallow_binary_forest_is_left_to_xgboost(parameters: dict[str, Any]) -> None:
    settings = {"tree_method": "exact", "min_child_weight": 0, "lambda": 0, **parameters}
    assert Trees.of(trained(rows(3000), rounds=3, **settings)) is None


def test_trees_that_do_not_give_the_boosters_answers_are_not_used() -> None:
    booster = trained(rows(200))

    class Other:
        """Says that it is one booster and answers like another."""

        num_features = booster.num_features
        save_raw = booster.save_raw

        def inplace_predict(self, drawn: np.ndarray, **_: Any) -> np.ndarray:
            return np.full(len(drawn), 0.5, dtype=np.float32)

    assert Trees.of(Other()) is None

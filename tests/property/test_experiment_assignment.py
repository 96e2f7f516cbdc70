import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from registry.experiments.table import ExperimentState
from serving.experiments.assignment import Experiment, Variant, share_of

people = st.integers(min_value=1, max_value=2**63 - 1)
salts = st.text(max_size=20)
shares = st.floats(min_value=0, max_value=1)
MANY = range(1, 20_001)


def running(share: float, salt: str = "pepper") -> Experiment:
    return Experiment("taste", salt, share, ExperimentState.RUNNING)


def standing(salt: str) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([share_of(salt, user_id) for user_id in MANY])


@given(salts, people)
def test_everybody_stands_below_one_and_always_at_the_same_place(salt: str, user_id: int) -> None:
    assert 0.0 <= share_of(salt, user_id) < 1.0
    assert share_of(salt, user_id) == share_of(salt, user_id)


@given(salts, people, shares, shares)
def test_raising_the_share_never_takes_the_challenger_from_anybody(salt: str, user_id: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    if running(low, salt).variant(user_id) is Variant.CHALLENGER:
        assert running(high, salt).variant(user_id) is Variant.CHALLENGER


@given(people)
def test_nobody_at_share_zero_and_everybody_at_share_one(user_id: int) -> None:
    assert running(0.0).variant(user_id) is Variant.CHAMPION
    assert running(1.0).variant(user_id) is Variant.CHALLENGER


@given(people, st.sampled_from([ExperimentState.OFF, ExperimentState.SHADOW]))
def test_only_a_running_experiment_gives_anybody_the_challenger(user_id: int, state: ExperimentState) -> None:
    assert Experiment("taste", "pepper", 1.0, state).variant(user_id) is Variant.CHAMPION


def test_people_are_spread_evenly() -> None:
    assert stats.kstest(standing("pepper"), "uniform").pvalue > 0.001
    digits = np.bincount((standing("pepper") * 100).astype(int), minlength=100)
    assert stats.chisquare(digits).pvalue > 0.001


def test_one_salt_says_nothing_of_another() -> None:
    a, b = standing("pepper"), standing("salt")
    table = np.histogram2d(a, b, bins=5, range=[[0, 1], [0, 1]])[0]
    assert stats.chi2_contingency(table).pvalue > 0.001
    # A salt and an id are never glued into another salt and id.
    assert share_of("a1", 2) != share_of("a", 12)


def test_another_process_assigns_the_same_people() -> None:
    code = "from serving.experiments.assignment import share_of; print([share_of('pepper', n) for n in (1, 7, 42)])"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert told == [f"{[share_of('pepper', n) for n in (1, 7, 42)]}\n"] * 2

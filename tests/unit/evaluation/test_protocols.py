"""Who is asked, who may be shown, what counts, and what the truth says of it."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from feature_repo.layout import ATTRIBUTES, PROFILE
from feature_repo.population.people import People
from feature_repo.transforms import profile_vectors
from pipelines.evaluation import methods, oracle
from pipelines.evaluation.compare import choose_protocol, evaluate, met_scores
from pipelines.evaluation.config import EvaluationConfig
from pipelines.evaluation.errors import NobodyToAsk, UnknownPerson
from pipelines.evaluation.protocols import catalogue, met
from pipelines.evaluation.scene import Scene
from pipelines.evaluation.tables import comparison_table
from pipelines.evaluation.windows import Windows
from pipelines.features.events import BLOCK, LIKE, PASS, REPORT, UNLIKE, Events
from pipelines.ranking.context import EverybodysFactors
from registry.models.neighbours import NEIGHBOUR_SOURCES

MEN = (2, 3, 4, 5)
IDS = np.array([10, 20, 30, 40, 50, 60], dtype=np.int64)
T1 = 1_750_000_000_000_000
CONFIG = EvaluationConfig(bootstrap_rounds=50, n_candidates=10)


def people() -> People:
    users = pd.DataFrame(
        {
            "user_id": IDS,
            "birth_date": [date(1995, 1, 1)] * 6,
            "gender": ["woman"] * 2 + ["man"] * 4,
            "seeking": [["man"]] * 2 + [["woman"]] * 4,
            "interests": [[]] * 6,
        }
    )
    return People.build(IDS, profile=profile_vectors(users))


def scene(*rows: tuple[int, int, int, int], factors: EverybodysFactors | None = None, **config: object) -> Scene:
    """Rows of actor, target, kind, microseconds after T1."""
    ordered = sorted(rows, key=lambda row: row[3])
    actor, target, kind, at = (np.array(column) for column in zip(*ordered, strict=True))
    events = Events(
        IDS, actor.astype(np.int32), target.astype(np.int32), kind.astype(np.int8), at.astype(np.int64) + T1
    )
    zeros = np.zeros((6, 2), dtype=np.float32)
    windows = Windows(T1 - 100, T1, int(events.at_us[-1]), (1, 1, 1))
    known = factors or EverybodysFactors(zeros, zeros)
    return Scene(people(), events, windows, known, CONFIG.model_copy(update=config))


def taste_for(*liked: int) -> EverybodysFactors:
    """Woman 0 likes some men more than others; man 4 alone likes her back."""
    chooser, chosen = np.zeros((6, 2), np.float32), np.zeros((6, 2), np.float32)
    chooser[0, 0] = 1.0
    for place, man in enumerate(liked):
        chosen[man, 0] = 1.0 - 0.1 * place
    chooser[4, 1] = 1.0
    chosen[0, 1] = 1.0
    return EverybodysFactors(chooser, chosen)


def test_only_eligible_undecided_unblocked_people_are_ranked() -> None:
    world = scene((0, 2, PASS, -5), (3, 0, BLOCK, -4), (5, 0, PASS, -3), (0, 4, LIKE, 5))
    result = catalogue(world)
    assert result.rankings[methods.RANDOM].requesters.tolist() == [0]
    assert sorted(result.candidates[0].tolist()) == [4, 5]  # whoever passed on her does not know it from us
    assert result.rankings[methods.RANDOM].relevant.tolist() == [1]


def test_invisible_people_are_not_shown() -> None:
    world = scene((0, 4, LIKE, 5))
    visible = np.array([True, True, True, False, True, True])
    hidden = Scene(world.people, world.events, world.windows, world.factors, CONFIG, visible=visible)
    assert 3 not in catalogue(hidden).candidates[0].tolist()


def test_the_withheld_partner_is_first_and_reciprocity_breaks_the_tie() -> None:
    world = scene((0, 3, LIKE, 5), factors=taste_for(3, 4, 5))
    result = catalogue(world)
    assert result.rankings[methods.ONE_SIDED].shown[0, 0] == 3
    assert result.rankings[methods.ONE_SIDED].liked[0].tolist() == [True, False, False, False]
    assert result.rankings[methods.RECIPROCAL].shown[0, 0] == 4


def test_a_match_needs_both_likes_and_may_start_before_the_window() -> None:
    world = scene((4, 0, LIKE, -9), (0, 4, LIKE, 5), (0, 5, LIKE, 6), (5, 0, PASS, 7), (0, 3, LIKE, 8))
    assert world.held_out_matched[world.held_out.actor == 0].tolist() == [True, False, False]


def test_a_like_that_was_taken_back_or_blocked_by_the_end_is_no_match() -> None:
    likes = ((3, 0, LIKE, -9), (4, 0, LIKE, -9), (5, 0, LIKE, -9), (0, 3, LIKE, 5), (0, 4, LIKE, 6), (0, 5, LIKE, 7))
    world = scene(*likes, (3, 0, PASS, 8), (4, 0, REPORT, 8))
    assert world.held_out_matched[world.held_out.actor == 0].tolist() == [False, False, True]


def test_what_happens_after_t1_does_not_move_any_order() -> None:
    honest = scene((5, 1, LIKE, -9), (1, 5, LIKE, -8), (0, 4, LIKE, 5), factors=taste_for(3, 4))
    planted = scene(
        (5, 1, LIKE, -9), (1, 5, LIKE, -8), (0, 4, LIKE, 5), (1, 2, LIKE, 1), (1, 3, LIKE, 1), factors=taste_for(3, 4)
    )
    left, right = catalogue(honest).rankings, catalogue(planted).rankings
    for name in left:
        mine = right[name].shown[right[name].requesters == 0]
        np.testing.assert_array_equal(left[name].shown[:1], mine)


def test_popularity_counts_likes_up_to_t1() -> None:
    world = scene((1, 5, LIKE, -9), (1, 2, LIKE, 1), (1, 3, LIKE, 2), (0, 4, LIKE, 5))
    assert catalogue(world).rankings[methods.POPULARITY].shown[0, 0] == 5


def test_recent_popularity_forgets_old_likes() -> None:
    year = 365 * 86_400_000_000
    old = [(0, 2, LIKE, -year), (1, 2, LIKE, -year)]
    result = catalogue(scene(*old, (1, 3, LIKE, -9), (0, 4, LIKE, 5)))
    mine = {
        name: lists.shown[0].tolist() for name, lists in result.rankings.items()
    }  # of woman 0, who has decided on 2
    assert mine[methods.RECENT_POPULARITY][0] == 3
    everybody = catalogue(scene((4, 0, LIKE, -year), (5, 0, LIKE, -year), (4, 1, LIKE, -9), (2, 1, LIKE, 5)))
    assert everybody.rankings[methods.POPULARITY].shown[0].tolist() == [0, 1]
    assert everybody.rankings[methods.RECENT_POPULARITY].shown[0].tolist() == [1, 0]


def smoking(*codes: float, after: tuple[tuple[int, int, int, int], ...] = ((0, 4, LIKE, 5),)) -> Scene:
    """Everybody's one attribute; woman 0 liked man 2, man 4 liked woman 1, and woman 0 likes man 4 after T1."""
    world = scene((0, 2, LIKE, -9), (4, 1, LIKE, -8), *after)
    attributes = ATTRIBUTES.default_rows(6)
    attributes[:, 0] = codes
    return replace(world, people=People.build(IDS, profile=world.people.profile, attributes=attributes))


def test_recon_puts_first_who_has_what_the_requester_chose_and_chose_what_the_requester_has() -> None:
    result = catalogue(smoking(1, 1, 2, 1, 2, 1))
    assert result.rankings[methods.RECON].shown[0, 0] == 4


def test_lfrr_puts_first_who_is_liked_alike_and_likes_alike() -> None:
    two_camps = [(0, 2, LIKE, -9), (1, 2, LIKE, -8), (1, 3, LIKE, -7), (2, 0, LIKE, -6), (3, 0, LIKE, -5)]
    result = catalogue(scene(*two_camps, (5, 1, LIKE, -4), (0, 4, LIKE, 5)))
    assert result.rankings[methods.LFRR].shown[0, 0] == 3


def test_a_method_with_nothing_to_go_by_is_absent_and_no_row_in_the_order_of_chance() -> None:
    assert list(methods.methods_of(scene((0, 4, LIKE, 5)))) == [methods.RANDOM]
    one_way = smoking(1, 1, 1, 1, 1, 1)
    assert methods.RECON not in methods.methods_of(one_way), "an attribute that all share tells nothing"
    assert methods.CONTENT not in methods.methods_of(one_way)
    assert methods.LFRR not in methods.methods_of(one_way), "nobody who is liked likes anybody"
    assert not {*NEIGHBOUR_SOURCES, methods.TWO_STAGE} & set(methods.methods_of(one_way))


def test_met_ranks_only_those_whose_decision_is_known() -> None:
    world = scene((0, 2, PASS, 1), (0, 4, LIKE, 2), (1, 3, LIKE, 3), (4, 0, LIKE, 4))
    result = met(world, {"right": np.array([0.1, 0.9, 0.5, 0.5]), "wrong": np.array([0.9, 0.1, 0.5, 0.5])})
    assert result.rankings["right"].requesters.tolist() == [0]  # the others decided on one person only
    assert result.rankings["right"].shown.tolist() == [[4, 2]]
    assert result.rankings["right"].matched.tolist() == [[True, False]]
    assert result.rankings["wrong"].shown.tolist() == [[2, 4]]


def test_auto_takes_met_where_people_decide_on_each_other() -> None:
    both_ways = scene((0, 2, LIKE, 1), (2, 0, PASS, 1), (0, 3, LIKE, 2), (3, 0, PASS, 2))
    one_way = scene((0, 2, LIKE, 1), (0, 3, LIKE, 2), (0, 4, PASS, 3))
    assert choose_protocol(both_ways) == "met"
    assert choose_protocol(one_way) == "catalogue"
    slips = scene((0, 2, LIKE, 1), (0, 3, LIKE, 2), (2, 0, LIKE, 3), (3, 0, LIKE, 3), (2, 0, UNLIKE, 4))
    assert choose_protocol(slips) == "catalogue", "who took a like back has not decided"
    assert choose_protocol(scene((0, 2, LIKE, 1), protocol="met")) == "met"


def truth(actors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """A man's chance grows with his id; women are liked for sure."""
    return np.where(targets >= 30, targets / 100, 1.0)


def test_the_oracle_knows_the_best_list_and_judges_every_other() -> None:
    world = scene((0, 4, LIKE, 5), factors=taste_for(5, 4, 3, 2))
    result = catalogue(world)
    best = oracle.oracle_match_precision(result, np.array([0]), IDS, truth, 2)
    np.testing.assert_allclose(best, [0.55])  # men 60 and 50
    one_sided = oracle.expected_match_precision(result.rankings[methods.ONE_SIDED], IDS, truth, 2)
    np.testing.assert_allclose(one_sided, [0.55])
    lists = oracle.expected_match_precision(result.rankings[methods.RECIPROCAL], IDS, truth, 1)
    np.testing.assert_allclose(lists, [0.5])


def test_a_report_holds_methods_by_measures_the_oracle_and_a_picture() -> None:
    report = evaluate(scene((0, 4, LIKE, 5), (1, 5, LIKE, 6), factors=taste_for(4)), truth=truth)
    assert report.protocol == "catalogue"
    named = ["random", "one_sided", "reciprocal", "oracle"]
    assert list(dict.fromkeys(report.table["method"])) == named, "nobody liked anybody, and all profiles are the same"
    named = report.metrics()
    reached = named["reciprocal_true_match_precision_at_10"]
    assert named["oracle_true_match_precision_at_10"] == pytest.approx(reached)  # all four fit into ten places
    assert named["one_sided_recall_at_100"] == 1.0
    assert report.figures["evaluation_comparison"].startswith(b"\x89PNG")
    assert "oracle" in report.wide().index


def test_nobody_to_ask_is_said() -> None:
    everybody_decided = [(0, man, PASS, -9) for man in MEN]
    with pytest.raises(NobodyToAsk, match="eligible candidate left"):
        catalogue(scene(*everybody_decided, (0, 1, LIKE, 5)))
    with pytest.raises(NobodyToAsk, match="two people"):
        met(scene((0, 2, LIKE, 5)), {"any": np.zeros(1)})


def test_a_person_unknown_to_the_truth_is_said() -> None:
    with pytest.raises(UnknownPerson, match="person 10"):
        oracle.match_probability(lambda a, _b: np.full(a.size, np.nan), IDS[:1], IDS[1:2])


def both_like(*pairs: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    return [row for at, (a, b) in enumerate(pairs) for row in ((a, b, LIKE, 2 * at + 1), (b, a, LIKE, 2 * at + 2))]


def test_differences_are_paired_with_the_two_stages_and_absent_where_there_is_none() -> None:
    world = scene(*both_like((0, 4), (1, 5)), factors=taste_for(3, 4))
    compared = {methods.ONE_SIDED: methods.by_own_taste, methods.TWO_STAGE: methods.by_both_tastes}
    table = comparison_table(world, catalogue(world, compared), None).set_index(["method", "measure"])
    reached = table.loc[("one_sided", "ndcg_at_20")]
    reference = table.loc[("two_stage", "ndcg_at_20")]
    assert reached["difference"] == pytest.approx(reached["mean"] - reference["mean"])
    assert reached["difference_low"] <= reached["difference"] <= reached["difference_high"]
    assert np.isnan(reference["difference"])
    assert np.isnan(table.loc[("one_sided", "gini_at_10")]["difference"])


def test_matches_are_counted_from_both_sides_where_both_people_were_asked() -> None:
    table = evaluate(scene(*both_like((0, 4), (1, 5)), protocol="catalogue")).table.set_index(["method", "measure"])
    for measure in ("match_recall_at_10", "holistic_recall_at_10"):
        assert table.loc[("random", measure)]["mean"] == 1.0  # four men or two women fit into ten places
    assert table.loc[("random", "stable_recall_at_10")]["mean"] == 2.0
    assert table.loc[("random", "holistic_recall_at_10")]["people"] == 2
    one_way = evaluate(scene((0, 4, LIKE, 5), (1, 5, LIKE, 6), protocol="catalogue")).table
    assert not one_way["measure"].str.startswith(("holistic", "stable", "match_recall")).any()


def test_slices_tell_newcomers_from_others_and_the_popular_from_the_rest() -> None:
    past = [(0, man, PASS, -9) for man in (2, 3)] + [(1, 5, LIKE, -8)]
    slices = evaluate(scene(*past, (0, 4, LIKE, 5), (0, 5, LIKE, 6), (1, 4, LIKE, 7))).slices
    mine = slices[slices["method"] == "popularity"]
    swipes = mine[(mine["slice"] == "swipes") & (mine["measure"] == "recall_at_20")]
    assert swipes["group"].tolist() == ["1 swipe", "2 to 3 swipes"]
    assert swipes["mean"].tolist() == [1.0, 1.0]
    deciles = mine[mine["slice"] == "popularity"]
    assert deciles["people"].sum() == 3  # likes that could be found
    assert len(deciles) == 2


def test_slices_tell_women_from_men_and_leave_out_whose_gender_is_unknown() -> None:
    world = scene((0, 4, LIKE, 5), (1, 5, LIKE, 6), (4, 0, LIKE, 7), (5, 0, LIKE, 8))
    profile = world.people.profile.copy()
    profile[1, PROFILE.index("gender")] = 0
    slices = evaluate(replace(world, people=People.build(IDS, profile=profile))).slices
    found = slices[(slices["method"] == "random") & (slices["slice"] == "gender")]
    assert dict(zip(found["group"], found["people"], strict=True)) == {"man": 2, "woman": 1}


def test_people_who_met_are_compared_by_the_same_measures_and_slices() -> None:
    report = evaluate(scene(*both_like((0, 4), (0, 5), (1, 4), (1, 5)), protocol="met"))
    assert report.protocol == "met"
    assert {"ndcg_at_20", "match_recall_at_10", "holistic_recall_at_10"} <= set(report.table["measure"])
    assert set(report.slices["slice"]) == {"swipes", "activity", "gender", "popularity"}


def test_of_people_who_met_too_a_method_that_cannot_tell_them_apart_is_absent() -> None:
    new = scene(*both_like((0, 4), (0, 5), (1, 4), (1, 5)), protocol="met")
    assert list(met_scores(new, None)) == [methods.RANDOM]
    known = smoking(1, 1, 2, 1, 2, 1, after=((0, 5, LIKE, 6), (0, 4, LIKE, 7)))
    scores = met_scores(known, None)
    assert list(scores) == [methods.RANDOM, methods.CONTENT, methods.RECON]
    assert np.argmax(scores[methods.RECON]) == 1, "man 4 smokes as those whom woman 0 chose"

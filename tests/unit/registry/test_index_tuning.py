from registry.index_build import RecallPoint, best_point

CURVE = tuple(RecallPoint(nprobe, recall, 0.1) for nprobe, recall in ((1, 0.2), (8, 0.7), (64, 0.88), (4096, 0.92)))


def test_the_cheapest_search_that_meets_the_target_is_served() -> None:
    assert best_point(CURVE, 0.7).nprobe == 8


def test_a_target_that_quantisation_puts_out_of_reach_does_not_probe_every_list() -> None:
    assert best_point(CURVE, 0.95).nprobe == 64


def test_without_a_measured_curve_one_list_is_probed() -> None:
    assert best_point((), 0.95).nprobe == 1

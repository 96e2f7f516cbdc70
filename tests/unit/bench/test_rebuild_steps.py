from pipelines.bench.rebuild import RebuildStep, merged


def test_steps_that_differ_in_numbers_only_are_one() -> None:
    steps = [
        RebuildStep("5 of 9 people added", 1.0, 0.5, 10),
        RebuildStep("9 of 9 people added", 2.0, 1.5, 12),
        RebuildStep("saved", 0.5, 0.1, 12),
        RebuildStep("9 of 9 people added", 1.0, 1.0, 12),
    ]
    assert merged(steps) == [
        RebuildStep("9 of 9 people added", 3.0, 2.0, 12),
        RebuildStep("saved", 0.5, 0.1, 12),
        RebuildStep("9 of 9 people added", 1.0, 1.0, 12),
    ]

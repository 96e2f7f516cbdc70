import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.bench.commands import _finish
from pipelines.bench.errors import ProcessFailed, WrongAnswers
from pipelines.bench.load import Seen
from pipelines.bench.report import growth, ratios
from pipelines.bench.swap import swap_figures
from pipelines.bench.verdicts import split

MS = {"p50": 4.0, "p95": 8.0, "p99": 12.0}


def size(people: int, p50: float, wrong: dict[str, int] | None = None) -> dict[str, Any]:
    loop = {
        **MS, "p50": p50, "concurrency": 1, "per_s": 200.0, "cpu_ms": 5.0, "service_cpu_ms": 4.0,
        "postgres_cpu_ms": 0.9, "client_cpu_ms": 0.3, "stages_ms": {"total": MS},
    }  # fmt: skip
    return {
        "people": people, "uncached": [loop], "cached": [loop], "open_loop": {**MS, "rate": 100.0},
        "cold_start": {"ready_s": 9.0, "full_s": 9.5}, "warm_start": {"ready_s": 4.0, "full_s": 4.0},
        "memory": [{"private_mb": 300.0, "shared_mb": 100.0}], "wrong": wrong or {},
        "overload": {"goodput_per_s": 190.0, "goodput_share": 0.95, "recovery_s": None},
        "swap": {"p99_before_ms": 9.0, "p99_around_ms": 12.0, "ratio": 1.33, "took_s": 3.0},
        "naive": {**MS, "p50": 80.0, "per_s": 10.0, "cpu_ms": 100.0},
        "ratios": {"throughput": 20.0, "p50": 20.0, "cpu": 20.0},
    }  # fmt: skip


def document(**sizes: Any) -> dict[str, Any]:
    machine = {"date": "2026-01-01", "cores": 2, "cpu": "some", "memory_gb": 24.0, "load_average": [0.1]}
    found = list(sizes.values())
    return {"machine": machine, "sizes": found, "growth": growth(found)}


def test_the_table_names_every_figure_and_the_file_holds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / "bench.json"
    _finish(document(small=size(100, 4.0), large=size(10_000, 8.0)), file)
    shown = capsys.readouterr().out
    assert "uncached, concurrency 1: p50 / p95 / p99 ms" in shown
    assert "190 (95%), never" in shown
    assert "n^0.15" in shown
    assert json.loads(file.read_text())["growth"]["p50 at the lowest concurrency"]["power"] == 0.151


def test_wrong_answers_end_the_command_with_an_error() -> None:
    with pytest.raises(WrongAnswers, match="3 x somebody twice"):
        _finish(document(only=size(100, 4.0, {"somebody twice": 3})), None)


def test_ratios_compare_with_the_naive_composition() -> None:
    assert ratios(size(100, 4.0)) == {"throughput": 20.0, "p50": 20.0, "cpu": 20.0}


def test_without_the_naive_composition_there_are_no_ratios() -> None:
    alone = size(100, 4.0)
    del alone["naive"]
    assert ratios(alone) == {}


def test_one_size_does_not_grow() -> None:
    assert growth([size(100, 4.0)]) == {}


def test_a_swap_is_judged_by_the_second_around_it() -> None:
    seen = Seen(due_s=[float(at) / 10 for at in range(100)])
    seen.latency_ms = [30.0 if 5.5 <= at <= 6.5 else 10.0 for at in seen.due_s]
    figures = swap_figures(seen, promoted_s=4.0, first_s=6.0)
    assert (figures.p99_before_ms, figures.p99_around_ms, figures.ratio, figures.took_s) == (10.0, 30.0, 3.0, 2.0)


def test_a_release_that_never_answered_was_not_swapped() -> None:
    with pytest.raises(ProcessFailed, match="never came to answer"):
        swap_figures(Seen(due_s=[1.0], latency_ms=[5.0]), promoted_s=0.5, first_s=None)


def test_being_refused_or_late_is_wrong_only_where_the_load_does_not_seek_the_limit() -> None:
    problems = {"status 503": 3, "status 429": 1, "level 4: deadline_exceeded": 2, "status 500": 1, "somebody twice": 4}
    wrong, explained = split(problems, seeks_the_limit=True)
    assert wrong == {"status 500": 1, "somebody twice": 4}
    assert explained == {"status 503": 3, "status 429": 1, "level 4: deadline_exceeded": 2}
    assert split(problems, seeks_the_limit=False) == (problems, {})


def test_refused_answers_are_shown_and_end_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _finish(document(only={**size(100, 4.0), "refused": {"16 at once": 1_528}}), None)
    assert "1,528" in next(line for line in capsys.readouterr().out.splitlines() if "refused or late" in line)

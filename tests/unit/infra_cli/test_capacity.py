"""What so many people need, and that the document says what the command computes."""

import pytest

from infra.cli.app import run
from infra.cli.capacity import FP16_FROM, IVF_FROM, PQ_FROM, Habits, index_kind, plan, rows, standing
from infra.settings import Settings
from registry.models.index_build import IndexConfig, choose_kind
from tests.architecture.sources import ROOT

SIZES = (10_000, 1_000_000, 10_000_000, 100_000_000)
DOCUMENT = (ROOT / "infra" / "CAPACITY.md").read_text(encoding="utf-8")


def test_the_document_has_the_table_that_the_command_computes() -> None:
    for row in rows([plan(size) for size in SIZES]):
        assert f"| {' | '.join(row)} |\n" in DOCUMENT


@pytest.mark.parametrize("people", [IVF_FROM, FP16_FROM, PQ_FROM])
def test_the_index_is_the_one_that_training_chooses(people: int) -> None:
    for size in (people - 1, people):
        assert index_kind(size) == choose_kind(IndexConfig(), size).value


def test_more_people_or_more_of_them_need_no_less() -> None:
    few, many, lively = plan(100_000), plan(50_000_000), plan(100_000, Habits(active=0.9))
    assert few.replicas == 2, "one may go"
    assert many.replicas > few.replicas
    assert lively.disk_gb > few.disk_gb
    assert lively.peak_per_s == pytest.approx(3 * few.peak_per_s)
    assert (plan(1_000_000).measured, many.measured) == (True, False)


def test_a_worker_has_as_many_connections_as_the_settings_give_it() -> None:
    defaults = Settings().postgres
    assert plan(10_000).connections == 4 * (defaults.pool_size + defaults.max_overflow + 3)


def test_a_machine_that_is_too_small_is_told() -> None:
    assert standing(10_000, 1, 8.0)[0]
    holds, seen, remedy = standing(3_000_000, 4, 2.0)
    assert not holds
    assert "3,000,000 people, index `ivf_fp16`; `ivf_pq` from 5,000,000" in seen
    assert "CAPACITY.md" in remedy


def test_the_command_prints_a_table_and_refuses_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["capacity", "--people", "10000"]) == 0
    assert "memory of a replica, GB" in capsys.readouterr().out
    assert run(["capacity", "--people", "many"]) == 2
    assert "`many` is no list of whole numbers" in capsys.readouterr().err.replace("\n", " ")

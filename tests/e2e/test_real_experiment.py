"""The Columbia speed-dating experiment from file to answer, with servers started on demand by each command."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Duet, processes_of

SPEED_DATING = Path(os.environ.get("DUET_SHARED_DATA", "../shared/data")) / "speed-dating/speed_dating.csv"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not SPEED_DATING.is_file(), reason=f"{SPEED_DATING} is absent; set DUET_SHARED_DATA"),
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duet]:
    """A data directory on which nothing runs: every command starts what it needs and stops it again."""
    duet = Duet(tmp_path_factory.mktemp("experiment") / "duet")
    try:
        yield duet
    finally:
        duet("down")
    assert processes_of(duet.data_dir) == []


@pytest.fixture(scope="module")
def told(alone: Duet) -> str:
    """What the import of the experiment says; ten rows name a partner who has no row in the published file."""
    return alone("import", "speed-dating", str(SPEED_DATING.resolve()), expect=3)


def test_every_meeting_is_accounted_for(alone: Duet, told: str) -> None:
    assert re.search(r"people +│ +551 │ +551 ", told)
    assert re.search(r"interactions +│ +8,378 │ +8,368 .* 10 │", told)
    assert processes_of(alone.data_dir) == []


@pytest.mark.long
@pytest.mark.usefixtures("told")
def test_the_comparison_ranks_only_the_partners_somebody_met(alone: Duet) -> None:
    shown = alone("train")
    assert "protocol met" in shown
    assert re.search(r"two_stage.*0\.\d", shown)
    assert re.search(r"joint +│ +0\.\d+ \[0\.\d+, 0\.\d+\] │ +[+-]\d", shown), "matches of people who met"


@pytest.mark.long
def test_the_release_is_promoted_and_answers_a_participant(alone: Duet) -> None:
    alone("promote")
    alone("up", "--detach")
    assert "level 1 (full)" in alone("recommend", "500")

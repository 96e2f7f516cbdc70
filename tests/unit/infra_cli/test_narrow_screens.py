"""What the command line prints on a terminal of 80 columns."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from infra.cli.console import table
from infra.cli.platform import draw
from infra.supervisor.state import PlatformState, ServicePhase, ServiceState


def printed(drawn: object) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=80, highlight=False, soft_wrap=True).print(drawn)
    return [line.rstrip() for line in screen.getvalue().splitlines()]


def test_status_fits_eighty_columns_with_whole_addresses() -> None:
    url = "postgresql://duet:***@127.0.0.1:31107/duet"
    names = ("postgres", "dagster-daemon")
    services = {
        name: ServiceState(
            name=name, phase=ServicePhase.UNHEALTHY, pid=4194304, url=url, log=Path(f"/srv/duet/logs/{name}.log")
        )
        for name in names
    }
    lines = printed(draw(PlatformState(data_dir=Path("/srv/duet"), pid=1, identity="me", services=services)))
    assert max(map(len, lines)) <= 80
    assert sum(url in line for line in lines) == 2
    assert "logs: /srv/duet/logs/NAME.log" in lines


def test_a_table_that_fits_is_a_table() -> None:
    lines = printed(table("people", ["id", "name"], [(1, "Ada")]))
    assert [line.split("│")[1].strip() for line in lines if "Ada" in line] == ["1"]


@pytest.mark.parametrize("title", [None, "promotions"])
def test_a_table_that_would_cut_words_in_two_becomes_lines(title: str | None) -> None:
    long = "e12-i15-r20-and-a-name-that-nobody-can-break"
    lines = printed(table(title, ["when", "release", "why [it]"], [(long, long, "the fair [opens]"), (long, long, "")]))
    assert lines == [
        *([title] if title else []),
        f"when      {long}",
        f"release   {long}",
        "why [it]  the fair [opens]",
        "",
        f"when     {long}",
        f"release  {long}",
    ]

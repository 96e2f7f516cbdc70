"""The supervisor asks each server as often as it has to, and no more."""

from dataclasses import dataclass, field

from infra.supervisor.asking import Asker, HealthQuestion
from tests.waiting import until

WELL, STARTING = HealthQuestion("mlflow", "ready", 0), HealthQuestion("serving", "ready", 0)


@dataclass
class Counting:
    """A server that is well and counts how often it was asked."""

    times: list[None] = field(default_factory=list)

    def check(self) -> str | None:
        self.times.append(None)


def test_a_server_is_asked_again_only_after_its_own_time_whoever_else_is_asked_meanwhile() -> None:
    asker, seldom, always = Asker(), Counting(), Counting()
    for _ in range(5):
        asker.ask({WELL: (seldom, 3600.0), STARTING: (always, 0.0)})
        heard: list[HealthQuestion] = []
        until(lambda heard=heard: heard.extend(question for question, _ in asker.answers()) or STARTING in heard)
    asker.close()
    assert (len(seldom.times), len(always.times)) == (1, 5)


def test_a_server_that_was_not_to_be_asked_for_a_while_is_asked_at_once() -> None:
    asker, probe = Asker(), Counting()
    for questions in ({WELL: (probe, 3600.0)}, {}, {WELL: (probe, 3600.0)}):
        asker.ask(questions)
        until(lambda: list(asker.answers()) or not asker._asked)
    asker.close()
    assert len(probe.times) == 2

"""The steps of something long: each shows a bar while it works, prints its seconds and is remembered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from infra.cli.console import err, progress
from infra.clock import Clock

Advance = Callable[[int, int], None]
"""Called with what is done and the total."""


@dataclass
class Steps:
    """Seconds by the name of the step, in the order in which they were taken."""

    clock: Clock
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Advance]:
        """Time the block under `name`; the yielded function moves its bar."""
        began_s = self.clock.monotonic()
        with progress() as bars:
            task = bars.add_task(name, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
            bars.update(task, visible=False)
        self.seconds[name] = round(self.clock.monotonic() - began_s, 3)
        err().print(f"[green]✓[/] {name} [dim]{self.seconds[name]:.1f} s[/]")

    @property
    def total_s(self) -> float:
        """Return the seconds of all steps."""
        return sum(self.seconds.values())

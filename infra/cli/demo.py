"""`duet demo`: the whole path in one command, on a data directory of its own.

Each step is a `duet` command that a person could type; the first that fails ends the demo with its words and its log.
However the demo ends, nothing that it started is left over.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated

import httpx
import typer
from rich.markup import escape

from infra.cli.console import err, one_line, out, print_note
from infra.cli.context import current_invocation
from infra.cli.errors import DemoFailed
from infra.settings import Settings, load_settings
from infra.web.client import tls
from infra.web.token import bearer, links, own_token

DATA_DIR = Path(".duet/demo")
SEED = 7
RELEASE = re.compile(r"\be\d+-i\d+-r\d+\b")
SERVES_WITHIN_S = 120.0
TICK_S = 0.2
LOOK_S = 2.0
# Nobody wants to wait a minute until the serving app looks for new people; what a person set wins.
FRESHER = {"DUET_SERVING__SNAPSHOT_REFRESH_S": "5", "DUET_SERVING__RELEASE_POLL_S": "1"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("demo", epilog="Example: duet demo --exit --people 4000")(demo)


def demo(
    ctx: typer.Context,
    people: Annotated[int, typer.Option(min=200, max=1_000_000, help="How many synthetic people to bring in.")] = 4000,
    leave: Annotated[bool, typer.Option("--exit", help="End everything after the answers are printed.")] = False,
) -> None:
    """Bring people in, train, promote and recommend, with everything running; stays up until Ctrl-C.

    Data goes to `.duet/demo` unless --data-dir says otherwise. A second demo goes on with it.
    """
    settings = load_settings(data_dir=current_invocation(ctx).data_dir or DATA_DIR)
    began = time.monotonic()
    steps = _Steps(settings)
    with _end_on_signals(), _platform(steps):
        steps.run("bring people in", "import", "synthetic", "--people", str(people), "--seed", str(SEED))
        trained = steps.run("train and compare with simpler methods", "train")
        promoted = steps.run("promote", "promote")
        steps.wait("the serving app takes the release", lambda: _refusal(settings, _release_in(promoted)))
        answers = [steps.run(f"recommend for person {p}", "recommend", str(p)) for p in (1, people // 2, people)]
        for answer in (trained, *answers):
            sys.stdout.write(answer.rstrip() + "\n\n")
        urls = _urls(settings)
        for name, url in {**urls, **links(settings, urls)}.items():
            out().print(f"[bold]{name}[/] {escape(url)}")
        out().print(f"[green]✓[/] the demo took {time.monotonic() - began:.0f} s, {steps.longest()}")
        if not leave:
            out().print(f"everything stays up; try `duet --data-dir {settings.data_dir} status`; Ctrl-C ends it")
            _stay(settings)
    out().print("[green]✓[/] everything is stopped")


@dataclass
class _Steps:
    """Runs `duet` commands one after another, each with its output in the log of the demo."""

    settings: Settings
    took_s: dict[str, float] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.settings.data_dir.resolve() / "logs" / "demo.log"

    def run(self, title: str, *arguments: str) -> str:
        """Run `duet ARGUMENTS` and return what it answered on standard output.

        Raises:
            DemoFailed: it ended with an error; its last words were printed.
        """
        command = [sys.executable, "-m", "infra.cli", "--data-dir", str(self.settings.data_dir.resolve()), *arguments]
        shown = f"duet --data-dir {self.settings.data_dir} {' '.join(arguments)}"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        answer = self.log.with_name("demo.out")
        began = time.monotonic()
        with self.log.open("a") as log, answer.open("w") as stdout:
            log.write(f"$ {shown}\n")
            log.flush()
            start = log.tell()
            # In a session of its own: Ctrl-C reaches the demo alone, which then ends things in order.
            process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                start_new_session=True,
                env={**FRESHER, **os.environ},
            )
            try:
                with err().status(f"{title} …") as spinner:
                    while process.poll() is None:
                        time.sleep(TICK_S)
                        last = _last_line(self.log, start)
                        spinner.update(f"{title} … {time.monotonic() - began:.0f} s  [dim]{escape(last)}[/]")
            finally:
                _end(process)
        took_s = time.monotonic() - began
        if process.returncode != 0:
            self._complain(title, shown, answer, start)
            raise DemoFailed(f"`{shown}` ended with exit code {process.returncode}; the log is {self.log}")
        self._done(title, took_s)
        return answer.read_text()

    def wait(self, title: str, refusal: Callable[[], str | None]) -> None:
        """Wait until `refusal()` is None.

        Raises:
            DemoFailed: it still gives a reason after SERVES_WITHIN_S seconds.
        """
        began = time.monotonic()
        with err().status(f"{title} …"):
            while (reason := refusal()) is not None:
                if time.monotonic() - began > SERVES_WITHIN_S:
                    raise DemoFailed(f"{title}: not within {SERVES_WITHIN_S:g} s: {reason}")
                time.sleep(TICK_S)
        self._done(title, time.monotonic() - began)

    def longest(self) -> str:
        """Say which steps took longest."""
        slowest = sorted(self.took_s.items(), key=lambda item: -item[1])[:3]
        return "most of it: " + ", ".join(f"{title} {seconds:.0f} s" for title, seconds in slowest)

    def _done(self, title: str, took_s: float) -> None:
        self.took_s[title] = took_s
        err().print(f"[green]✓[/] {title} [dim]{took_s:.1f} s[/]")

    def _complain(self, title: str, shown: str, answer: Path, start: int) -> None:
        err().print(f"[red]✗[/] {title}: {escape(shown)}")
        with self.log.open("rb") as log:
            log.seek(start)
            written = log.read().decode(errors="replace")
        for line in [*answer.read_text().splitlines()[-15:], *written.splitlines()[-25:]]:
            err().print(f"  [dim]│ {escape(line)}[/]")


@contextmanager
def _platform(steps: _Steps) -> Iterator[None]:
    """Have the platform for the length of the block, and nothing of it afterwards.

    Raises:
        PlatformRunning: somebody else's runs on this data directory; it is left alone.
    """
    from infra.supervisor.platform import stop_platform
    from infra.supervisor.state import refuse_running

    refuse_running(steps.settings.data_dir)
    try:
        steps.run("start everything", "up", "--detach")
        yield
    finally:
        print_note("stopping everything")
        for number in SIGNALS:  # an impatient second Ctrl-C must not leave half of it running
            signal.signal(number, _hear_nothing)
        stop_platform(steps.settings)


@contextmanager
def _end_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo in the orderly way in which Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hear_nothing(_number: int, _frame: FrameType | None) -> None:
    """Take a signal and do nothing; unlike an ignored one it is not inherited by new processes."""


def _stay(settings: Settings) -> None:
    """Return on Ctrl-C, and when `duet down` has stopped the platform from another shell."""
    from infra.supervisor.state import running_state

    try:
        while running_state(settings.data_dir) is not None:
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        return


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        from infra.supervisor.processes import end

        end(process, 30.0)


def _release_in(text: str) -> str | None:
    found: Sequence[str] = RELEASE.findall(text)
    return found[-1] if found else None


def _refusal(settings: Settings, wanted: str | None) -> str | None:
    """Return None when the serving app answers with the wanted release, else what it says."""
    from infra.supervisor.platform import serving_url

    try:
        headers = bearer(own_token(settings))
        url = f"{serving_url(settings)}/health"
        health = httpx.get(url, headers=headers, timeout=5.0, trust_env=False, verify=tls()).json()
        serving, refused = health["release"]["release"], health["release"]["refused"]
        status, reasons = health["status"], "; ".join(health["reasons"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as failure:
        return f"no health report ({type(failure).__name__})"
    if serving is not None and wanted in {None, serving}:
        return None if status == "ready" else one_line(f"it is {status}: {reasons}")
    return one_line(f"it serves {serving} instead of {wanted}{f', because {refused}' if refused else ''}")


def _urls(settings: Settings) -> dict[str, str]:
    from infra.supervisor.state import running_state

    state = running_state(settings.data_dir)
    return state.urls() if state is not None else {}


def _last_line(log: Path, start: int) -> str:
    from infra.supervisor.processes import tail

    if log.stat().st_size <= start:
        return ""
    lines = tail(log, 1).rpartition("\r")[2].strip()
    return lines[:100]

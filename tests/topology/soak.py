"""An hour of mixed load on the platform of compose.yaml, and whether anything grows: `make soak`."""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import redis

from tests.architecture.sources import ROOT
from tests.topology import apart
from tests.topology.mix import Mix
from tests.topology.sampling import Sampler
from tests.topology.slopes import BOUNDS, Figures, failed, tables, trends
from tests.topology.story import NAMES, PEOPLE, Story

SOAKED = (*(name for name in NAMES if name not in {"migrate", "cli"}), "stream")
REBUILD_AT = 1 / 6
"""The part of the time after which the index is rebuilt and promoted: well before the slopes are taken."""
HELP = f"""
Starts the services of infra/compose from Debian's packages, as `make topology` does, with `duet stream` beside them;
imports, trains and promotes; then lets an app of {PEOPLE} people call through the proxy, about five calls a second,
while Dagster's schedules and sensors are on, and rebuilds and promotes an index once.

Every 30 s each process is looked at. What is printed at the end is "first, last, slope an hour": the slope is that of
the line of least squares through the second half, when everything is warm. Memory is what a process has of its own;
mapped files and the shared buffers of PostgreSQL are bounded elsewhere.

Exit code 1 when a call was answered with 5xx or not at all, or when a slope is beyond its bound an hour:
{", ".join(f"{measure} {bound:g}" for measure, bound in BOUNDS.items())}.
"""
EXAMPLES = """examples:
  make soak                       an hour, as root; some six minutes more to start, import and train
  make soak MINUTES=10            a first look: caches still fill, so slopes are steeper than those of an hour
  python -m tests.topology.soak --minutes 60 --keep
                                  leaves logs and volumes behind, to find out who writes what
"""


class Stopped(Exception):
    """Somebody has asked for an end."""


def main() -> None:
    """Read the arguments; go into namespaces of its own; exit with 0, 1, or 2 where it cannot run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.topology.soak",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long calls come; default: 60")
    parser.add_argument("--every", type=float, default=30, metavar="S", help="seconds between two looks; default: 30")
    parser.add_argument(
        "--samples", type=Path, default=ROOT / "build" / "soak.jsonl", help="file for all figures; build/soak.jsonl"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs and volumes behind")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.minutes <= 0 or given.every <= 0:
        parser.error("--minutes and --every must be above 0")
    if given.inside:
        sys.exit(soak(given.inside, given.minutes * 60, given.every, given.samples))
    if (absent := apart.missing()) is not None:
        parser.exit(2, f"error: the soak cannot be run here: {absent}\n")
    with apart.folder("duet-soak-", keep=given.keep) as folder:
        words = ["--inside", folder, "--samples", given.samples.resolve()]
        words += ["--minutes", str(given.minutes), "--every", str(given.every)]
        with subprocess.Popen(
            apart.command("tests.topology.soak", *words), cwd=ROOT, env=apart.environment()
        ) as process:
            # Ctrl-C reaches the one inside as well, which ends everything in order and reports.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(process.returncode)


def soak(folder: Path, length_s: float, every_s: float, kept: Path) -> int:
    """Start everything, let it work, and print what came of it; return the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    story = Story(folder, (*NAMES, "stream"), {"STREAM_ENABLED": "true"})
    for name in SOAKED:
        # Where /tmp of a container would be in memory, and a file that is left there a leak.
        place = folder / "temporary" / name
        place.mkdir(parents=True)
        story.machines[name].environment |= {"TMPDIR": str(place)}
    try:
        key = start(story)
        with story.client(headers={"Authorization": f"Bearer {key}"}) as client:
            mix = Mix(client, redis.Redis.from_url(story.secret("redis_url")), range(1, PEOPLE + 1))
            samples, rebuilt = watch(story, mix, length_s, every_s, kept)
        return report(samples, mix, rebuilt)
    except (AssertionError, Stopped) as failure:
        _say(f"error: {failure}")
        return 1
    finally:
        for machine in story.machines.values():
            machine.kill()


def start(story: Story) -> str:
    """Start every machine, with a release in Production; return an API key."""
    _say("Starting PostgreSQL, its standby, PgBouncer and Redis")
    story.start_stores()
    _say("Starting MLflow and Dagster")
    story.start_pipelines()
    _say(f"Importing {PEOPLE} people, training and promoting: some minutes")
    key = story.first_release()
    _say("Starting both replicas, the proxy and the consumer of streams")
    story.start_serving()
    stream = story.machines["stream"]
    story.begin("stream", lambda: stream.run("duet", "stream", "--alive") or True)
    return key


def watch(
    story: Story, mix: Mix, length_s: float, every_s: float, kept: Path
) -> tuple[list[tuple[float, Figures]], list[str]]:
    """Return the samples of so many seconds under load, and what went wrong with the new index."""
    sampler = Sampler([story.machines[name] for name in SOAKED], story.folder)
    samples: list[tuple[float, Figures]] = []
    wrong: list[str] = []
    rebuild = threading.Timer(length_s * REBUILD_AT, _rebuild, (story, wrong))
    rebuild.daemon = True
    kept.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        with kept.open("w") as file, mix.going_on():
            rebuild.start()
            while (now := time.monotonic() - began) < length_s:
                try:
                    samples.append((now, sampler.sample()))
                except AssertionError as failure:
                    wrong.append(f"a look after {now:.0f} s: {failure}")
                else:
                    file.write(json.dumps([round(now, 1), samples[-1][1]]) + "\n")
                    file.flush()
                    _say(f"{now / 60:5.1f} of {length_s / 60:g} min: {_summary(mix, samples[-1][1])}")
                time.sleep(max(0.0, every_s - (time.monotonic() - began - now)))
    except (KeyboardInterrupt, Stopped):
        wrong.append(f"ended after {(time.monotonic() - began) / 60:.0f} of {length_s / 60:g} min: slopes say little")
    rebuild.cancel()
    return samples, wrong


def _rebuild(story: Story, wrong: list[str]) -> None:
    try:
        story.duet("train", "--job", "rebuild_index")
        story.duet("promote", "--force", "--reason", "a new index")
    except AssertionError as failure:
        wrong.append(f"a new index: {failure}")
    else:
        _say("a new index is built and promoted")


def report(samples: list[tuple[float, Figures]], mix: Mix, wrong: list[str]) -> int:
    """Print the tables and what is wrong; return the exit code."""
    found = trends(samples)
    wrong = [*wrong, *failed(mix.answers), *(trend.sentence() for trend in found if trend.is_beyond)]
    print(tables(found, mix.answers))  # noqa: T201 the report
    for sentence in wrong:
        _say(f"error: {sentence}")
    if not wrong:
        _say("No call failed, and nothing grows faster than it may.")
    return int(bool(wrong))


def _summary(mix: Mix, figures: Figures) -> str:
    sums = {measure: sum(of.get(measure, 0) for of in figures.values()) for measure in BOUNDS}
    return f"{mix.answers.total():,} calls, {len(failed(mix.answers))} kinds of failure; " + ", ".join(
        f"{measure} {total:,.0f}" for measure, total in sums.items()
    )


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)  # noqa: T201 the progress


def _stop(number: int, frame: object) -> None:
    raise Stopped("it was asked to end before anything was measured")


if __name__ == "__main__":
    main()

"""Rebuilds the index of a world as the job does: `python -m pipelines.bench.rebuild_child` reads what from its input.

In a process of its own, so that the most memory it ever held is that of the rebuild. Each step is a line of JSON: what
was done, seconds, CPU seconds of this process, and the largest resident memory so far.
"""

import json
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from infra.telemetry import disable_telemetry
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.errors import TrialFailed
from registry.models.artifacts import read_manifest
from registry.promotion.release_cache import LocalRelease


@dataclass
class Meter:
    """Prints what each step took since the one before."""

    wall_s: float = field(default_factory=time.perf_counter)
    cpu_s: float = field(default_factory=time.process_time)

    def done(self, what: str) -> None:
        """Note the end of a step."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        _say(step=what, s=round(wall_s - self.wall_s, 2), cpu_s=round(cpu_s - self.cpu_s, 2), peak_mb=peak_mb())
        self.wall_s, self.cpu_s = wall_s, cpu_s


def peak_mb() -> int:
    """Return the largest resident memory of this process so far, megabytes."""
    with suppress(OSError):  # what getrusage tells begins with the memory of the process that started this one
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Rebuild once, as told on standard input."""
    disable_telemetry()
    job = json.load(sys.stdin)
    scratch, meter = Path(job["scratch"]), Meter()
    snapshot = _snapshot(job, scratch, meter)
    _index(job, snapshot, scratch, meter)


def _snapshot(job: dict[str, Any], scratch: Path, meter: Meter) -> Any:
    from infra.db.postgres import connect
    from pipelines.ingest.checks import validate_snapshots
    from pipelines.ingest.config import SnapshotConfig
    from pipelines.ingest.snapshots import (
        INTERACTIONS_FILE,
        PEOPLE_FILE,
        choose_instant,
        export_interactions,
        export_people,
        export_slots,
        read_interactions,
        read_people,
    )
    from pipelines.ingest.validation.frames import interaction_facts, people_facts
    from pipelines.results.inputs import DataSnapshot
    from pipelines.results.store import StepResult

    meter.done("libraries")
    config, at = SnapshotConfig(), datetime.fromisoformat(job["until"])
    with connect(job["database_url"], application_name="duet-bench") as connection:
        instant = choose_instant(connection, config.as_of, at, timedelta(days=config.live_within_days))
        export_slots(connection, scratch)
        people_file = export_people(connection, scratch)
        meter.done("people out of Postgres")
        interactions_file = export_interactions(connection, scratch, instant.at)
        meter.done("interactions out of Postgres")
    people = read_people(scratch / PEOPLE_FILE, ["user_id", "visible"])
    interactions = read_interactions(scratch / INTERACTIONS_FILE)
    reports = validate_snapshots(
        people,
        interactions,
        facts={"people": people_facts(people), "interactions": interaction_facts(interactions, instant.at)},
        accepted={"people": None, "interactions": None},
        as_of=instant.at,
        config=config,
        docs=scratch / "docs" / "run",
        people_file=scratch / PEOPLE_FILE,
    )
    meter.done("snapshot validated: " + "; ".join(report.sentence() for report in reports.values()))
    base = {"place": scratch, "run_id": "", "as_of": instant.at}
    return DataSnapshot(
        StepResult(asset="people", digest=people_file.digest, **base),
        StepResult(asset="interactions", digest=interactions_file.digest, **base),
    )


def _index(job: dict[str, Any], snapshot: Any, scratch: Path, meter: Meter) -> None:
    from pipelines.results.store import StepResult
    from pipelines.retrieval.config import IndexBuildConfig
    from pipelines.retrieval.rebuild import rebuilt
    from registry.promotion.trial import ReleaseTrial

    directories = {kind: Path(job["directories"][kind.value]) for kind in ArtifactKind}
    embedding = read_manifest(directories[ArtifactKind.EMBEDDING])
    made = StepResult(
        asset="embeddings",
        place=directories[ArtifactKind.EMBEDDING],
        digest=embedding.digest,
        run_id="",
        as_of=snapshot.as_of,
        t0=datetime.fromisoformat(job["fitted_until"]),
    )
    config = IndexBuildConfig.model_validate(job["config"])
    anew = rebuilt(made, snapshot, config, refresh=True, tell=meter.done)
    place = directories[ArtifactKind.INDEX] = scratch / "index"
    anew.index.save(place, {"embedding_digest": embedding.digest}, metrics=anew.report.metrics())
    meter.done("saved")
    manifests = {kind: read_manifest(directory) for kind, directory in directories.items()}
    digests = {kind: manifest.digest for kind, manifest in manifests.items()}
    local = LocalRelease(ReleaseVersions(1, 2, 1), directories, digests, manifests)
    refused = None
    try:
        ReleaseTrial(offered_schema(), RANKING_FEATURES).prove(local)
    except TrialFailed as refusal:  # a finding, like the recall: what was measured until here stays measured
        refused = str(refusal)
    meter.done("release verified, loaded and tried in a process of its own")
    report = anew.report
    _say(
        result={
            "kind": report.kind.value,
            "people": report.people,
            "from_profile": report.people - anew.known,
            "factors_refreshed": anew.recomputed,
            "nlist": report.nlist,
            "nprobe": report.nprobe,
            "recall": round(report.recall, 4),
            "recall_at": report.recall_at,
            "search_ms": round(report.search_ms, 3),
            "bytes": sum(entry.size for entry in manifests[ArtifactKind.INDEX].files.values()),
            "threads": 2,
            "refused": refused,
            "peak_mb": peak_mb(),
        }
    )


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

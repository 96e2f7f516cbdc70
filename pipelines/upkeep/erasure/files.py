"""What the pipelines keep of a person on disk: results of steps, and the files of rows that imports refused.

A result that holds the person is removed whole: what was made of them is not patched. The step is run again by the
next training. Registered models are no results: `pipelines.upkeep.erasure.models` tells which of them saw the person.
"""

from pathlib import Path
from typing import Final
from uuid import UUID

from pipelines.results.artifacts import ASSET_OF
from pipelines.results.lineage import lineage_of
from pipelines.upkeep.erasure.found import LATE_ROWS, Gone, PlaceFound

_MODELS: Final = frozenset(ASSET_OF.values())
_PERSON_COLUMNS: Final = ("user_id", "actor_id", "target_id")


def erase_results(gone: Gone) -> PlaceFound:
    """Remove the results made while the person was there that hold their number, from this disk and the shared folder.

    What the shared folder has is not looked into: whatever was put there by then is removed. A training that reads such
    a result at this moment fails, and is to be run again.
    """
    results, until = gone.platform.results, gone.since + LATE_ROWS
    snapshot = results.pointer("interactions")
    learned = () if snapshot is None else (lineage_of(snapshot)["dataset_digest"],)

    def theirs(folder: Path) -> bool:
        return holds(folder, gone.user_id)

    removed = results.remove_before(until, theirs, spared=_MODELS)
    after = sum(map(theirs, results.folders(until, spared=_MODELS)))
    return PlaceFound(len(removed), after, datasets=learned if removed else ())


def erase_quarantine_files(gone: Gone) -> PlaceFound:
    """Write the files of refused rows that name the person anew, from what the database has left of them."""
    from pipelines.ingest.loading.quarantine import write_report

    folder = Path(gone.platform.settings.data_dir) / "quarantine"
    texts = {text.lower() for text in gone.erasure.known_as}
    named = [path for path in sorted(folder.glob("*.csv")) if _names(path, texts)]
    before = len(named)
    for path in named:
        write_report(gone.connection, UUID(path.stem), path)
    return PlaceFound(before, 0)


def holds(folder: Path, user_id: int) -> bool:
    """Tell whether a table or an array of ids in a folder has a number."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                columns = [name for name in _PERSON_COLUMNS if name in file.schema_arrow.names]
                for batch in file.iter_batches(columns=columns) if columns else ():
                    if any(pc.any(pc.equal(column, user_id)).as_py() for column in batch.columns):
                        return True
        elif path.suffix == ".npy" and path.stem.endswith("_ids"):
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
            if bool(np.any(ids == user_id)):
                return True
    return False


def _names(path: Path, texts: set[str]) -> bool:
    """Tell whether a value of a row, the last column of the file as JSON, is one of the texts."""
    import csv
    import json

    csv.field_size_limit(2**27)
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            row = json.loads(line.get("row") or "{}")
            values = row.values() if isinstance(row, dict) else ()
            if any(str(value).lower() in texts for value in values if isinstance(value, str | int)):
                return True
    return False

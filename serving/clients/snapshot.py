"""The snapshot of v1 that clients rely on: `make snapshot` takes what was added to the API into it."""

import json
import sys
from pathlib import Path
from typing import Any, Final

from serving.api.openapi import document
from serving.clients.compatibility import breaks, essence

SNAPSHOT: Final = Path(__file__).with_name("v1.json")


def kept() -> dict[str, Any]:
    """Return the snapshot."""
    found: dict[str, Any] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    return found


def main() -> int:
    """Write the API of this checkout as the snapshot, unless it would break a client of the one that is kept."""
    broken = breaks(kept(), document())
    for sentence in broken:
        sys.stderr.write(f"{sentence}\n")
    if broken:
        sys.stderr.write("The snapshot stays as it is: v1 may only grow.\n")
        return 1
    SNAPSHOT.write_text(_lines(essence(document())), encoding="utf-8")
    return 0


def _lines(found: dict[str, Any]) -> str:
    # A line for each path and each schema: the difference of two snapshots can be read.
    parts = {"paths": found["paths"], "schemas": found["components"]["schemas"]}
    written = {
        part: ",\n".join(f"{json.dumps(name)}: {json.dumps(named[name], sort_keys=True)}" for name in sorted(named))
        for part, named in parts.items()
    }
    return f'{{"paths": {{\n{written["paths"]}\n}}, "components": {{"schemas": {{\n{written["schemas"]}\n}}}}}}\n'


if __name__ == "__main__":
    sys.exit(main())

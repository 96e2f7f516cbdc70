"""The threat model names the tests that prove each defence: they are there."""

import re

from tests.architecture.sources import ROOT


def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = (ROOT / "infra" / "SECURITY.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row.split("|")[3])
        assert named, row
        assert not [path for path in named if not (ROOT / path).is_file()]

"""The page for app developers, `serving/API.md`: its commands are run as they stand, and its tables are complete."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from infra.settings import Settings
from infra.web.limits import REFUSALS
from serving import errors
from serving.api.models import MAX_LIMIT, MAX_ROWS
from serving.api.recommendation_models import MAX_ASKERS, MAX_EXCLUDED, MAX_VALUES
from serving.people.names import MAX_NAME
from serving.recommend.paging import MOST
from serving.resilience.deadline import HEADER, SHORTEST_MS, asked_ms
from tests.api.conftest import ROOT, Served
from tests.waiting import until

PAGE = (ROOT / "serving" / "API.md").read_text()
# A command, and what its answer holds among other things.
STEPS = re.findall(r"^```bash\n(curl .*)\n```\n\n```json\n(.*)\n```$", PAGE, re.MULTILINE)
BY_CITY = {"user_id": 1, "filters": {"attributes": {"city": {"in": ["Ghent"]}}}}


def codes(error: type[errors.ApiError]) -> Iterator[tuple[str, str]]:
    yield str(error.status), error.code
    for kind in error.__subclasses__():
        yield from codes(kind)


def holds(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(name in found and holds(found[name], value) for name, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(holds, found, expected))
    return bool(found == expected)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands are curl's, which is not on this machine")
def test_every_command_answers_as_the_page_says(town: Served, connection: psycopg.Connection[Any]) -> None:
    connection.execute("insert into duet.attribute_slots (name, slot) values ('height_cm', 0)")
    connection.execute("""
        update duet.users set attributes = jsonb_build_object(
            'city', 'Ghent', 'smoker', user_id > 5, 'height_cm', 162 + 2 * user_id) where user_id in (2, 4, 6)
    """)
    connection.commit()
    until(lambda: len(town.client.post("/v1/recommendations", json=BY_CITY).json().get("items", [])) == 3)
    environment = {**os.environ, "DUET": town.url, "NO_PROXY": "*"}
    for told, expected in STEPS:
        command = told.replace("X-Deadline-Ms: 1000", "X-Deadline-Ms: 10000")  # this machine may be busy
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        assert holds(answer, json.loads(expected)), f"{command}\n{done.stdout}"
        environment["NEXT"] = answer.get("next") or ""
    assert len(STEPS) == PAGE.count("curl -s")


def test_the_page_says_what_to_do_about_every_error() -> None:
    told = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.MULTILINE)
    before_parsing = {(str(status), code) for code, status in REFUSALS.items()}
    assert sorted(told) == sorted({*codes(errors.ApiError)} | before_parsing)


def test_the_page_states_the_limits_that_are_in_force() -> None:
    serving = Settings().serving
    stated = dict(re.findall(r"^\| ([^|]+) \| ([\d,]+)\b", PAGE, re.MULTILINE))
    assert {name: int(value.replace(",", "")) for name, value in stated.items() if not name.isdigit()} == {
        "people in an answer (`limit`)": MAX_LIMIT,
        "people on all pages of one list": MOST,
        "people in `exclude`": MAX_EXCLUDED,
        "numbers or texts in a filter (`in`)": MAX_VALUES,
        "people in a batch of recommendations": MAX_ASKERS,
        "interactions or people in a batch": MAX_ROWS,
        "characters in an id": MAX_NAME,
        "body of a call": serving.max_body_bytes // 1024,
        "calls of a key in a minute": serving.auth.requests_per_minute,
        "time for a call": serving.timeout_s,
        "time for recommendations": serving.deadline_ms,
    }


def test_the_deadlines_on_the_page_are_within_the_bounds_in_force() -> None:
    longest_ms = round(Settings().serving.timeout_s * 1000)
    assert f"from {SHORTEST_MS} to {longest_ms:,} ms" in PAGE
    for told in re.findall(r"X-Deadline-Ms: (\d+)", PAGE):
        assert asked_ms({HEADER: told.encode()}, longest_ms) == int(told)

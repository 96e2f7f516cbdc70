"""What `make check` and `make audit` say of packages and files: the script itself, on small examples."""

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.architecture.sources import ROOT

TODAY = date(2026, 11, 30)
WEAK = "GHSA-weak-weak-weak"
LICENCES = '[licences]\nallowed = ["MIT", "BSD-3-Clause"]\n'
PIN = "packaging==25.0 --hash=sha256:" + "0" * 64 + "\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply_chain", ROOT / ".ci" / "supply_chain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def excepting(script: ModuleType, folder: Path, *entries: str) -> Any:
    path = folder / "exceptions.toml"
    path.write_text(LICENCES + "\n".join(entries))
    return script.Exceptions.read(path, TODAY)


def licence(name: str, words: str) -> dict[str, str]:
    return {"Name": name, "Version": "1", "License": words}


def test_a_licence_passes_if_each_of_its_parts_is_allowed_or_excepted_for_this_package(
    script: ModuleType, tmp_path: Path
) -> None:
    entry = '[[licence]]\npackages = ["b", "gone"]\nlicence = ["GPL-3.0"]\nwhy = "A tool that no image holds."\n'
    exceptions = excepting(script, tmp_path, entry)
    found = [
        licence("a", "MIT AND (GPL-3.0 OR BSD-3-Clause)"),
        licence("B", "GPL-3.0"),
        licence("c", "MIT; GPL-3.0"),
        licence("duet", "UNKNOWN"),
    ]
    assert list(script.licences(found, exceptions)) == [
        "c 1 has the licence `GPL-3.0`, which is not among those allowed.",
        "gone needs no exception for its licence any more.",
    ]


def test_a_password_a_token_and_a_key_are_found_and_what_is_excepted_is_not(script: ModuleType, tmp_path: Path) -> None:
    token = "".join(f"{word:x}" for word in (0x8F3A9C, 0x1B7E55, 0xD20C4F, 0x6E91B8, 0x30F7AA))
    lines = {
        "a.py": [f'url = "postgresql://duet:{name}@db/duet"' for name in ("let-in", "planted")],
        "b.yaml": [f'api_key: "{token}"'],
        "c.pem": ["-----BEGIN " + "PRIVATE KEY-----"],
        "d.py": ['greeting = "password or secret, says nobody"'],
    }
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content))
    entry = '[[value]]\nvalues = ["planted", "gone"]\nwhy = "Planted by a test of logs."\n'
    said = list(script.secrets(tmp_path, lines, excepting(script, tmp_path, entry)))
    assert {sentence.partition(" may ")[0] for sentence in said[:-1]} == {"a.py:1", "b.yaml:1", "c.pem:1"}
    assert said[-1] == "`gone` is found nowhere any more and needs no exception."
    assert not [sentence for sentence in said if token in sentence or "let-in" in sentence], "it is printed nowhere"


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('[[value]]\nvalues = ["x"]\nwhy = "because"', "has no reason"),
        ('[[value]]\nvalues = ["x"]\nwhy = "A reason that was good."\nuntil = 2026-11-30', "ended on 2026-11-30"),
        (f'[[weakness]]\nid = "{WEAK}"\nwhy = "It is never reached here."', "has no day `until`"),
    ],
)
def test_an_exception_without_a_reason_or_past_its_day_is_an_error(
    script: ModuleType, tmp_path: Path, entry: str, complaint: str
) -> None:
    with pytest.raises(SystemExit, match=complaint):
        excepting(script, tmp_path, entry)


def test_no_file_of_the_project_holds_a_secret(script: ModuleType) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("what is under version control is known in a clone only")
    exceptions = script.Exceptions.read(script.EXCEPTIONS, datetime.now(UTC).date())
    names = script.tracked_files()
    assert len(names) > 500
    assert list(script.secrets(ROOT, names, exceptions)) == []


class _Advisories(BaseHTTPRequestHandler):
    """Answers as OSV does: every version of `packaging` is weak."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]["name"]
        ever = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
        every = {"package": {"name": asked, "ecosystem": "PyPI"}, "ranges": ever}
        told = {"vulns": [{"id": WEAK, "summary": "weak", "details": "weak", "affected": [every]}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told if asked == "packaging" else {}).encode())

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def advisories() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        server.shutdown()


@pytest.mark.parametrize(("until", "code"), [("2999-01-01", 0), (None, 1)])
def test_an_audit_fails_at_a_known_weakness_that_is_not_excepted(
    tmp_path: Path, advisories: str, until: str | None, code: int
) -> None:
    lock, exceptions = tmp_path / "some.lock", tmp_path / "exceptions.toml"
    lock.write_text(PIN)
    entry = f'[[weakness]]\nid = "{WEAK}"\nuntil = {until}\nwhy = "It is never reached here."\n'
    exceptions.write_text(LICENCES + (entry if until else ""))
    words = ("audit", "--lock", lock, "--exceptions", exceptions, "-s", "osv", "--osv-url", advisories)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "supply_chain.py", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, WEAK in done.stdout) == (code, not until), done.stdout + done.stderr

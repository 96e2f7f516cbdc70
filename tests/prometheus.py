"""A real Prometheus with our rules that asks every second, judges by rates of seconds and waits for nothing."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.embedded.ports import free_port
from infra.monitoring.dashboards import FOLDER
from tests.waiting import until

WINDOW = "5s"
START_S = 60.0


class Prometheus:
    """A client of a running Prometheus; `folder` is that of its configuration."""

    def __init__(self, client: httpx.Client, folder: Path) -> None:
        self._client = client
        self._folder = folder

    def ask(self, *ports: int) -> None:
        """Have it ask the apps at these ports of this machine from now on, and no other."""
        _name_targets(self._folder, *ports)

    def answers(self, query: str) -> list[dict[str, Any]]:
        """Return the series that a query brings now; none while Prometheus is not ready."""
        response = self._client.get("/query", params={"query": query})
        if response.status_code == 503:
            return []
        assert response.status_code == 200, response.text
        return list(response.json()["data"]["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule and how it is."""
        groups = self._client.get("/rules").raise_for_status().json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing(self, *, but_of: str = "") -> set[str]:
        """Return the names of the alerts that fire, without those of one dependency."""
        query = f'ALERTS{{alertstate="firing",dependency!="{but_of}"}}' if but_of else 'ALERTS{alertstate="firing"}'
        return {series["metric"]["alertname"] for series in self.answers(query)}


@contextmanager
def watching(
    port: int, folder: Path, *, key: str = "none is needed here", shortened: Mapping[str, str] | None = None
) -> Iterator[Prometheus]:
    """Run one beside the app at a port of this machine for the length of the block; skips where it is not installed.

    `shortened` are words of the rules with ages, and what stands for them here.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("`prometheus` is not installed: Debian's package prometheus has it")
    _configure(folder, key, shortened or {})
    _name_targets(folder, port)
    address, log = f"127.0.0.1:{free_port()}", folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", timeout=20, trust_env=False) as client:
            prometheus = Prometheus(client, folder)

            def has_asked() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return bool(prometheus.answers('up{job="duet-serving"} == 1'))
                except httpx.TransportError:
                    return False

            until(has_asked, START_S, log.read_text)
            yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def _configure(folder: Path, key: str, shortened: Mapping[str, str]) -> None:
    configuration = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for name in ("rules", "targets", "secrets"):
        (folder / name).mkdir(parents=True)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    found: set[str] = set()
    for path in (FOLDER / "rules").glob("*.yaml"):
        text = re.sub(r"\[\d+[mhd]\]", f"[{WINDOW}]", path.read_text(encoding="utf-8"))
        for words, short in shortened.items():
            if words in text:
                found.add(words)
            text = text.replace(words, short)
        (folder / "rules" / path.name).write_text(re.sub(r"\bfor: \d+[mh]", "for: 0s", text))
    assert found == set(shortened), f"no rule says {set(shortened) - found}"
    (folder / "secrets" / "metrics_key").write_text(key)


def _name_targets(folder: Path, *ports: int) -> None:
    written = folder / "written.yaml"
    written.write_text(yaml.safe_dump([{"targets": [f"127.0.0.1:{port}" for port in ports]}]))
    written.replace(folder / "targets" / "serving.yaml")  # it reads what is there at any moment

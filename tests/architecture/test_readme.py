"""Every command that the README, the guide and the page of the API show is run by a test; TOML says by which one."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

DOCUMENTS = {
    "README.md": "readme_commands.toml",
    "infra/README.md": "guide_commands.toml",
    "serving/API.md": "api_commands.toml",
}


def commands_of(document: str) -> dict[str, str]:
    return tomllib.loads(Path(__file__).with_name(DOCUMENTS[document]).read_text())


def shown_commands(document: str) -> list[str]:
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip().removeprefix("$ ") for block in blocks for line in joined(block)]
    return [line for line in lines if line and not line.startswith("#")]


def joined(block: str) -> list[str]:
    return re.sub(r"\s*\\\n\s*", " ", block).splitlines()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_is_run_by_a_test(document: str) -> None:
    assert [command for command in shown_commands(document) if command not in commands_of(document)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_list_of_tested_commands_is_no_longer_than_the_document(document: str) -> None:
    assert sorted(commands_of(document).keys() - set(shown_commands(document))) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_named_tests_exist(document: str) -> None:
    for command, test in commands_of(document).items():
        file, _, name = test.partition("::")
        path = ROOT / file
        assert path.is_file(), f"{command}: {file} is missing"
        assert f"def {name}(" in path.read_text(), f"{command}: {file} has no {name}"

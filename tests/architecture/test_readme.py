"""Every command that the README shows is run by a test; `readme_commands.toml` says by which one."""

import re
import tomllib
from pathlib import Path

from tests.architecture.sources import ROOT

README = (ROOT / "README.md").read_text()
TESTED: dict[str, str] = tomllib.loads(Path(__file__).with_name("readme_commands.toml").read_text())


def shown_commands() -> list[str]:
    blocks = re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip().removeprefix("$ ") for block in blocks for line in joined(block)]
    return [line for line in lines if line and not line.startswith("#")]


def joined(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    assert [command for command in shown_commands() if command not in TESTED] == []


def test_the_list_of_tested_commands_is_no_longer_than_the_readme() -> None:
    assert sorted(TESTED.keys() - set(shown_commands())) == []


def test_the_named_tests_exist() -> None:
    for command, test in TESTED.items():
        file, _, name = test.partition("::")
        path = ROOT / file
        assert path.is_file(), f"{command}: {file} is missing"
        assert f"def {name}(" in path.read_text(), f"{command}: {file} has no {name}"

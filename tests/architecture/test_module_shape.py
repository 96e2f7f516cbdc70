import ast
import re
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, modules, name_of, text_of, tracked, tree_of

LIMIT_LINES = 400
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
TOP_LEVEL = {"infra", "feature_repo", "registry", "pipelines", "serving", "tests", ".ci"}
# The brackets keep this file from finding itself.
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b")
REGISTRIES = re.compile(r"pypi[.]org|python[h]osted|(?<!--no-emit-)index[-_]url|extra[-_]index", re.IGNORECASE)


def test_no_module_is_longer_than_the_limit() -> None:
    lengths = {name_of(path): len(text_of(path).splitlines()) for path in [*modules(), *modules("tests")]}
    too_long = {name: lines for name, lines in lengths.items() if lines > LIMIT_LINES}
    assert not too_long


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [name_of(path) for path in modules() if path.stem in VAGUE_NAMES]


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(path) for path in modules() if text_of(path).strip() and not ast.get_docstring(tree_of(path))]
    assert not silent


def test_no_two_classes_have_the_same_name() -> None:
    places: dict[str, list[str]] = {}
    for path in modules():
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_nothing_unfinished_is_marked() -> None:
    marked = [
        f"{name_of(path)}:{number}"
        for path in tracked()
        if path.suffix not in {".lock", ".csv"}
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not marked


def test_no_package_guards_with_assert() -> None:
    guards = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert)
    ]
    assert not guards


def test_no_tracked_file_names_a_package_registry() -> None:
    naming = [
        f"{name_of(path)}:{number}"
        for path in tracked()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if REGISTRIES.search(line)
    ]
    assert not naming


def test_the_top_level_holds_only_what_was_agreed() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    assert folders <= TOP_LEVEL


@pytest.mark.parametrize("path", modules("tests"), ids=name_of)
def test_file_names_of_tests_are_unique(path: Path) -> None:
    if path.name.startswith("test_"):
        assert [name_of(other) for other in modules("tests") if other.name == path.name] == [name_of(path)]

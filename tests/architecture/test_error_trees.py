import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.sources import modules, name_of, text_of, tree_of

ERROR_MODULES = [path for path in modules() if path.name == "errors.py"]


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in tree_of(path).body if isinstance(node, ast.ClassDef)]


def leaves(path: Path) -> list[str]:
    """Classes that are raised themselves: nothing in the project derives from them."""
    return [node.name for node in classes(path) if node.name not in bases()]


@cache
def bases() -> set[str]:
    return {
        ast.unparse(base).rpartition(".")[2] for module in modules() for c in all_classes(module) for base in c.bases
    }


@cache
def words_of_tests() -> frozenset[str]:
    return frozenset(re.findall(r"\w+", "\n".join(text_of(test) for test in modules("tests"))))


def all_classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", ERROR_MODULES, ids=name_of)
def test_the_tree_of_errors_is_drawn_in_the_docstring(path: Path) -> None:
    drawn = ast.get_docstring(tree_of(path)) or ""
    missing = [node.name for node in classes(path) if not re.search(rf"\b{node.name}\b", drawn)]
    assert not missing


@pytest.mark.parametrize("path", ERROR_MODULES, ids=name_of)
def test_every_error_says_in_one_sentence_why_it_exists(path: Path) -> None:
    assert not [node.name for node in classes(path) if not ast.get_docstring(node)]


@pytest.mark.parametrize("path", ERROR_MODULES, ids=name_of)
def test_every_error_that_is_raised_has_a_test(path: Path) -> None:
    assert not set(leaves(path)) - words_of_tests()


def test_every_exception_of_ours_belongs_to_one_tree() -> None:
    strays = [
        f"{name_of(path)}: {node.name}({ast.unparse(base)})"
        for path in modules()
        for node in all_classes(path)
        for base in node.bases
        if ast.unparse(base) in {"Exception", "BaseException", "RuntimeError", "ValueError", "LookupError", "KeyError"}
        if node.name != "DuetError" and not any("Error" in ast.unparse(b) and b is not base for b in node.bases)
    ]
    assert not strays

"""No plot ends a step: what cannot be drawn is a picture that says so."""

import importlib
import inspect
from pathlib import Path

import pandas as pd
import pytest

import pipelines
from pipelines.evaluation import figures
from pipelines.evaluation.figures import picture
from pipelines.ingest.plots import interaction_volume

PNG = b"\x89PNG"


def test_a_plot_that_breaks_is_a_picture_that_says_why(caplog: pytest.LogCaptureFixture) -> None:
    @picture
    def broken_plot() -> bytes:
        raise ValueError("no $ in _this_ range")

    assert broken_plot().startswith(PNG)
    assert "`broken_plot` could not be drawn: ValueError: no $ in _this_ range" in caplog.text


def test_without_the_library_there_is_still_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_canvas(*_: object) -> None:
        raise ImportError

    monkeypatch.setattr(figures, "canvas", no_canvas)

    @picture
    def broken_plot() -> bytes:
        raise ValueError

    assert broken_plot().startswith(PNG)


def test_an_interaction_of_the_year_1_is_drawn_or_excused() -> None:
    at = pd.Series(pd.array(["0001-01-01", "2026-01-01"], dtype="datetime64[us, UTC]"))
    frame = pd.DataFrame({"occurred_at": at, "kind": ["like", "pass"]})
    assert interaction_volume(frame).startswith(PNG)


def test_every_function_that_draws_is_guarded() -> None:
    root = Path(pipelines.__file__).parent
    modules = [path for path in root.rglob("*.py") if "canvas(" in path.read_text() or path.name == "plots.py"]
    bare = []
    for path in modules:
        name = ".".join(("pipelines", *path.relative_to(root).with_suffix("").parts))
        for called, function in inspect.getmembers(importlib.import_module(name), inspect.isfunction):
            is_drawing = function.__module__ == name and inspect.signature(function).return_annotation in {
                bytes,
                "bytes",
            }
            if is_drawing and not called.startswith("_") and not hasattr(function, "__wrapped__"):
                bare.append(f"{name}.{called}")
    assert bare == []
    assert len(modules) > 5

"""Run suites with Great Expectations in memory and say what failed, with counts and sample rows.

Nothing is left in a Great Expectations project folder; what is kept are the outcome, returned as plain values, and the
Data Docs pages. Importing the library takes seconds, so it happens only here, inside the functions.
"""

import contextlib
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.telemetry import disable_telemetry

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 5
KEEP_DOCS = 20


@dataclass(frozen=True)
class ExpectationOutcome:
    """How one expectation went."""

    suite: str
    expectation: str
    column: str
    passed: bool
    checked: int
    unexpected: int
    observed: str
    samples: str
    told: str = ""

    def sentence(self) -> str:
        """Say what failed: in words where there are some, else with the expectation, counts and sample rows."""
        if self.told:
            return self.told
        return f"{self.column} {self.expectation}: {self.unexpected} of {self.checked} rows, e.g. {self.samples}"


@dataclass(frozen=True)
class ValidationReport:
    """How all expectations on one table went, and where the pages about it are."""

    outcomes: list[ExpectationOutcome] = field(default_factory=list)
    document: Path | None = None

    @property
    def passed(self) -> bool:
        """Tell whether nothing failed."""
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def failures(self) -> list[ExpectationOutcome]:
        """Return what failed."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def of(self, *suites: str) -> "ValidationReport":
        """Return the part of the report that is about these suites."""
        return ValidationReport([found for found in self.outcomes if found.suite in suites], self.document)

    def sentence(self) -> str:
        """Say in one sentence what failed, with counts."""
        if self.passed:
            return f"all {len(self.outcomes)} expectations hold"
        # Two expectations may fail for one reason.
        told = "; ".join(dict.fromkeys(failure.sentence() for failure in self.failures))
        return f"{len(self.failures)} of {len(self.outcomes)} expectations failed: {told}"


def validate(
    suites: Mapping[str, tuple["pd.DataFrame", Sequence[Any]]],
    docs_directory: Path,
    identify_by: Mapping[str, Sequence[str]] | None = None,
) -> ValidationReport:
    """Run each suite on its frame and write Data Docs about all of them.

    Args:
        suites: name -> (frame, expectations).
        docs_directory: where the pages go; older siblings beyond a few are deleted.
        identify_by: name -> columns whose values name a failing row.
    """
    disable_telemetry()
    with _quiet():
        return _validate(suites, docs_directory, identify_by or {})


def _validate(
    suites: Mapping[str, tuple["pd.DataFrame", Sequence[Any]]],
    docs_directory: Path,
    identify_by: Mapping[str, Sequence[str]],
) -> ValidationReport:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    _document_to(context, docs_directory)
    source = context.data_sources.add_pandas("snapshot")
    outcomes: list[ExpectationOutcome] = []
    for name, (frame, expectations) in suites.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        result_format = {"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES}
        columns = list(identify_by.get(name, ()))
        if columns:
            result_format["unexpected_index_column_names"] = columns
        result = definition.run(batch_parameters={"dataframe": frame}, result_format=result_format)
        outcomes.extend(_outcome(name, found, len(frame)) for found in result.results)
    context.build_data_docs()
    return ValidationReport(outcomes, docs_directory / "index.html")


def _outcome(suite: str, found: Any, rows: int) -> ExpectationOutcome:
    asked = found.expectation_config
    details = dict(found.result or {})
    named = details.get("partial_unexpected_index_list") or []
    if not named or not isinstance(named[0], dict):  # without columns to name a row, its position says nothing
        named = details.get("partial_unexpected_list") or []
    error = _exception_of(found.exception_info)
    unexpected = details.get("unexpected_count")
    observed = details.get("observed_value", "")
    return ExpectationOutcome(
        suite=suite,
        expectation=_name(asked),
        column=_column(asked.kwargs),
        passed=bool(found.success),
        checked=int(details.get("element_count", rows)),
        unexpected=int(unexpected) if unexpected is not None else (0 if found.success else rows),
        observed=error or str(observed),
        samples=json.dumps(named[:SAMPLES], default=str) if not found.success else "",
    )


def _name(asked: Any) -> str:
    limits = {
        key: asked.kwargs[key]
        for key in ("min_value", "max_value", "value_set", "type_")
        if asked.kwargs.get(key) is not None
    }
    told = ", ".join(f"{key.removesuffix('_value').rstrip('_')} {value}" for key, value in limits.items())
    name = str(asked.type).removeprefix("expect_").replace("_", " ")
    return f"{name} ({told})" if told else name


def _column(kwargs: Mapping[str, Any]) -> str:
    if "column" in kwargs:
        return str(kwargs["column"])
    columns = kwargs.get("column_list") or [kwargs.get("column_A"), kwargs.get("column_B")]
    return ", ".join(str(column) for column in columns if column)


def _exception_of(info: Any) -> str:
    """Return why an expectation could not be computed; it then counts as failed."""
    if not info:
        return ""
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]
    return "; ".join(messages)


def _document_to(context: Any, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(directory)},
    }
    for existing in list(context.get_site_names()):
        context.delete_data_docs_site(existing)
    context.add_data_docs_site(site_config=site, site_name="duet")
    siblings = sorted(
        (path for path in directory.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for old in siblings[:-KEEP_DOCS]:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's own deprecations and chatter away from people who cannot act on them."""
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)

"""What `duet train --set` understands, and how a failed run is told."""

import dagster as dg
import pytest

from pipelines.errors import InvalidSetting
from pipelines.presentation import MAX_PLOT_BYTES, plot, table
from pipelines.runs.running import parse_settings


def test_settings_are_read_as_yaml_values() -> None:
    given = ["ranker.max_depth=6", "ranker.learning_rate=0.1", "evaluation.protocol=met", "features.history=false"]
    assert parse_settings(given) == {
        "ranker": {"max_depth": 6, "learning_rate": 0.1},
        "evaluation": {"protocol": "met"},
        "features": {"history": False},
    }


@pytest.mark.parametrize("word", ["ranker.max_depth", "max_depth=6", "ranker.=6", "=", "ranker.max_depth=[1"])
def test_a_malformed_setting_is_refused(word: str) -> None:
    with pytest.raises(InvalidSetting, match="--set"):
        parse_settings([word])


def test_a_table_has_typed_columns_and_no_nan() -> None:
    shown = table(
        [{"name": "a", "n": 1, "share": float("nan"), "ok": True}, {"name": "b", "n": 2, "share": 0.5, "ok": False}]
    )
    assert isinstance(shown, dg.TableMetadataValue)
    assert [(column.name, column.type) for column in shown.schema.columns] == [
        ("name", "string"),
        ("n", "int"),
        ("share", "float"),
        ("ok", "bool"),
    ]
    assert shown.records[0].data["share"] is None


def test_a_plot_too_large_for_the_event_log_becomes_a_note() -> None:
    assert "too large" in str(plot(b"x" * (MAX_PLOT_BYTES + 1), "curve").value)

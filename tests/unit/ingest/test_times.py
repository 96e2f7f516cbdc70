"""Times and dates: each is the instant or the day that was written, or a fault; none is guessed and none moves."""

from datetime import UTC, date, datetime
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest

from feature_repo.contract.faults import Faults
from pipelines.ingest.columns.mapping import ColumnSource
from pipelines.ingest.files import times
from pipelines.ingest.files.counting import TimeCount


def parsed(reader: Any, array: pa.Array, **options: Any) -> tuple[list[Any], list[str]]:
    faults = Faults(len(array))
    values = reader(array, faults, "x", **options)
    return values.to_pylist(), faults.reasons()


def test_times_are_read_with_zones_formats_and_units() -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    texts = pa.array(["2026-05-01 12:00", "2026-05-01T14:00:00+02:00", "2026-13-01", "soon"])
    assert parsed(times.instants, texts) == ([noon, noon, None, None], ["wrong_type: x"] * 2)
    assert parsed(times.instants, pa.array(["1.5.2026 12"]), text_format="%d.%m.%Y %H")[0] == [noon]
    for unit, value in (("s", 1777636800), ("ms", 1777636800e3), ("us", 1777636800e6), ("ns", 1777636800e9)):
        assert parsed(times.instants, pa.array([value]), unit=unit)[0] == [noon]
    assert parsed(times.instants, pa.array([1e300]), unit="s") == ([None], ["out_of_range: x"])


def test_a_time_without_zone_is_read_in_the_declared_zone_also_in_the_doubled_and_the_skipped_hour() -> None:
    texts = pa.array(["2026-05-01 14:00", "2026-05-01T12:00Z", "2026-10-25 02:30", "2026-03-29 02:30"])
    values, reasons = parsed(times.instants, texts, timezone="Europe/Paris")
    assert reasons == []
    assert [value.isoformat() for value in values] == [
        "2026-05-01T12:00:00+00:00",
        "2026-05-01T12:00:00+00:00",
        "2026-10-25T00:30:00+00:00",
        "2026-03-29T01:00:00+00:00",
    ]


def test_typed_times_and_dates_keep_their_meaning() -> None:
    stamp = datetime(2026, 5, 1, 12)  # noqa: DTZ001 - a Parquet column without a zone
    assert parsed(times.instants, pa.array([stamp], pa.timestamp("ns")))[0] == [stamp.replace(tzinfo=UTC)]
    assert parsed(times.instants, pa.array([date(2026, 5, 1)]))[0] == [datetime(2026, 5, 1, tzinfo=UTC)]
    assert parsed(times.dates, pa.array([stamp], pa.timestamp("ms")))[0] == [date(2026, 5, 1)]
    assert parsed(times.dates, pa.array(["1990-02-29", "1992-02-29"])) == (
        [None, date(1992, 2, 29)],
        ["wrong_type: x"],
    )


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01",
        "2024-03",
        "20240301",
        "2024-03-01 00",
        "2024-03-01T00:00",
        "2024-03-01 00:00:00",
        "2024-03-01T00:00:00.000",
        "2024-02-29T18:30:00Z",
        "2024-02-29 18:30 +00:00",
        "2024-02-29T19:30+01",
        "2024-02-29T18:00:00.5-0030",
        "2024-02-29T8:30-10:00",
        "2024-3-1 0:00",
        "2024-03-01T0:00+5:30",
        "2024-03-01 00:00 +5:30",
        "2024-02-29T23:30+5",
        "2024-02-29 18:30:0Z",
        "2024-02-29T18:30:00.Z",
        "2024-02-29T13:0-5:30",
    ],
)
def test_a_date_without_a_time_is_midnight_in_the_zone_however_it_is_written(text: str) -> None:
    [value], reasons = parsed(times.instants, pa.array([text]), timezone="Asia/Kolkata")
    assert reasons == []
    assert value.replace(microsecond=0, second=0) == datetime(2024, 2, 29, 18, 30, tzinfo=UTC)


def test_a_zone_is_applied_once_however_it_is_written() -> None:
    clocks = [
        "9",
        "09",
        "9:5",
        "09:00",
        "0900",
        "9:00:0",
        "09:00:00",
        "090000",
        "09:00:00.",
        "9:00:00.5",
        "09:00:00,25",
    ]
    zones = ["Z", "z", " Z", "+5", "+05", " +5", "+5:3", "+5:30", "+0530", " +05:30", "-5", "-05", "\t-05:00"]
    days = ["2024-03-01", "20240301", "2024-3-1", "2024/03/01"]
    texts = pa.array([f"{day}{gap}{clock}{zone}" for day in days for gap in "T " for clock in clocks for zone in zones])
    values, _ = parsed(times.instants, texts)
    assert len([value for value in values if value is not None]) > len(texts) // 2
    assert parsed(times.instants, texts, timezone="Asia/Kolkata")[0] == values
    days_read, _ = parsed(times.dates, texts)
    assert set(days_read) <= {date(2024, 3, 1), None}


@pytest.mark.parametrize("text", ["1990", "1990-01", "199001", " 1990-1 ", "1990/05", "1990.5", "1990 05", r"1990\05"])
def test_a_year_or_a_month_is_no_day_of_birth_unless_a_format_says_so(text: str) -> None:
    assert parsed(times.dates, pa.array([text])) == ([None], ["wrong_type: x"])
    assert parsed(times.dates, pa.array(["1990"]), text_format="%Y") == ([date(1990, 1, 1)], [])


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Brussels"])
def test_no_row_lends_its_zone_to_another(timezone: str) -> None:
    texts = ["2026-06-01T12:00:00-05:00", "2026-06-02 12:00", "2026-06-03T12:00:00", "2026-06-04T12:00Z", "2026-06-05"]
    alone = {text: parsed(times.instants, pa.array([text]), timezone=timezone)[0][0] for text in texts}
    for order in permutations(texts):
        assert parsed(times.instants, pa.array(order), timezone=timezone) == ([alone[text] for text in order], [])


def test_typed_dates_and_times_without_a_zone_are_read_in_the_declared_one() -> None:
    noon = datetime(2024, 3, 1, 12)  # noqa: DTZ001 - a Parquet column without a zone
    for array in (pa.array([noon], pa.timestamp("ms")), pa.array([noon], pa.timestamp("ns"))):
        assert parsed(times.instants, array, timezone="Asia/Kolkata")[0] == [datetime(2024, 3, 1, 6, 30, tzinfo=UTC)]
    assert parsed(times.instants, pa.array([noon.date()]), timezone="Asia/Kolkata")[0] == [
        datetime(2024, 2, 29, 18, 30, tzinfo=UTC)
    ]
    zoned = pa.array([noon], pa.timestamp("us", "Europe/Paris"))
    assert parsed(times.instants, zoned, timezone="Asia/Kolkata")[0] == [noon.replace(tzinfo=UTC)]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["0001-01-01"]),
        pa.array(["1500-06-01 10:00"]),
        pa.array(["9000-01-01T00:00:00Z"]),
        pa.array([10**15], pa.int64()).cast(pa.timestamp("s")),
        pa.array([-(10**15)], pa.int64()).cast(pa.timestamp("s")),
        pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
        pa.array([2**62], pa.int64()).cast(pa.timestamp("us")),
    ],
)
def test_an_instant_that_no_calendar_here_holds_is_out_of_range_and_never_wraps_around(array: pa.Array) -> None:
    assert parsed(times.instants, array) == ([None], ["out_of_range: x"])


@pytest.mark.parametrize("reader", [times.instants, times.dates])
@pytest.mark.parametrize("text_format", [None, "%d.%m.%Y", "%Y"])
def test_the_words_for_this_instant_are_no_times(reader: Any, text_format: str | None) -> None:
    texts = pa.array(["now", "today", "Now", " today "])
    assert parsed(reader, texts, text_format=text_format) == ([None] * 4, ["wrong_type: x"] * 4)


def test_a_year_beyond_the_parser_is_out_of_range_by_its_own_format_too() -> None:
    assert parsed(times.instants, pa.array(["1.1.0001", "1.1"]), text_format="%d.%m.%Y") == (
        [None, None],
        ["out_of_range: x", "wrong_type: x"],
    )


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["1990-05-01", "1990-05-01T00:00:00+02:00", "1990-05-01 23:30:00-11:00", "19900501"]),
        pa.array(["1990-5-1", "1990-05-01 0:00:00+02:00", "1990-05-01T00:00+5", "1990-05-01T23:0:0.-1:00"]),
        pa.array([datetime(1990, 4, 30, 22, tzinfo=UTC)] * 4, pa.timestamp("us", "Europe/Paris")),
        pa.array([date(1990, 5, 1)] * 4, pa.date64()),
        pa.array([datetime(1990, 5, 1, 23, 59)] * 4, pa.timestamp("s")),  # noqa: DTZ001 - without a zone
    ],
)
def test_no_zone_moves_a_date_of_birth(array: pa.Array) -> None:
    assert parsed(times.dates, array) == ([date(1990, 5, 1)] * 4, [])


def test_a_format_with_a_zone_or_a_unit_gives_the_day_that_is_meant() -> None:
    texts = pa.array(["01.05.1990 00:00 +0200", "01.05.1990 23:59 -1100", "x"])
    assert parsed(times.dates, texts, text_format="%d.%m.%Y %H:%M %z") == (
        [date(1990, 5, 1), date(1990, 5, 1), None],
        ["wrong_type: x"],
    )
    assert parsed(times.dates, pa.array([-86_400, 641_520_000]), unit="s") == (
        [date(1969, 12, 31), date(1990, 5, 1)],
        [],
    )


@pytest.mark.parametrize(
    ("origin", "array", "told"),
    [
        (
            ColumnSource(column="t", unit="ms"),
            pa.array(["1719264011", "1719264012", "1719264013000"]),
            "2 of 3 times .*1970",
        ),
        (
            ColumnSource(column="t"),
            pa.array(["1719264011", "1719264012.5", "2024-01-01"]),
            "2 of 3 times .* plain numbers",
        ),
        (ColumnSource(column="t", unit="s"), pa.array(["1719264011", "0", "5"]), ""),
        (ColumnSource(column="t"), pa.array(["2024-01-01", "soon", "later"]), ""),
    ],
)
def test_a_wrong_unit_is_told_where_most_times_show_it(origin: ColumnSource, array: pa.Array, told: str) -> None:
    count = TimeCount()
    stamps = times.instants(array, Faults(len(array)), "t", unit=origin.unit)
    count.note("occurred_at", origin, array, stamps)
    if told:
        [note] = count.notes()
        assert note.startswith(told.split(" .*", maxsplit=1)[0])
        assert told.split(".*")[1].strip() in note
    else:
        assert count.notes() == []

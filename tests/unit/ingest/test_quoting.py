"""Stray quotes: none of them makes rows vanish, whatever the sizes of the blocks that the file is read in."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.files.opening import open_source
from pipelines.ingest.files.quoting import QuoteScan


def scanned(text: str, delimiter: str = ",", step: int = 10**6) -> QuoteScan:
    scan = QuoteScan("f.csv", delimiter, 10**6)
    for start in range(0, len(text), step):
        scan.feed(text[start : start + step])
    scan.close()
    return scan


def table_of(path: Path, quote: str | None = None) -> tuple[list[dict[str, str]], dict[int, str]]:
    rows: list[dict[str, str]] = []
    bad: dict[int, str] = {}
    for batch in open_source(path, quote=quote).batches():
        rows += batch.rows.to_pylist()
        bad |= {found.line: found.text for found in batch.malformed}
    return rows, bad


STRAY = 'user_id\tgender\tbio\n1\tm\ta\n2\tf\t"open\n3\tm\tb\n4\tm\tc\n5\tf\t"again\n6\tm\td\n'


@pytest.mark.parametrize("step", [1, 2, 7, 10**6])
def test_two_stray_quotes_name_the_lines_whose_rows_they_would_swallow(step: int) -> None:
    with pytest.raises(
        RefusedFile, match=r"opens a quote in line 3 that closes in line 6, before `again`.*quote: none"
    ):
        scanned(STRAY, "\t", step)


def test_a_file_that_does_not_quote_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text(STRAY)
    rows, bad = table_of(tmp_path / "p.tsv", quote="none")
    assert [row["user_id"] for row in rows] == list("123456")
    assert rows[1]["bio"] == '"open'
    assert bad == {}


def test_stray_quotes_that_close_well_are_found_by_the_rows_inside(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('user_id,gender,bio\n1,f,"open\n2,m,b\n3,m,closed"\n4,m,c\n')
    with pytest.raises(RefusedFile, match=r"`bio` in line 2 holds 2 lines that look like rows; say `quote: none`"):
        table_of(tmp_path / "p.csv")
    assert len(table_of(tmp_path / "p.csv", quote="double")[0]) == 2
    assert len(table_of(tmp_path / "p.csv", quote="none")[0]) == 4


LIKES = "actor,target,kind,note,time\n"


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('id,bio,x\n1,"open,a\n2,b,c\n3,d",e\n4,f,g\n', "`bio` in line 2 holds 2 lines that look"),
        ('id,bio,x\n1,"open,a\n2,d",e\n4,f,g\n', "`bio` in line 2 holds 1 line that looks"),
        ('id,bio,x\n4,f,g\n1,a,"open\n\n2,b,c\n3,d,closed"\n', "`x` in line 3 holds 2 lines"),
        ('id,bio,x\n4,f,g\n1,a,"open\n2,b,c\n3,d"\n', "`x` in line 3 holds 1 line"),
        ('id,bio,x\n4,f,g\n1,a,"open\nragged\n2,b,c\n3,d,closed"\n', "`x` in line 3 holds 2 lines"),
        ('bio,id\n"open,1\nb,2\nc",3\nd,4\n', "`bio` in line 2 holds 2 lines"),
        (f'{LIKES}1,2,like,"a,2026-01-01\n2,1,pass,b,2026-01-02\n3,1,like,c",2026-01-03\n', "`note` in line 2 holds 2"),
        ('id,bio\n1,"open\n2,b\n3,c"\n', "`bio` in line 2 holds 2 lines"),
        ('id,bio,x\n1,"open,a\n2,b c,d\n3,d",e\n4,f,g\n', "`bio` in line 2 holds 2 lines"),
        ('id,bio\nann,"open\nbob,I sing\neve,c"\n', "`bio` in line 2 holds 2 lines"),
    ],
)
def test_stray_quotes_in_any_column_are_found_by_the_rows_inside(
    tmp_path: Path, text: str, holds: str, ends: str
) -> None:
    (tmp_path / "p.csv").write_bytes(text.replace("\n", ends).encode())
    with pytest.raises(RefusedFile, match=holds):
        table_of(tmp_path / "p.csv")
    table_of(tmp_path / "p.csv", quote="double")


def test_a_column_that_was_added_later_hides_no_swallowed_rows(tmp_path: Path) -> None:
    rows = [f"{number},Al,{'' if number <= 1500 else 'note'}" for number in range(1, 3001)]
    rows[1999], rows[2002] = '2000,Al,"hi', '2003,Al,bye"'
    (tmp_path / "p.csv").write_text("\n".join(["id,name,note", *rows, ""]))
    with pytest.raises(RefusedFile, match="`note` in line 2001 holds 3 lines"):
        table_of(tmp_path / "p.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "^", "-"])
@pytest.mark.parametrize("n_more", [1, 200, 1_200])
def test_swallowed_rows_are_found_between_any_delimiters_and_many_columns(
    tmp_path: Path, delimiter: str, n_more: int
) -> None:
    rows = [["id", "bio"], ["1", '"open'], ["2", "b"], ["3", 'c"'], ["4", "d"]]
    more = [[f"x{number}" for number in range(n_more)], *[["7"] * n_more] * 4]
    lines = [delimiter.join(row + rest) for row, rest in zip(rows, more, strict=True)]
    (tmp_path / "p.csv").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RefusedFile, match="`bio` in line 2 holds 2 lines"):
        for _ in open_source(tmp_path / "p.csv", delimiter=delimiter).batches():
            pass


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "text",
    [
        'id,bio\n1,"I like:\ncats, dogs\nand tea, cake"\n2,b\n',
        'id,bio\n1,"Hello\ncats, dogs"\n',
        'id,bio,city\n1,"Hi, it is me\nI like tea, cake, dogs\nand more, too",Rome\n2,b,Bonn\n',
        'id,bio,city\nann,"Hi, it is me\nI like tea, cake, dogs\nand more, too",Rome\n' + "bob,b,Bonn\n" * 20,
        'id,bio,city\n1,"\n\n,,\n",Rome\n2,b,Bonn\n',
        'bio,id\n"Hi, 5 of us\n1, 2, 3\nor, more",7\nb,2\n',
        'bio\n"Hi\nyou"\nb\n',
        'id,bio\n1,"Top:\n1, pizza\n2, tea\nbye"\n2,b\n',
        'id,bio\na-1,"I like:\nHiking, biking\nand tea"\n' + "b-2,b\n" * 20,
        'id,bio\na-1,"I like:\nHiking, biking"\n' + "b-2,b\n" * 20,
    ],
)
def test_texts_of_many_lines_with_commas_are_read(tmp_path: Path, text: str, ends: str) -> None:
    (tmp_path / "p.csv").write_bytes(text.replace("\n", ends).encode())
    rows, bad = table_of(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        assert rows == list(csv.DictReader(file))
    assert bad == {}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("step", [1, 3, 10**6])
def test_a_row_whose_quote_closes_too_early_is_malformed_alone(tmp_path: Path, ends: str, step: int) -> None:
    lines = ["a,b", '1,"two', ' lines"', '2,"Big" Joe', "3,x", '"4"5,y', '6,"ok" ', '7,5" tall', '8,""']
    text = ends.join(lines) + ends
    bad = scanned(text, step=step).bad_lines
    if ends != "\r":  # a lone carriage return breaks no line inside of quotes
        assert bad == {4: '2,"Big" Joe', 6: '"4"5,y'}
    assert list(bad.values()) == ['2,"Big" Joe', '"4"5,y']
    (tmp_path / "f.csv").write_bytes(text.encode())
    rows, malformed = table_of(tmp_path / "f.csv")
    assert malformed == bad
    assert [row["a"] for row in rows] == ["1", "3", "6", "7", "8"]


@pytest.mark.parametrize(
    ("text", "line"),
    [('a,b\n1,"never\n2,x\n', 2), ('"a,b\n1,x\n', 1), ('a,b\n1,"two\nlines"\n2,"never\n', 4)],
)
def test_a_quote_that_is_never_closed_is_named_by_its_line(text: str, line: int) -> None:
    with pytest.raises(RefusedFile, match=f"opens a quote in line {line} that is never closed"):
        scanned(text)


def test_more_stray_quotes_than_a_quoting_file_has_refuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.ingest.files.quoting.MAX_BAD_LINES", 2)
    with pytest.raises(RefusedFile, match="more than 2 rows with a stray quote, the last of them in line 4"):
        scanned('a,b\n1,"x"y\n2,"x"y\n3,"x"y\n')


_CELL = st.text(alphabet='ab",\n\r ', max_size=6)


@given(rows=st.lists(st.tuples(_CELL, _CELL), max_size=8), step=st.integers(1, 40), end=st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_writes_has_no_stray_quote(rows: list[tuple[str, str]], step: int, end: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=end)
    writer.writerows(rows)
    assert scanned(buffer.getvalue(), step=step).bad_lines == {}


@given(text=st.text(alphabet='a",\n', max_size=40), step=st.integers(1, 40))
def test_blocks_change_nothing_about_what_is_found(text: str, step: int) -> None:
    def told(size: int) -> object:
        try:
            return scanned(text, step=size).bad_lines
        except RefusedFile as refused:
            return str(refused)

    assert told(step) == told(10**6)

"""Opening files: line numbers whatever the block size, encodings, delimiters, and refusals in one sentence."""

import codecs
import os
from pathlib import Path

import pytest

from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.files import opening, reading
from pipelines.ingest.files.opening import open_source


def lines_of(path: Path) -> dict[int, str]:
    """Return line -> first value or, for malformed lines, `!` and the text."""
    found: dict[int, str] = {}
    for batch in open_source(path).batches():
        found |= dict(zip(batch.lines.tolist(), batch.rows.column(0).to_pylist(), strict=True))
        found |= {bad.line: f"!{bad.text}" for bad in batch.malformed}
    return found


@pytest.mark.parametrize("block_bytes", [64, 100, 1 << 20])
def test_lines_are_right_across_block_boundaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "f.csv"
    expected: dict[int, str] = {}
    text, line = "a,b\n", 2
    for number in range(300):
        if number % 7 == 3:
            row, spans = f"bad{number}\n", 1
            expected[line] = f"!bad{number}"
        elif number % 11 == 5:
            row, spans = f'n{number},"x\n\ny"\n', 3
            expected[line] = f"n{number}"
        elif number % 13 == 6:
            row, spans = "\n", 1
        else:
            row, spans = f"n{number},y\n", 1
            expected[line] = f"n{number}"
        text += row
        line += spans
    path.write_text(text)
    assert lines_of(path) == expected


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiter_and_unicode_encoding_are_found_out(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(f"a{delimiter}b\né{delimiter}2\r\n".encode(encoding))
    source = open_source(path)
    assert source.header == ["a", "b"]
    [batch] = source.batches()
    assert batch.rows.to_pylist() == [{"a": "é", "b": "2"}]
    assert source.position == source.size


@pytest.mark.parametrize(("delimiter", "blank"), [(" ", "\t"), ("\t", " "), (",", " "), (",", "\t")])
def test_a_blank_behind_a_quote_is_dropped_unless_it_is_the_delimiter(
    tmp_path: Path, delimiter: str, blank: str
) -> None:
    rows = [["a", "b", "c"], ['"2"', '"x y"', '""'], ["4", f'"q"{blank}', "r"]]
    (tmp_path / "f.csv").write_text("".join(f"{delimiter.join(row)}\n" for row in rows))
    [batch] = open_source(tmp_path / "f.csv", delimiter=delimiter).batches()
    assert batch.malformed == []
    assert batch.rows.column(0).to_pylist() == ["2", "4"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["column_{:0200d}", '"a ""quoted"" name {:0200d}"', '"two\nlines {:0200d}"'])
def test_a_header_of_any_length_is_read(tmp_path: Path, name: str, end: str) -> None:
    spelt = [name.format(number) for number in range(400)]
    values = [str(number) for number in range(400)]
    (tmp_path / "f.csv").write_text(f"{','.join(spelt)}{end}{','.join(values)}{end}", newline="")
    source = open_source(tmp_path / "f.csv")
    assert len(source.header) == 400
    [batch] = source.batches()
    assert [list(row.values()) for row in batch.rows.to_pylist()] == [values]


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_header_is_whole_wherever_its_start_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    monkeypatch.setattr(opening, "_SNIFF_BYTES", 8 + cut)
    (tmp_path / "f.csv").write_text("user_id,b,c\r\n1,2,3\r\n", newline="")
    assert open_source(tmp_path / "f.csv").header == ["user_id", "b", "c"]


def test_a_header_that_no_block_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SNIFF_BYTES", 8)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 16)
    (tmp_path / "f.csv").write_text(f"{'a' * 40},b\n1,2\n")
    with pytest.raises(RefusedFile, match=r"first line of `f\.csv` is longer than 16 bytes"):
        open_source(tmp_path / "f.csv", quote="none")


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("a\n1\n")
    with pytest.raises(RefusedFile, match="`klingon` is not an encoding"):
        open_source(tmp_path / "f.csv", encoding="klingon")


def test_a_row_longer_than_a_block_refuses_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 64)
    (tmp_path / "f.csv").write_text("a,b\n1," + '"' + "x\n" * 500 + '"\n')
    with pytest.raises(
        RefusedFile, match=r"opens a quote in line 2 that is not closed within 64 characters"
    ) as refused:
        list(open_source(tmp_path / "f.csv").batches())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("start", ["", "5,y\n", 'bad\n7,"a\nb"\n'])
def test_a_quote_that_is_never_closed_refuses_the_file(tmp_path: Path, start: str) -> None:
    (tmp_path / "f.csv").write_text(f'a,b\n{start}1,"never closed\n2,x\n3,y\n')
    line = 2 + start.count("\n")
    with pytest.raises(RefusedFile, match=f"opens a quote in line {line} that is never closed"):
        list(open_source(tmp_path / "f.csv").batches())


def test_an_inch_sign_inside_a_value_is_no_quote(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text('a,b\n1,5" tall\n2,x\n')
    assert lines_of(tmp_path / "f.csv") == {2: "1", 3: "2"}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.csv", b"PAR1....", r"is Parquet, not CSV; rename it to `p\.parquet`"),
        ("p.csv.gz", b"\x1f\x8b\x08", "packed with gzip; unpack it first"),
        ("p.zst", b"\x28\xb5\x2f\xfd", "packed with zstandard; unpack it first"),
        ("p.json", b'{"user_id": 1}\n', "is JSON, not CSV"),
        ("p.json", b' [{"user_id": 1}]', "is JSON, not CSV"),
        ("p.json", b'[\n  {\n    "user_id": 1\n  }\n]\n', "is JSON, not CSV"),
        ("p.json", b'[\r\n\t["user_id"], [1]]', "is JSON, not CSV"),
        ("p.json", '[\n {"user_id": 1}]'.encode("utf-16"), "is JSON, not CSV"),
        ("p.csv", "a,b\n1,2\n".encode("utf-16") + b"3", "not utf-16 at byte 18; .*cut off or damaged"),
        ("p.csv", codecs.BOM_UTF16_LE + b"a\x00\n\x00\x00\xdc1\x00", "not utf-16 at byte 6; .*cut off or damaged"),
        ("p.csv", b"a,b\n\xe9,2\n", "not utf-8 at byte 4; .*--encoding latin-1"),
        ("p.csv", b"\xef\xbb\xbf<html>", "is a web page, not CSV"),
        ("p.parquet", b"user_id\n1\n", "is called Parquet but is not"),
        ("p.csv", b"user_id,a\x00b\n1,2\n", "column name with a NUL character"),
        ("p.csv", b"user_id, user_id \n1,2\n", "more than one column called `user_id`"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedFile, match=sentence):
        open_source(tmp_path / name)


def test_a_folder_a_pipe_and_no_name_at_all_are_told_apart_from_a_file_that_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, sentence in (
        (tmp_path, "is a folder; give one file"),
        (tmp_path / "pipe", "is a pipe or a device, and an import reads its file twice; save it first"),
        (tmp_path / "none.csv", "There is no file"),
        (Path("a\x00b"), "is not the name of a file|There is no file"),
    ):
        with pytest.raises(RefusedFile, match=sentence):
            open_source(path)


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "undefined"])
def test_what_is_no_encoding_of_text_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "f.csv").write_text("a\n1\n")
    with pytest.raises(RefusedFile, match=f"`{encoding}` is not an encoding"):
        open_source(tmp_path / "f.csv", encoding=encoding)

"""Label files: rows of plain values, or one clear error that names the file and the mend."""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from scipy.io import savemat

from omniq_verl.data.tables import (
    LabelFileError,
    read_csv,
    read_json,
    read_jsonl,
    read_lines,
    read_mat,
    read_words,
    read_xlsx,
)

unhurried = settings(deadline=None)  # a busy machine is no error
READERS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda path: list(read_csv(path, ["name"])),
    "words": lambda path: list(read_words(path, 2)),
    "json": read_json,
    "jsonl": lambda path: list(read_jsonl(path)),
    "xlsx": lambda path: list(read_xlsx(path, ["name"])),
    "mat": lambda path: read_mat(path, "scores"),
}


def file(folder: Path, data: bytes | str, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


def error_of(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(LabelFileError) as caught:
        read(path)
    assert str(path) in str(caught.value) and "Mend: " in str(caught.value)
    return str(caught.value)


# Every format


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_file_that_is_missing_is_an_error_that_tells_how_to_name_it(tmp_path, read):
    assert "there is no such file. Mend: " in error_of(read, tmp_path / "gone")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_folder_is_no_label_file(tmp_path, read):
    assert "there is no such file" in error_of(read, tmp_path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_an_empty_file_is_an_error(tmp_path, read):
    assert "it is empty" in error_of(read, file(tmp_path, b""))


class Trap:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_loaded(tmp_path, read, protocol):
    path = file(tmp_path, pickle.dumps({"name": Trap(tmp_path / "sprung")}, protocol))
    message = error_of(read, path)
    assert not (tmp_path / "sprung").exists()
    if protocol >= 2:  # older ones look like a text
        assert "it is a Python pickle, which is never loaded" in message
    pickle.loads(path.read_bytes())
    assert (tmp_path / "sprung").exists(), "the trap itself works"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_file_of_terabytes_is_not_read(tmp_path, read):
    path = tmp_path / "labels"
    with open(path, "wb") as hole:
        hole.truncate(2**40)
    assert "it has 1,099,511,627,776 bytes, more than any label file" in error_of(read, path)


@pytest.mark.parametrize("name", ["csv", "words", "json", "jsonl"])
@unhurried
@given(data=st.binary(min_size=1, max_size=300) | st.text(min_size=1, max_size=300).map(lambda text: text.encode()))
def test_no_bytes_make_a_text_reader_raise_another_error(tmp_path_factory, name, data):
    path = file(tmp_path_factory.getbasetemp(), data, f"any.{name}")
    try:
        READERS[name](path)
    except LabelFileError as error:
        assert str(path) in str(error)


# Lines


def test_lines_come_without_their_ends_and_without_a_byte_order_mark(tmp_path):
    assert list(read_lines(file(tmp_path, b"\xef\xbb\xbfone\r\ntwo\n\nthree"))) == ["one", "two", "", "three"]


@pytest.mark.parametrize(
    ("data", "message", "reason"),
    [
        (b"a\nb\0c\n", "line 2 has a NUL character", "NUL bytes"),
        (b"a\n" + b"x" * 10_000_000 + b"\n", "line 2 has more than 1,048,576 characters", "a line of 10 MB"),
        (b"x" * 10_000_000, "line 1 has more than 1,048,576 characters", "a line of 10 MB that never ends"),
        (b"a\n\xff\xfe\n", "it is no UTF-8 text after line 0", "no text"),
        ("a\n".encode("utf-16"), "it is no UTF-8 text", "UTF-16, as Excel may write it"),
    ],
)
def test_what_is_no_text_of_sensible_lines_is_refused(tmp_path, data, message, reason):
    path = file(tmp_path, data)
    assert message in error_of(lambda path: list(read_lines(path)), path), reason


def test_a_line_of_exactly_the_limit_is_read(tmp_path):
    assert [len(line) for line in read_lines(file(tmp_path, "x" * (2**20 - 1) + "\nb\n"))] == [2**20 - 1, 1]


# CSV


@pytest.mark.parametrize(
    ("text", "rows", "reason"),
    [
        ("name,score\na,1\nb,2\n", [("a", "1"), ("b", "2")], "as it should be"),
        ("name,score\na,1\nb,2", [("a", "1"), ("b", "2")], "no end of the last line"),
        ("name,score\r\na,1\r\n", [("a", "1")], "line ends of Windows"),
        ("name,score\ra,1\r", [("a", "1")], "line ends of old"),
        ("\ufeffname,score\na,1\n", [("a", "1")], "a byte order mark"),
        (" name , score \na,1\n", [("a", "1")], "spaces around a column's name"),
        ("score,x,name\n1,y,a\n", [("a", "1")], "another order, and more columns"),
        ('name,score\n"a,b",1\n', [("a,b", "1")], "a quoted comma"),
        ('name,score\n"a ""b""",1\n', [('a "b"', "1")], "quoted quotes"),
        ('name,score\n"two\nlines",1\n', [("two\nlines", "1")], "a quoted line end"),
        ('name,score\r\n"two\r\nlines",1\r\n', [("two\nlines", "1")], "a quoted line end of Windows"),
        ("name,score\n\na,1\n\n\n", [("a", "1")], "empty lines"),
        ("name,score\n,\na,1\n", [("a", "1")], "a row of empty cells, as Excel appends them"),
        ("name,score\n,1\n", [("", "1")], "an empty cell is a value"),
        ("name,score\n", [], "a header alone"),
        ("name,score\nü画,1\n", [("ü画", "1")], "letters of any script"),
    ],
)
def test_csv_rows_are_read_by_the_names_of_their_columns(tmp_path, text, rows, reason):
    found = read_csv(file(tmp_path, text), ["name", "score"])
    assert [(row["name"], row["score"]) for row in found] == rows, reason


def test_another_delimiter_is_used_where_it_is_asked_for(tmp_path):
    assert list(read_csv(file(tmp_path, "name;score\na,b;1\n"), ["name"], ";")) == [{"name": "a,b", "score": "1"}]


@pytest.mark.parametrize(
    ("text", "message", "reason"),
    [
        ("image,mos\na,1\n", "it has no column name, score (it has image, mos)", "missing columns"),
        ("\n\n", "it has no column name, score (it has )", "empty lines alone"),
        ("name,score,name\na,1,b\n", "it has several columns name. Mend: take out", "which of the two?"),
        ("name,score\na,1\nb\n", "line 3 has 1 cells, the header 2", "a row too short"),
        ("name,score\na,1,2\n", "line 2 has 3 cells, the header 2", "a row too long"),
        ('name,score\n"x\ny",1\nb\n', "line 4 has 1 cells", "lines are counted, not rows"),
        ('name,score\n"a,1\nb,2\n', "is no CSV (unexpected end of data)", "a quote that never closes"),
        ('name,score\n"a"b,1\n', "is no CSV", "text behind a quote"),
        ('name,score\n"' + "x\n" * 200_000, "is no CSV (field larger than field limit", "a cell without end"),
    ],
)
def test_a_csv_with_other_cells_than_its_header_says_is_refused(tmp_path, text, message, reason):
    path = file(tmp_path, text)
    assert message in error_of(lambda path: list(read_csv(path, ["name", "score"])), path), reason


def test_a_header_of_thousands_of_columns_does_not_fill_the_message(tmp_path):
    path = file(tmp_path, ",".join(f"column {number}" for number in range(20_000)) + "\n")
    assert len(error_of(READERS["csv"], path)) < 500 + len(str(path))


def test_rows_come_one_by_one(tmp_path):
    rows = read_csv(file(tmp_path, "name\na\nb,too long\n"), ["name"])
    assert next(rows) == {"name": "a"}
    with pytest.raises(LabelFileError, match="line 3 has 2 cells"):
        next(rows)


# Words


def test_words_are_parted_by_any_white_space(tmp_path):
    assert list(read_words(file(tmp_path, "a.bmp 1.5\n\n  b.bmp\t2 \r\n"), 2)) == [["a.bmp", "1.5"], ["b.bmp", "2"]]


@pytest.mark.parametrize(("line", "words"), [("a", 1), ("a b c", 3)])
def test_a_line_with_another_number_of_words_is_refused(tmp_path, line, words):
    path = file(tmp_path, f"a 1\n{line}\n")
    assert f"line 2 has {words} words, not 2" in error_of(READERS["words"], path)


# JSON


@pytest.mark.parametrize("text", ['[{"a": 1}]', '\ufeff{"a": "ü"}', "3"])
def test_json_is_read_as_a_whole(tmp_path, text):
    assert read_json(file(tmp_path, text)) == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cut short"),
        ("name,score\n", "CSV"),
        ("[" * 100_000, "nested deep"),
        ("[" * 100_000 + "]" * 100_000, "nested deep, and well"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "objects nested deep"),
        ("1" * 10_000, "a number longer than any"),
        (b'"\xff"', "no text"),
    ],
)
@pytest.mark.parametrize(("read", "message"), [("json", "it is no JSON"), ("jsonl", "line 1 is no ")])
def test_what_is_no_json_is_refused(tmp_path, text, reason, read, message):
    said = error_of(READERS[read], file(tmp_path, text))
    assert message in said or (isinstance(text, bytes) and "it is no UTF-8 text" in said), reason


def test_a_large_json_is_refused_before_it_takes_ten_times_its_size(tmp_path):
    path = tmp_path / "labels.json"
    with open(path, "wb") as hole:
        hole.truncate(2**28 + 1)
    assert "more than any label file of its kind" in error_of(read_json, path)


def test_json_lines_are_objects(tmp_path):
    path = file(tmp_path, '{"a": 1}\n\n  \n{"a": "ü"}\r\n')
    assert list(read_jsonl(path)) == [{"a": 1}, {"a": "ü"}]
    assert "line 2 is no JSON object" in error_of(READERS["jsonl"], file(tmp_path, '{"a": 1}\n[1]\n'))


# Excel


def workbook(folder: Path, sheets: dict[str, list[list[Any]]], name: str = "labels.xlsx") -> Path:
    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(folder / name)
    return folder / name


def with_sheet(folder: Path, rows: str, dimension: str = "", before: str = "") -> Path:
    """A workbook whose first sheet is this XML."""
    whole, rebuilt = workbook(folder, {"one": [["name"]]}), folder / "made.xlsx"
    spaces = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    sheet = f'<worksheet xmlns="{spaces}">{dimension}<sheetData>{rows}</sheetData></worksheet>'
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(rebuilt, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, before + sheet if entry.endswith("sheet1.xml") else source.read(entry))
    return rebuilt


def cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


TABLE = [["a.jpg", 1.5], ["b.jpg", 2]]
FOUND = [{"name": "a.jpg", "score": 1.5}, {"name": "b.jpg", "score": 2}]


@pytest.mark.parametrize(
    ("rows", "found", "reason"),
    [
        ([["name", "score"], *TABLE], FOUND, "a header at the top"),
        ([["Table 1"], [], [None, "made by hand"], ["name", "score"], *TABLE], FOUND, "a header further down"),
        ([["x", " score ", None, "name"], [0, 1.5, None, "a.jpg"]], FOUND[:1], "another order, spaces, a gap"),
        ([["name", "score"], TABLE[0], [], [None, None], TABLE[1]], FOUND, "empty rows"),
        ([["name", "score"], ["a.jpg"]], [{"name": "a.jpg", "score": None}], "a row that ends early"),
        ([["name", "score"], [None, 3]], [{"name": None, "score": 3}], "a cell without a value"),
        ([["name", "score"], ["#REF!", "#DIV/0!"]], [{"name": "#REF!", "score": "#DIV/0!"}], "cells that failed"),
        ([["name", "score"], [7, "3"]], [{"name": 7, "score": "3"}], "values keep their types"),
        ([["name", "score"], ["=1+1", "=B1"]], [], "formulas Excel never computed are empty"),
    ],
)
def test_the_rows_of_a_sheet_are_read_below_its_header(tmp_path, rows, found, reason):
    assert list(read_xlsx(workbook(tmp_path, {"one": rows}), ["name", "score"])) == found, reason


def test_a_sheet_is_found_by_its_name_and_a_workbook_whatever_its_ending(tmp_path):
    path = workbook(tmp_path, {"one": [["x"]], "two": [["name"], ["a"]]}, "labels.xlsx.download")
    assert list(read_xlsx(path, ["name"], "two")) == [{"name": "a"}]
    assert "no row of it names the columns name" in error_of(READERS["xlsx"], path)
    assert "with the sheet three" in error_of(lambda path: list(read_xlsx(path, ["name"], "three")), path)


@pytest.mark.parametrize(
    ("dimension", "reason"),
    [
        ('<dimension ref="A1"/>', "less than there is"),
        ('<dimension ref="A1:XFD1048576"/>', "17 billion cells"),
        ("", "nothing"),
    ],
)
def test_what_a_sheet_says_of_its_size_is_not_relied_upon(tmp_path, dimension, reason):
    rows = f'<row r="1">{cell("A1", "name")}</row><row r="1048576">{cell("A1048576", "a")}</row>'
    assert list(read_xlsx(with_sheet(tmp_path, rows, dimension), ["name"])) == [{"name": "a"}], reason


@pytest.mark.parametrize(
    ("data", "message", "reason"),
    [
        (b"name,score\na,1\n", "it is no Excel workbook", "CSV"),
        (b"PK\x03\x04" + bytes(100), "it is no Excel workbook", "the head of one"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000), "it is no Excel workbook", "the format before 2007"),
    ],
)
def test_what_is_no_workbook_is_refused(tmp_path, data, message, reason):
    assert message in error_of(READERS["xlsx"], file(tmp_path, data)), reason


def test_another_zip_archive_is_no_workbook(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "it is no workbook" in error_of(READERS["xlsx"], tmp_path / "a.zip")


def test_a_workbook_cut_or_flipped_anywhere_is_read_or_refused_and_nothing_else(tmp_path):
    data = workbook(tmp_path, {"one": [["name"], *[[f"{n}.jpg"] for n in range(50)]]}).read_bytes()
    for place in range(10, len(data), len(data) // 60):
        flipped = bytearray(data)
        flipped[place] ^= 0xFF
        for hostile in (data[:place], bytes(flipped)):
            try:
                READERS["xlsx"](file(tmp_path, hostile))
            except LabelFileError as error:
                assert "Mend: " in str(error)


UNPACKED = 300 * 2**20


def zip_bomb(folder: Path) -> Path:
    """A workbook of half a megabyte whose first sheet unpacks to 300 of them."""
    whole, path = with_sheet(folder, f'<row r="1">{cell("A1", "name")}</row>'), folder / "bomb.xlsx"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            with target.open(name, "w") as entry:
                entry.write(source.read(name))
                if name.endswith("sheet1.xml"):
                    entry.writelines(bytes(2**20).replace(b"\0", b" ") for _ in range(300))
    return path


def liar(folder: Path) -> Path:
    """The same, which claims to unpack to a kilobyte."""
    data = bytearray(zip_bomb(folder).read_bytes())
    with zipfile.ZipFile(folder / "bomb.xlsx") as archive:
        (size,) = (entry.file_size for entry in archive.infolist() if entry.file_size > UNPACKED)
    said = struct.pack("<I", size)
    assert data.count(said) == 2
    return file(folder, bytes(data.replace(said, struct.pack("<I", 1000))), "liar.xlsx")


def entity_bomb(folder: Path) -> Path:
    """XML in which ten names stand for ten others each, and so on: a billion."""
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE w [<!ENTITY l0 "lol">{levels}]>'
    return with_sheet(folder, f'<row r="1">{cell("A1", "name")}{cell("B1", "&l9;")}</row>', before=doctype)


def mat_bomb(folder: Path) -> Path:
    """A MATLAB file of a third of a megabyte whose variable is 300 of them."""
    squeezed = zlib.compressobj(9)
    packed = b"".join(squeezed.compress(bytes(2**20)) for _ in range(300)) + squeezed.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return file(folder, head + struct.pack("<II", 15, len(packed)) + packed, "bomb.mat")


PEAK = """
import resource, sys
from pathlib import Path
from omniq_verl.data import tables
import openpyxl, scipy.io
path, kind = Path(sys.argv[1]), sys.argv[2]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(tables.read_xlsx(path, ["name"])) if kind == "xlsx" else tables.read_mat(path, "scores")
    print("read")
except tables.LabelFileError as error:
    print(str(error).replace("\\n", " "))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (zip_bomb, "xlsx", "it unpacks to 314,"),
        (liar, "xlsx", "it is no workbook"),
        (entity_bomb, "xlsx", "it is no workbook"),
        (mat_bomb, "mat", "it unpacks to more than 268,435,456 bytes"),
    ],
)
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path, make, kind, message):
    path = make(tmp_path)
    assert path.stat().st_size < 2_000_000
    command = [sys.executable, "-c", PEAK, str(path), kind]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    said, grown = result.stdout.splitlines()
    assert message in said
    assert int(grown) < 100_000, "KiB; unpacked it would be 300,000 and more"


# MATLAB


def mat(folder: Path, compressed: bool = True, **variables: Any) -> Path:
    savemat(folder / "labels.mat", variables, do_compression=compressed)
    return folder / "labels.mat"


@pytest.mark.parametrize("compressed", [True, False])
def test_a_variable_is_read_by_its_name(tmp_path, compressed):
    path = mat(tmp_path, compressed, scores=np.array([[1.5, 2.5]]), more=np.zeros(1000))
    np.testing.assert_array_equal(read_mat(path, "scores"), [[1.5, 2.5]])


@pytest.mark.parametrize("compressed", [True, False])
def test_cells_of_text_are_arrays_of_arrays_of_text(tmp_path, compressed):
    names = np.empty((2, 1), dtype=object)
    names[:, 0] = ["a.bmp", "ü.bmp"]
    cells = read_mat(mat(tmp_path, compressed, names=names), "names")
    assert cells.shape == (2, 1)
    assert ["".join(map(str, entry.ravel())) for entry in cells.ravel()] == ["a.bmp", "ü.bmp"]


def test_a_variable_that_is_not_there_is_named(tmp_path):
    path = mat(tmp_path, other=np.zeros(2))
    assert "it has no variable scores" in error_of(READERS["mat"], path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"name,score\na,1\n", "CSV"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "HDF 5"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(500), "version 7.3, which is HDF 5"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"\xff" * 50, "a head with nonsense behind it"),
    ],
)
def test_what_is_no_matlab_file_is_refused(tmp_path, data, reason):
    assert "it is no MATLAB 5 file" in error_of(READERS["mat"], file(tmp_path, data)), reason


@pytest.mark.parametrize("compressed", [True, False])
def test_a_matlab_file_cut_or_flipped_anywhere_is_read_or_refused_and_nothing_else(tmp_path, compressed):
    buffer = io.BytesIO()
    savemat(buffer, {"scores": np.arange(60.0), "names": np.array(["a", "b"], dtype=object)}, do_compression=compressed)
    data = buffer.getvalue()
    for place in range(1, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 0xFF
        for hostile in (data[:place], bytes(flipped)):
            try:
                READERS["mat"](file(tmp_path, hostile, "labels.mat"))
            except LabelFileError as error:
                assert "Mend: " in str(error)

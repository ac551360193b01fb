"""Excel sheets and MATLAB files: rows of plain values, or one clear error, however much they claim to hold."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import Workbook
from scipy.io import savemat
from table_builders import READERS, error_of, file

from omniq_verl.preparation.label_tables import LabelFileError, read_mat, read_xlsx

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


def cell(ref: str, text: str) -> str:
    return f'<c r="{ref}" t="inlineStr"><is><t>{text}</t></is></c>'


TABLE = [["a.jpg", 1.5], ["b.jpg", 2]]
FOUND = [{"name": "a.jpg", "score": 1.5}, {"name": "b.jpg", "score": 2}]


@pytest.mark.parametrize(
    ("rows", "found", "reason"),
    [
        ([["name", "score"], *TABLE], FOUND, "a header at the top"),
        ([["\ufeffname", "score\u200b"], *TABLE], FOUND, "a header with characters that have no width"),
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


def test_a_column_that_a_sheet_has_twice_is_named(tmp_path):
    path = workbook(tmp_path, {"one": [["name", "score", "score"], ["a.jpg", 1, 2]]})
    assert "it has several columns score. Fix: take out" in error_of(
        lambda path: list(read_xlsx(path, ["score"])), path
    )


def test_a_sheet_is_found_by_its_name_and_a_workbook_whatever_its_ending(tmp_path):
    path = workbook(tmp_path, {"one": [["x"]], "two": [["name"], ["a"]]}, "labels.xlsx.download")
    assert list(read_xlsx(path, ["name"], "two")) == [{"name": "a"}]
    assert "none of its rows names the columns name" in error_of(READERS["xlsx"], path)
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
        (b"name,score\na,1\n", "it is not an Excel workbook", "CSV"),
        (b"PK\x03\x04" + bytes(100), "it is not an Excel workbook", "the head of one"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000), "it is not an Excel workbook", "the format before 2007"),
    ],
)
def test_what_is_no_workbook_is_rejected(tmp_path, data, message, reason):
    assert message in error_of(READERS["xlsx"], file(tmp_path, data)), reason


def test_another_zip_archive_is_no_workbook(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "it is not a workbook" in error_of(READERS["xlsx"], tmp_path / "a.zip")


def test_a_workbook_cut_or_flipped_anywhere_is_read_or_rejected_and_nothing_else(tmp_path):
    data = workbook(tmp_path, {"one": [["name"], *[[f"{n}.jpg"] for n in range(50)]]}).read_bytes()
    for ref in range(10, len(data), len(data) // 60):
        flipped = bytearray(data)
        flipped[ref] ^= 0xFF
        for hostile in (data[:ref], bytes(flipped)):
            try:
                READERS["xlsx"](file(tmp_path, hostile))
            except LabelFileError as error:
                assert "Fix: " in str(error)


UNPACKED = 300 * 2**20


def zip_bomb(folder: Path) -> Path:
    """A workbook of a megabyte whose first sheet unpacks to 300 of them."""
    whole, path = with_sheet(folder, f'<row r="1">{cell("A1", "name")}</row>'), folder / "bomb.xlsx"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
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
    """A MATLAB file of a megabyte whose variable is 300 of them."""
    squeezed = zlib.compressobj(1)
    packed = b"".join(squeezed.compress(bytes(2**20)) for _ in range(300)) + squeezed.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return file(folder, head + struct.pack("<II", 15, len(packed)) + packed, "bomb.mat")


PEAK = """
import resource, sys
from pathlib import Path
from omniq_verl.preparation import label_tables
import openpyxl, scipy.io
path, kind = Path(sys.argv[1]), sys.argv[2]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(label_tables.read_xlsx(path, ["name"])) if kind == "xlsx" else label_tables.read_mat(path, "scores")
    print("read")
except label_tables.LabelFileError as error:
    print(str(error).replace("\\n", " "))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (zip_bomb, "xlsx", "it unpacks to 314,"),
        (liar, "xlsx", "it is not a workbook"),
        (entity_bomb, "xlsx", "it is not a workbook"),
        (mat_bomb, "mat", "it unpacks to more than 268,435,456 bytes"),
    ],
)
def test_a_bomb_is_rejected_before_it_takes_memory(tmp_path, make, kind, message):
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
def test_what_is_no_matlab_file_is_rejected(tmp_path, data, reason):
    assert "it is not a MATLAB 5 file" in error_of(READERS["mat"], file(tmp_path, data)), reason


@pytest.mark.parametrize("compressed", [True, False])
def test_a_matlab_file_cut_or_flipped_anywhere_is_read_or_rejected_and_nothing_else(tmp_path, compressed):
    buffer = io.BytesIO()
    savemat(buffer, {"scores": np.arange(60.0), "names": np.array(["a", "b"], dtype=object)}, do_compression=compressed)
    data = buffer.getvalue()
    for ref in range(1, len(data), 7):
        flipped = bytearray(data)
        flipped[ref] ^= 0xFF
        for hostile in (data[:ref], bytes(flipped)):
            try:
                READERS["mat"](file(tmp_path, hostile, "labels.mat"))
            except LabelFileError as error:
                assert "Fix: " in str(error)

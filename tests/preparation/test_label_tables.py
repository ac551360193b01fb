"""Label files: rows of plain values, or one clear error that names the file and the fix."""

import gzip
import json
import lzma
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_builders import READERS, error_of, file

from omniq_verl.preparation.label_tables import LabelFileError, read_csv, read_json, read_jsonl, read_lines, read_words

unhurried = settings(deadline=None)  # a busy machine is no error


# Every format


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_file_that_is_missing_is_an_error_that_tells_how_to_name_it(tmp_path, read):
    assert "there is no such file. Fix: " in error_of(read, tmp_path / "gone")


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
        (
            b"a\nb\xff\xfe\n",
            "line 2, byte 2 (b'\\xff') is not UTF-8 text (invalid start byte). Fix: save it",
            "no text",
        ),
        (
            b"a\n" * 9_000 + b"\xe9\n",
            "line 9001, byte 1 (b'\\xe9') is not UTF-8 text",
            "a letter far from the beginning",
        ),
        ("a\n".encode("utf-16-le"), "line 1 has a NUL character", "UTF-16 without a mark that says so"),
        ("a\nb".encode("utf-16")[:-1], "what follows line 1 is not UTF-16 text", "half a letter of UTF-16"),
    ],
)
def test_what_is_no_text_of_sensible_lines_is_rejected(tmp_path, data, message, reason):
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
        ("\u200bname,score\ufeff\n\u202aa,1\u200b\n", [("a", "1")], "characters without a width, from web pages"),
        ("name,score\n", [], "a header alone"),
        ("name,score\nü画,1\n", [("ü画", "1")], "letters of any script"),
    ],
)
def test_csv_rows_are_read_by_the_names_of_their_columns(tmp_path, text, rows, reason):
    found = read_csv(file(tmp_path, text), ["name", "score"])
    assert [(row["name"], row["score"]) for row in found] == rows, reason


@pytest.mark.parametrize(
    ("text", "message", "reason"),
    [
        (
            "image,mos\na,1\n",
            "it has no column name, score (it has image, mos). Fix: name its columns",
            "missing columns",
        ),
        ("name;score\na;1\n", "(it has name;score). Fix: its cells are separated by semicolons", "Excel's other CSV"),
        ("name\tscore\na\t1\n", "Fix: its cells are separated by tabs; save it with commas", "tabs"),
        ("\n\n", "it has no column name, score (it has )", "empty lines alone"),
        ("name,score,name\na,1,b\n", "it has several columns name. Fix: take out", "which of the two?"),
        ("name,score\na,1\nb\n", "line 3 has 1 cells, the header 2", "a row too short"),
        ("name,score\na,1,2\n", "line 2 has 3 cells, the header 2", "a row too long"),
        ('name,score\n"x\ny",1\nb\n', "line 4 has 1 cells", "lines are counted, not rows"),
        (
            'name,score\nc,0\n"a,1\nb,2\n',
            "what begins in line 3 is not CSV (unexpected end of data). Fix: close its quotation mark",
            "a quote that never closes",
        ),
        ('name,score\n"a"b,1\n', "is not CSV", "text behind a quote"),
        ('name,score\n"' + "x\n" * 200_000, "is not CSV (field larger than field limit", "a cell without end"),
    ],
)
def test_a_csv_with_other_cells_than_its_header_says_is_rejected(tmp_path, text, message, reason):
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
def test_a_line_with_another_number_of_words_is_rejected(tmp_path, line, words):
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
@pytest.mark.parametrize(("read", "message"), [("json", "it is not JSON"), ("jsonl", "line 1 is not ")])
def test_what_is_no_json_is_rejected(tmp_path, text, reason, read, message):
    said = error_of(READERS[read], file(tmp_path, text))
    assert message in said or (isinstance(text, bytes) and "is not UTF-8 text" in said), reason


@pytest.mark.parametrize("read", ["json", "jsonl"])
def test_of_two_values_of_a_key_none_is_taken(tmp_path, read):
    said = error_of(READERS[read], file(tmp_path, '{"name": "a", "score": 1, "score": 4}\n'))
    assert "the key 'score' is there twice" in said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(b"name,score\na,1\n"), "it is a gzip archive, not text. Fix: unpack it"),
        (lzma.compress(b"name,score\na,1\n"), "it is an xz archive, not text. Fix: unpack it"),
        (b"PK\x03\x04abc", "it is a zip archive or an Excel workbook, not text. Fix: unpack it, or save its sheet"),
    ],
    ids=["gzip", "xz", "zip"],
)
@pytest.mark.parametrize("read", ["csv", "jsonl", "words"])
def test_an_archive_is_named(tmp_path, read, data, message):
    assert message in error_of(READERS[read], file(tmp_path, data))


def test_a_large_json_is_rejected_before_it_takes_ten_times_its_size(tmp_path):
    path = tmp_path / "labels.json"
    with open(path, "wb") as hole:
        hole.truncate(2**28 + 1)
    assert "more than any label file of its kind" in error_of(read_json, path)


def test_json_lines_are_objects(tmp_path):
    path = file(tmp_path, '{"a": 1}\n\n  \n{"a": "ü"}\r\n')
    assert list(read_jsonl(path)) == [{"a": 1}, {"a": "ü"}]
    assert "line 2 is not a JSON object" in error_of(READERS["jsonl"], file(tmp_path, '{"a": 1}\n[1]\n'))

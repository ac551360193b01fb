"""One reader of text files: where lines end, what a byte order mark says, and who uses it."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep import geneval as geneval_script
from omniq_verl.data.text_files import MAX_LINE, LabelFileError, file_text, json_lines, text_lines
from omniq_verl.evaluation.heatmap import _read as read_answer
from omniq_verl.metric_log import read_metrics
from omniq_verl.preparation.label_tables import read_csv, read_jsonl, read_lines, read_words
from omniq_verl.preparation.readers import read_table
from omniq_verl.t2i.geneval import TAGS, BadGenEval, read_prompts, read_results
from omniq_verl.t2i.prompts import read_texts

REPO = Path(__file__).parents[2]
unhurried = settings(deadline=None)  # a busy machine is no error
SEPARATORS = ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\x1d", "\x1e"]
"""Each ends a line for ``str.splitlines``, and none for us."""


def of_objects(path: Path, read: Callable[[Path], Any]) -> list[str]:
    return [one["prompt"] for one in read(path)]


def csv_prompts(path: Path) -> list[str]:
    return [row["prompt"] for row in read_csv(path, ["prompt"])]


def lines_of_json(prompts: list[str], **more: Any) -> str:
    return "".join(json.dumps({"prompt": prompt, **more}, ensure_ascii=False) + "\n" for prompt in prompts)


READERS: dict[str, tuple[str, Callable[[list[str]], str], Callable[[Path], list[str]]]] = {
    "prompts.txt": (".txt", lambda texts: "".join(f"{text}\n" for text in texts), lambda p: of_objects(p, read_texts)),
    "prompts.jsonl": (".jsonl", lines_of_json, lambda path: of_objects(path, read_texts)),
    "manifest.csv": (
        ".csv",
        lambda texts: "prompt,x\n" + "".join(f'"{text}",1\n' for text in texts),
        lambda path: [row["prompt"] for row in read_table(path, ["prompt"])],
    ),
    "unquoted.csv": (".csv", lambda texts: "prompt,x\n" + "".join(f"{text},1\n" for text in texts), csv_prompts),
    "manifest.jsonl": (".jsonl", lines_of_json, lambda path: [row["prompt"] for row in read_table(path, ["prompt"])]),
    "GenEval's prompts": (
        ".jsonl",
        lambda texts: lines_of_json(texts, tag="colors", include=[{"class": "cat"}]),
        lambda path: of_objects(path, read_prompts),
    ),
    "data_prep/geneval.py": (
        ".jsonl",
        lambda texts: lines_of_json(texts, tag="colors", include=[{"class": "cat"}]),
        lambda path: of_objects(path, geneval_script.read),
    ),
    "lines": (".txt", lambda texts: "".join(f"{text}\n" for text in texts), lambda path: list(read_lines(path))),
    "JSON lines": (".jsonl", lines_of_json, lambda path: of_objects(path, read_jsonl)),
}
every_reader = pytest.mark.parametrize("name", list(READERS))


def read(tmp_path: Path, name: str, change: Callable[[str], str | bytes], texts: list[str]) -> list[str]:
    ending, write, reader = READERS[name]
    data = change(write(texts))
    path = tmp_path / f"file{ending}"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return reader(path)


@every_reader
@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_line_ends_at_a_line_feed_alone(tmp_path, name, separator):
    if separator < " " and "json" in READERS[name][0]:
        separator = "\u2028"  # JSON writes control characters as escapes
    texts = [f"a red{separator}fox", "a blue car"]
    assert read(tmp_path, name, str, texts) == texts


@every_reader
@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.removesuffix("\n"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-32"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    ],
    ids=["byte order mark", "Windows", "Macintosh", "no end", "UTF-16", "UTF-32", "UTF-16, big-endian"],
)
def test_marks_and_ends_are_no_part_of_a_text(tmp_path, name, change):
    texts = ["a réd fox", "a blue 车 car"]
    assert read(tmp_path, name, change, texts) == texts


@pytest.mark.parametrize("name", [name for name in READERS if name != "lines"])
def test_blank_lines_and_blanks_around_are_left_out(tmp_path, name):
    blank = " \n" if ".jsonl" in READERS[name][0] or ".txt" in READERS[name][0] else "\n"
    found = read(tmp_path, name, lambda text: text.replace("\n", f"\n{blank}\n") + f"{blank}\n", ["a fox", "a car"])
    assert found == ["a fox", "a car"]
    if ".jsonl" not in READERS[name][0] and name != "manifest.csv":
        assert read(tmp_path, name, str, ["  a fox\t", " a car \u00a0"]) == ["a fox", "a car"]


@every_reader
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("naïve\nfox\n".encode("latin-1"), r"file\.\w+: line 1, byte 3 \(b'\\xef'\) is not UTF-8 text"),
        (b"a\0b\n", "line 1 has a NUL character"),
        (b"x" * (MAX_LINE + 1), "line 1 has more than 1,048,576 characters"),
        (b"", "it is empty"),
    ],
)
def test_what_is_no_text_is_named_with_file_and_line(tmp_path, name, data, said):
    with pytest.raises(ValueError, match=said) as caught:
        read(tmp_path, name, lambda _: data, ["x"])
    assert "Fix: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".TXT", ".Jsonl", ".JSONL", ".txt"])
def test_endings_count_in_any_case(tmp_path, ending):
    path = tmp_path / f"PROMPTS{ending}"
    path.write_text("a fox\n" if ending.lower() == ".txt" else '{"prompt": "a fox"}\n')
    assert read_texts(path) == [{"prompt": "a fox"}]


@pytest.mark.parametrize("ending", [".json", ".csv", ".tsv", ".JSON", ".parquet", ".xlsx", ".md", ".yaml", ""])
def test_prompts_of_other_endings_are_rejected_by_name(tmp_path, ending):
    path = tmp_path / f"prompts{ending}"
    path.write_text('["a red fox", "a blue car"]\n')
    with pytest.raises(ValueError, match=r"prompts\S*: prompts cannot be read from a file that ends in .* Fix: write"):
        read_texts(path)


def test_results_of_geneval_may_have_marks_and_blank_lines(tmp_path):
    lines = [{"tag": tag, "prompt": f"p\u2028{tag}", "filename": f"{tag}.png", "correct": True} for tag in TAGS]
    text = "\ufeff" + "\n \n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    (tmp_path / "results.jsonl").write_text(text)
    assert read_results(tmp_path / "results.jsonl").images == len(TAGS)
    (tmp_path / "results.jsonl").write_text(text + "[1]\n")
    with pytest.raises(BadGenEval, match="line 13 is not a JSON object"):
        read_results(tmp_path / "results.jsonl")


def test_an_answer_in_a_file_has_no_mark(tmp_path):
    (tmp_path / "answer.txt").write_bytes(b"\xef\xbb\xbf<answer>3</answer>\r\n")
    assert read_answer(str(tmp_path / "answer.txt")) == "<answer>3</answer>"


def test_metrics_with_a_separator_in_a_name_are_read(tmp_path):
    record = {"step": 3, "data": {"val/a\u2028b": 1.0}}
    (tmp_path / "metrics").mkdir()
    text = json.dumps(record, ensure_ascii=False) + "\n" + '{"step": 4, "da'  # as a kill leaves it
    (tmp_path / "metrics" / "001.jsonl").write_text(text, encoding="utf-8")
    assert read_metrics(tmp_path) == {3: {"val/a\u2028b": 1.0}}


@unhurried
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), max_size=8), max_size=5))
@example(["\u2028", "\x1c", "\u0085x", "\ufeff"])
def test_lines_of_any_letters_come_back(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    for end in ("\n", "\r\n"):
        path.write_bytes(("\ufeff" + "".join(f"{line}{end}" for line in ["first", *lines])).encode())
        assert list(text_lines(path)) == list(enumerate(["first", *lines], 1))
        assert file_text(path) == "".join(f"{line}\n" for line in ["first", *lines])


@unhurried
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=5))
def test_json_lines_of_any_letters_come_back(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("\n" + "".join(json.dumps({"t": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    assert [record["t"] for _, record in json_lines(path)] == texts


@unhurried
@given(st.binary(max_size=60))
@example(b"\xff\xfe\x00")
@example(b"\xff\xfe\x00\x00\x01")
@example(b"\xef\xbb\xbf")
def test_any_bytes_are_read_or_rejected(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(data)
    for reader in (text_lines, json_lines, lambda path: read_csv(path, []), lambda path: read_words(path, 2)):
        try:
            list(reader(path))
        except LabelFileError as error:
            assert str(path) in str(error) and "Fix: " in str(error)


OF_USERS = ("cot", "data", "evaluation", "preparation", "ract", "rali", "scoring", "serving", "t2i")
"""Folders of the package whose files read what users give them."""
OTHERS = {
    "omniq_verl/evaluation/papers.py",  # the package's own tables
    "omniq_verl/rali/encoder.py",  # the lines of an error
    "omniq_verl/serving/metrics.py",  # the server's own page
    "omniq_verl/serving/demo_page.py",  # likewise
    "omniq_verl/t2i/cli.py",  # what a scorer printed
    "omniq_verl/preparation/shards.py",  # its own sidecars
    "omniq_verl/data/arrays.py",  # the lines of an error
    "omniq_verl/data/prepared.py",  # likewise
}


def test_nothing_of_a_user_is_read_by_another_reader():
    """``splitlines`` ends lines at letters; ``read_text`` keeps a byte order mark and takes the system's encoding."""
    folders = [*(REPO / "omniq_verl" / name for name in OF_USERS), REPO / "data_prep"]
    found = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if names & {"splitlines", "read_text", "readlines"}:
            found.add(path.relative_to(REPO).as_posix())
    assert found <= OTHERS

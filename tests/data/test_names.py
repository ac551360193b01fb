"""File names that are no UTF-8, and one name in two forms of Unicode: read, written, and joined back."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from evaluation_builders import RATER, grey
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_builders import saved, smooth
from typer.testing import CliRunner

from data_prep import degradations
from omniq_verl.cli import app
from omniq_verl.data.names import composed, escape_halves, name_key, real_name, shown_name
from omniq_verl.preparation.build import Item, Source, plan
from omniq_verl.preparation.file_index import BadPath, FileIndex
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.splits import content_of
from omniq_verl.scoring.scorer import Scorer

unhurried = settings(deadline=None)  # a busy machine is no error
ODD = [b"a.png", b"caf\xe9.png", b"literal\\xe9.png", "ü画.png".encode(), b"z\xff\\\xfe.png", "e\u0301.png".encode()]


@unhurried
@given(st.binary(max_size=12))
@example(b"\\\xe9")
@example(b"\\x41\\\\xe9\\")
@example(b"\\ud800")
def test_any_name_of_a_file_is_written_as_utf8_and_found_again(name):
    shown = shown_name(os.fsdecode(name))
    assert shown.encode().decode() == shown
    assert os.fsencode(real_name(shown)) == name


@unhurried
@given(st.text(st.characters(), max_size=8))
@example("\\\ud800\\")
@example("\ud83d\ude00")
def test_so_is_any_text_of_python(text):
    shown = shown_name(text)
    assert shown.encode().decode() == shown and real_name(shown) == text


@unhurried
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\"), max_size=12))
def test_names_without_backslash_stay_as_they_are(name):
    assert shown_name(name) == real_name(name) == escape_halves(name) == name


def odd_folder(root: Path) -> Path:
    root.mkdir()
    for number, name in enumerate(ODD):
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(grey(40 * number))
    return root


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "CSV"])
def test_tables_of_scores_can_be_joined_back_to_their_files(tmp_path, ending):
    folder, out = odd_folder(tmp_path / "images"), tmp_path / f"scores.{ending}"
    result = CliRunner().invoke(app, ["score", str(folder), "--model", "", "--engine", RATER, "--out", str(out)])
    assert result.exit_code == 0, result.output
    read = {"csv": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True), "parquet": pd.read_parquet}
    table = read[ending.lower()](out)
    scores = zip(table.image, table.score, strict=True)
    found = {os.fsencode(Path(real_name(name)).name): score for name, score in scores}
    assert set(found) == set(ODD)
    assert all(found[name] == pytest.approx(1 + 4 * 40 * n / 255, abs=0.01) for n, name in enumerate(ODD))
    assert all(Path(real_name(name)).is_file() for name in table.image)


def test_a_run_that_was_killed_goes_on_with_such_names(tmp_path):
    folder, out = odd_folder(tmp_path / "images"), tmp_path / "scores.jsonl"
    words = ["score", str(folder), "--model", "", "--engine", RATER, "--out", str(out)]
    unfinished = tmp_path / "scores.jsonl.unfinished"
    assert CliRunner().invoke(app, words).exit_code == 0
    whole = out.read_text()
    out.unlink()
    # As a kill leaves it: some of the images are finished.
    script = "import omniq_verl.scoring.score_table as f; f.shutil.rmtree = lambda path: None\n"
    script += f"from omniq_verl.cli import app; app({words!r})"
    subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[1] / "builders", capture_output=True
    )
    out.unlink()
    (part,) = unfinished.glob("*.jsonl")
    part.write_bytes(b"".join(part.read_bytes().splitlines(True)[:3]))
    assert CliRunner().invoke(app, words).exit_code == 0
    assert out.read_text() == whole


def test_results_name_files_in_utf8(tmp_path):
    folder = odd_folder(tmp_path / "images")
    files = sorted(folder.iterdir())
    scores = Scorer("", engine=RATER).score(files)
    assert [Path(real_name(one.image)) for one in scores] == files and all(one.image.encode() for one in scores)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_every_image_is_printed_whatever_the_terminal_can_show(tmp_path, encoding):
    folder = odd_folder(tmp_path / "images")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "omniq_verl.cli", "score", str(folder), "--model", "", "--engine", RATER]
    done = subprocess.run(words, cwd=Path(__file__).parents[1] / "builders", env=environment, capture_output=True)
    assert done.returncode == 0 and done.stdout.count(b".png: ") == len(ODD) and b"Traceback" not in done.stderr


def test_an_error_about_such_a_name_is_one_line(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "omniq_verl.cli", "score", b"no/caf\xe9.png", "--model", "", "--engine", RATER]
    done = subprocess.run(words, cwd=Path(__file__).parents[1] / "builders", env=environment, capture_output=True)
    assert done.returncode == 1 and b"no such file" in done.stdout and b"Traceback" not in done.stderr


def test_rejects_name_such_files_so_that_they_can_be_found(tmp_path):
    folder, out = odd_folder(tmp_path / "images"), tmp_path / "out"
    (folder / "good.png").write_bytes(saved(smooth(64, 64), "PNG"))
    degradations.main(degradations.DEGRADATIONS, "", ["--root", str(folder), "--out", str(out), "--workers", "1"])
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    named = {os.fsencode(real_name(one["image"])): one["reason"] for one in rejects}
    assert {b"caf\xe9.png", b"z\xff\\\xfe.png"} <= set(named)
    assert "not UTF-8" in named[b"caf\xe9.png"]
    assert all(one["image"].encode() and one["row_id"].encode() and one["reason"].encode() for one in rejects)


# Forms of Unicode

FORMS = ("NFC", "NFD")
NAMES = ["café.jpg", "Übung.jpg", "가나.jpg", "ǆ\u0323\u0307.jpg", "plain.jpg", "Ünter/ÅÅ.jpg"]


@pytest.mark.parametrize("on_disk", FORMS)
@pytest.mark.parametrize("asked", FORMS)
@pytest.mark.parametrize("change", [str, str.upper, str.lower, lambda name: f" {name} "])
def test_a_name_is_found_in_any_form_and_case(tmp_path, on_disk, asked, change):
    for name in NAMES:
        path = tmp_path / unicodedata.normalize(on_disk, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    index = FileIndex(tmp_path)
    for name in NAMES:
        found = index.find(unicodedata.normalize(asked, change(name)))
        assert found == tmp_path.resolve() / unicodedata.normalize(on_disk, name)


def test_the_exact_form_goes_first_and_what_is_left_open_is_not_guessed(tmp_path):
    composed_name, apart = (unicodedata.normalize(form, "É.jpg") for form in FORMS)
    for name in (composed_name, apart):
        (tmp_path / name).write_bytes(b"x")
    index = FileIndex(tmp_path)
    assert (index.find(composed_name).name, index.find(apart).name) == (composed_name, apart)
    with pytest.raises(BadPath, match="may be any of"):
        index.find("é.jpg")
    (tmp_path / "A.jpg").write_bytes(b"x")
    (tmp_path / "a.JPG").write_bytes(b"x")
    with pytest.raises(BadPath, match="may be any of"):
        FileIndex(tmp_path).find("a.jpg")


@unhurried
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_both_forms_and_cases_have_one_key(name):
    nfc, nfd = (unicodedata.normalize(form, name) for form in FORMS)
    assert name_key(nfc) == name_key(nfd) and composed(nfc) == composed(nfd)
    assert name_key(name_key(name)) == name_key(name)


def test_a_picture_named_in_two_forms_is_one_content():
    nfc, nfd = (Item(unicodedata.normalize(form, "É.jpg"), "test") for form in FORMS)
    assert content_of(nfc) == content_of(nfd)


def test_folders_that_no_row_or_table_could_name_are_rejected_before_any_work(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.mkdir()
    (odd / "a.png").write_bytes(saved(smooth(64, 64), "PNG"))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.png").write_bytes(saved(smooth(64, 64), "PNG"))
    for root, out, more in ((odd, tmp_path / "out", ["--images", "path"]), (tmp_path / "plain", odd / "out", [])):
        words = ["--root", str(root), "--out", str(out), "--workers", "1", *more]
        with pytest.raises(SystemExit, match=r"caf\\xe9\S* is not UTF-8"):
            degradations.main(degradations.DEGRADATIONS, "", words)
        assert not out.exists()
    degradations.main(degradations.DEGRADATIONS, "", ["--root", str(odd), "--out", str(tmp_path / "fine")])
    table = str(odd / "scores.parquet")
    result = CliRunner().invoke(app, ["score", str(tmp_path), "--model", "", "--engine", RATER, "--out", table])
    assert result.exit_code == 1 and "Fix: choose another name" in result.output


def test_rows_have_one_name_whatever_the_form_of_the_label_file(tmp_path):
    (tmp_path / "É.png").write_bytes(saved(smooth(64, 64), "PNG"))
    for form in FORMS:
        name = unicodedata.normalize(form, "É.png")
        planned, rejects = plan(
            Source("x", "technical", [Item(name, "test", 3.0)], LabelMap(1, 5, "made")), FileIndex(tmp_path)
        )
        assert not rejects and planned["test"][0].row.row_id == "x/" + unicodedata.normalize("NFC", "É.png")

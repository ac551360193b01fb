"""Finished items: each once, whatever is killed or started twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from omniq_verl.data.row_refs import RowRef
from omniq_verl.generation.store import OtherConfig, Store, StoreInUse, read_store

CONFIG = {"model": "a", "sampling": {"n": 2, "temperature": 1.0}}


def record(key: str, text: str = "x") -> dict:
    return {"key": key, "answers": [{"text": text, "finish_reason": "stop", "tokens": 1}]}


def test_what_was_added_is_there_in_its_order(tmp_path):
    with Store(tmp_path, CONFIG) as store:
        store.add([record("b"), record("a")])
        store.add([record("c")])
        assert store.keys == {"a", "b", "c"}
    assert [found["key"] for found in read_store(tmp_path)] == ["b", "a", "c"]


def test_a_key_is_kept_as_it_was_first_added(tmp_path):
    with Store(tmp_path, CONFIG) as store:
        store.add([record("a", "first"), record("b")])
        store.add([record("a", "second")])
    with Store(tmp_path, CONFIG) as store:
        store.add([record("a", "third")])
    assert [found["answers"][0]["text"] for found in read_store(tmp_path)] == ["first", "x"]


def test_every_start_writes_a_file_of_its_own(tmp_path):
    for key in "abc":
        with Store(tmp_path, CONFIG) as store:
            store.add([record(key)])
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["0001.jsonl", "0002.jsonl", "0003.jsonl"]


def test_a_start_that_adds_nothing_leaves_no_file(tmp_path):
    Store(tmp_path, CONFIG).close()
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_line_is_as_if_it_were_not_there(tmp_path, cut):
    with Store(tmp_path, CONFIG) as store:
        store.add([record("a"), record("b")])
    path = tmp_path / "0001.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with Store(tmp_path, CONFIG) as store:
        assert store.keys == {"a"}
        store.add([record("b", "again")])
    assert [found["answers"][0]["text"] for found in read_store(tmp_path)] == ["x", "again"]


@pytest.mark.parametrize("text", ["", "\n", "a\nb\r\u2028c", "half \ud800", "\0", "\u4f60\u597d", '"}'])
def test_any_text_comes_back_as_it_was(tmp_path, text):
    with Store(tmp_path, CONFIG) as store:
        store.add([record("a", text)])
    assert next(read_store(tmp_path))["answers"][0]["text"] == text


def test_other_settings_are_rejected_and_named(tmp_path):
    with Store(tmp_path, CONFIG) as store:
        store.add([record("a")])
    with pytest.raises(OtherConfig, match=r"model: 'a' there, 'b' now.*another name, or delete"):
        Store(tmp_path, {**CONFIG, "model": "b"})
    Store(tmp_path, CONFIG).close()  # the lock was given back


def test_settings_under_which_nothing_was_finished_bind_nobody(tmp_path):
    Store(tmp_path, {**CONFIG, "model": "mistyped"}).close()
    Store(tmp_path, CONFIG).close()
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def rows_of(file: Path, *keys: str) -> list[RowRef]:
    return [RowRef(key, str(file), 0, number, {}) for number, key in enumerate(keys)]


def test_files_written_anew_are_rejected_once_there_are_answers(tmp_path):
    one, other, folder = tmp_path / "one", tmp_path / "other", tmp_path / "store"
    one.write_text("1")
    other.write_text("2")
    both = [*rows_of(one, "a"), *rows_of(other, "b")]
    with Store(folder, CONFIG) as store:
        store.check_files(rows_of(one, "a"))
        one.write_text("1 again")
        store.check_files(rows_of(one, "a"))  # no answer is of what it was before
        store.add([record("a")])
        store.check_files(both)
        other.write_text("3")
        with pytest.raises(OtherConfig, match=rf"{other} was rewritten.*delete {folder}"):
            store.check_files(both)
        store.check_files(rows_of(one, "a"))


def test_another_file_with_rows_of_the_same_keys_is_rejected_and_a_moved_one_is_not(tmp_path):
    one, copy, other, more = (tmp_path / name for name in ("one", "copy", "other", "more"))
    for file, text in ((one, "1"), (copy, "1"), (other, "2"), (more, "3")):
        file.write_text(text)
    with Store(tmp_path / "store", CONFIG) as store:
        store.check_files(rows_of(one, "a", "b"))
        store.add([record("a")])
        store.check_files([*rows_of(copy, "a", "b"), *rows_of(more, "c")])
        with pytest.raises(OtherConfig, match=rf"result for a that .* file \(.*{one}.*\), not to {other}\. Fix"):
            store.check_files(rows_of(other, "b", "a"))


def test_a_store_that_the_rest_of_its_run_depends_on_is_not_deleted_alone(tmp_path):
    with Store(tmp_path / "run" / "metrics", CONFIG, run=tmp_path / "run") as store:
        store.add([record("a")])
    with pytest.raises(OtherConfig, match=rf"delete {tmp_path / 'run'}$"):
        Store(tmp_path / "run" / "metrics", {}, run=tmp_path / "run")


def test_a_config_torn_by_a_kill_is_written_anew(tmp_path):
    (tmp_path / "config.json").write_text('{"mod')
    Store(tmp_path, CONFIG).close()
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def test_two_jobs_cannot_write_into_one_folder(tmp_path):
    with Store(tmp_path, CONFIG):
        script = (
            "import pathlib, sys; from omniq_verl.generation.store import Store; Store(pathlib.Path(sys.argv[1]), {})"
        )
        other = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert StoreInUse.__name__ in other.stderr and "being written by another run" in other.stderr

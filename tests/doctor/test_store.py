"""Checking files in threads, and taking results from the store: same findings, each change seen, damage survived."""

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctor_builders import png, record, records, tiny_model, written
from PIL import Image
from transformers import AutoProcessor

from omniq_verl.doctor import verdicts
from omniq_verl.doctor.data_files import FileReport, check_file, check_table, mean_image_tokens
from omniq_verl.doctor.prompt_length import PromptLength
from omniq_verl.doctor.rows import check_row
from omniq_verl.doctor.threads import map_in_order
from omniq_verl.doctor.verdicts import load_result, result_key, save_result, store_folder


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(verdicts.VARIABLE, str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return AutoProcessor.from_pretrained(tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def flawed_rows(count: int = 300) -> list[dict]:
    """Rows of which every seventh has a broken image, every eleventh a wrong label, and every fifteenth no id."""
    rows = records(count)
    for number, row in enumerate(rows):
        if number % 7 == 0:
            row["images"][0]["bytes"] = png()[:-200]
        if number % 11 == 0:
            row["reward_model"]["ground_truth"] = f"{number}"
        if number % 15 == 0:
            row["extra_info"]["id"] = None
    return rows


def entries(store: Path) -> list[str]:
    return sorted(path.name for path in store.glob("*"))


class Counting(PromptLength):
    """Counts how many rows were looked at."""

    rows = 0

    def count(self, messages, sizes):
        self.rows += 1
        return super().count(messages, sizes)


# Threads


def test_results_come_in_order_whatever_finishes_first():
    def slow(number: int) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return number

    assert list(map_in_order(slow, range(50), 4)) == list(range(50))


def test_few_items_are_in_memory_at_a_time():
    taken, returned = [], []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    for number in map_in_order(lambda number: number, items(), 3):
        returned.append(number)
        assert len(taken) - len(returned) <= 2 * 3


def test_items_are_worked_on_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)
    assert list(map_in_order(lambda number: meeting.wait() >= 0, range(4), 2)) == [True] * 4


def test_an_error_of_the_source_comes_after_the_results_before_it():
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("unreadable")

    found = []
    with pytest.raises(OSError, match="unreadable"):
        for number in map_in_order(lambda number: number, items(), 4):
            found.append(number)
    assert found == [0, 1, 2, 3, 4]


def test_an_error_of_the_function_comes_in_the_place_of_its_result():
    found = []
    with pytest.raises(ZeroDivisionError):
        for result in map_in_order(lambda number: 1 / (number - 3), range(10), 4):
            found.append(result)
    assert len(found) == 3


def test_threads_find_what_a_loop_finds_in_the_same_order(tmp_path, processor):
    rows, lengths = flawed_rows(), PromptLength(processor)
    expected = []
    for number, row in enumerate(rows):
        faults, _ = check_row(row, lengths, 128)
        expected += [(number, fault.what) for fault in faults]
    report = check_file(written(tmp_path, rows), lengths, 128)
    listed = [problem for problem in report.problems if "more rows with such a fault" not in problem.what]
    assert len(listed) == 15  # five of each kind
    found = [(int(problem.where.partition("row ")[2].split()[0]), problem.what) for problem in listed]
    assert found == [pair for pair in expected if pair in found]
    counted = {problem.what for problem in report.problems} - {what for _, what in found}
    assert counted == {
        "and 38 more rows with such a fault (image)",
        "and 23 more rows with such a fault (label)",
        "and 15 more rows with such a fault (id)",
    }


def test_tokens_are_counted_by_many_threads_as_by_one(processor):
    prompts = [((("user", f"<image>How good is it, {number}?"),), ((24 + number, 40),)) for number in range(64)]
    alone, shared = PromptLength(processor), PromptLength(processor)
    expected = [alone.count(*prompt) for prompt in prompts]
    assert list(map_in_order(lambda prompt: shared.count(*prompt), prompts * 4, 8)) == expected * 4


def test_a_large_image_is_found_by_threads_and_no_filter_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 24 - 1)
    before = list(warnings.filters)
    report = check_file(written(tmp_path, records(40)), None, 128)
    assert "decompression bomb" in report.problems[0].what and "and 35 more rows" in report.problems[-1].what
    assert warnings.filters == before


def test_a_lack_of_memory_is_no_fault_of_the_image(tmp_path, monkeypatch):
    def exhausted(*arguments):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", exhausted)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
    with pytest.raises(MemoryError):
        check_file(written(tmp_path, records(3)), None, 128)


def test_image_tokens_are_added_up(tmp_path, processor):
    lengths = PromptLength(processor)
    reports = [check_file(written(tmp_path, records(count), f"{count}.parquet"), lengths, 600) for count in (2, 4)]
    each = lengths.count((("user", "<image>"),), ((24, 24),)).images
    assert [report.image_tokens for report in reports] == [2 * each, 4 * each]
    assert mean_image_tokens(reports) == each
    assert mean_image_tokens([FileReport("none")]) is None


# The store


@pytest.mark.parametrize("rows", [records(20), flawed_rows()])
def test_a_stored_report_is_the_one_that_was_stored(tmp_path, store, processor, rows):
    path, lengths = written(tmp_path, rows), Counting(processor)
    cold = check_file(path, lengths, 600)
    looked_at = lengths.rows
    warm = check_file(path, lengths, 600)
    assert looked_at > 0 and lengths.rows == looked_at
    assert warm == cold
    assert list(map(str, warm.problems)) == list(map(str, cold.problems))
    assert len(entries(store)) == 1


def test_another_process_takes_the_result_from_the_store(tmp_path, store, processor):
    path = written(tmp_path, flawed_rows(40))
    cold = check_file(path, None, 600)
    code = (
        "import sys; from omniq_verl.doctor import data_files\n"
        "def never(*arguments): raise AssertionError('the file was checked again')\n"
        "data_files._check_content = never\n"
        "print(*data_files.check_file(sys.argv[1], None, 600).problems, sep='\\n')"
    )
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120)
    assert result.stdout.splitlines() == list(map(str, cold.problems)), result.stderr


def change_a_byte(path: Path, lengths: dict) -> None:
    content = bytearray(path.read_bytes())
    where = content.index(b"IDAT") + 6
    content[where] ^= 1
    state = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # same size, same time


@pytest.mark.parametrize(
    "change",
    [
        change_a_byte,
        lambda path, given: written(path.parent, records(21), path.name),
        lambda path, given: given.update(most=500),
        lambda path, given: given.update(labels=False),
        lambda path, given: given.update(template={"enable_thinking": False}),
        lambda path, given: given.update(pixels={"max_pixels": 4096}),
    ],
)
def test_a_change_of_file_or_settings_is_checked_anew(tmp_path, store, processor, change):
    path, given = written(tmp_path, records(20)), {"most": 600, "labels": True, "template": None, "pixels": None}

    def checked() -> int:
        lengths = Counting(processor, given["template"], given["pixels"])
        check_file(path, lengths, given["most"], given["labels"])
        return lengths.rows

    assert (checked() > 0, checked()) == (True, 0)
    change(Path(path), given)
    assert (checked() > 0, checked()) == (True, 0)


@pytest.mark.parametrize("part", ["tokenizer", "template", "image processor"])
def test_another_processor_has_another_fingerprint(tmp_path, part):
    folder = tiny_model(tmp_path / "model")
    first, second = (AutoProcessor.from_pretrained(folder) for _ in range(2))
    assert PromptLength(first).fingerprint == PromptLength(second).fingerprint
    if part == "tokenizer":
        second.tokenizer.add_tokens(["<new>"])
    elif part == "template":
        second.chat_template += " "
    else:
        second.image_processor.patch_size = 16
    assert PromptLength(first).fingerprint != PromptLength(second).fingerprint


def test_the_key_depends_on_code_libraries_and_path(tmp_path, monkeypatch):
    file, copy = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"same")
    copy.write_bytes(b"same")
    keys = [result_key(file, "x"), result_key(copy, "x"), result_key(file, "y")]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    keys.append(result_key(file, "x"))
    monkeypatch.setattr(verdicts, "_code", lambda: "other")
    keys.append(result_key(file, "x"))
    monkeypatch.setattr(verdicts, "version", lambda name: "0")
    keys.append(result_key(file, "x"))
    assert len(set(keys)) == 6


def test_the_code_is_the_source_of_this_package(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "__file__", str(tmp_path / "doctor" / "verdicts.py"))
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "rows.py").write_text("a = 1")
    first = verdicts._code.__wrapped__()
    (tmp_path / "doctor" / "rows.py").write_text("a = 2")
    assert verdicts._code.__wrapped__() != first


@pytest.mark.parametrize("damage", [b"", b"\x00\xff", b"not a checksum\n{}", None, "other values"])
def test_a_damaged_entry_is_replaced(tmp_path, store, processor, damage):
    path, lengths = written(tmp_path, records(20)), Counting(processor)
    cold = check_file(path, lengths, 600)
    (entry,) = store.iterdir()
    whole = entry.read_bytes()
    if damage == "other values":
        save_result(store, entry.stem, {"rows": 3})
    else:
        entry.write_bytes(whole[:-1] if damage is None else damage)
    looked_at = lengths.rows
    assert check_file(path, lengths, 600) == cold and lengths.rows == 2 * looked_at
    assert entry.read_bytes() == whole


def test_images_in_files_of_their_own_are_looked_at_each_time(tmp_path, store):
    image = tmp_path / "image.png"
    image.write_bytes(png())
    rows = [{**row, "images": [{"image": str(image)}]} for row in records(3)]
    path = written(tmp_path, rows)
    assert check_file(path, None, 600).problems == [] and not store.exists()
    image.unlink()
    assert "does not exist" in check_file(path, None, 600).problems[0].what


def test_a_file_that_changes_while_it_is_checked_is_not_stored(tmp_path, store):
    path = written(tmp_path, records(3))

    def check(row: dict):
        os.utime(path)
        return [], None

    check_table(path, ["prompt"], check, "settings")
    assert not store.exists()


def test_a_check_without_known_settings_is_not_stored(tmp_path, store):
    check_table(written(tmp_path, records(3)), ["prompt"], lambda row: ([], None))
    assert not store.exists()


def test_a_tokenizer_without_fingerprint_is_not_stored(tmp_path, store, processor):
    class Unknown(PromptLength):
        fingerprint = None

    check_file(written(tmp_path, records(3)), Unknown(processor), 600)
    assert not store.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_ignored(tmp_path, store):
    store.mkdir(mode=0o500)
    assert check_file(written(tmp_path, records(3)), None, 600).problems == []


def test_a_store_that_is_a_file_is_ignored(tmp_path, store):
    store.write_text("")
    assert check_file(written(tmp_path, records(3)), None, 600).problems == []
    assert store.read_text() == ""


def test_runs_that_store_at_the_same_time_leave_whole_entries(store):
    results = [{"rows": number, "filler": "x" * 200_000} for number in range(8)]
    writers = [threading.Thread(target=save_result, args=(store, "key", result)) for result in results * 4]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = load_result(store, "key")
        assert found is None or found in results
    assert load_result(store, "key") in results and entries(store) == ["key.json"]


def test_what_was_not_used_for_longest_is_removed(store, monkeypatch):
    monkeypatch.setattr(verdicts, "_KEPT", 3)
    for number, key in enumerate("abc"):
        save_result(store, key, {})
        os.utime(store / f"{key}.json", (number, number))
    assert load_result(store, "a") == {}  # used now
    save_result(store, "d", {})
    assert entries(store) == ["a.json", "c.json", "d.json"]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({verdicts.VARIABLE: "off"}, None),
        ({verdicts.VARIABLE: " OFF "}, None),
        ({verdicts.VARIABLE: "/elsewhere", "XDG_CACHE_HOME": "/cache"}, "/elsewhere"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/omniq_verl/doctor"),
        ({"XDG_CACHE_HOME": "relative"}, f"{Path.home()}/.cache/omniq_verl/doctor"),
        ({}, f"{Path.home()}/.cache/omniq_verl/doctor"),
    ],
)
def test_the_folder_of_the_store(environment, folder):
    assert store_folder(environment) == (None if folder is None else Path(folder))


def test_a_row_with_a_name_of_odd_characters_is_stored(tmp_path, store):
    row = record(0, b"broken")
    row["extra_info"]["id"] = "ü\n\"'\u2028"
    path = written(tmp_path, [row])
    assert check_file(path, None, 600) == check_file(path, None, 600)
    assert len(entries(store)) == 1

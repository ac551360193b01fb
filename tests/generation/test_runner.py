"""A job of many requests, killed, failing and started again. The engine is a stand-in; the job is the real one."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from generation_builders import SLOWLY, write_rows
from rich.console import Console
from rich.progress import Progress

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import RowReader, SameRow, list_rows
from omniq_verl.data.rows import Row
from omniq_verl.generation import runner
from omniq_verl.generation.request import Sampling, seed_of
from omniq_verl.generation.runner import BatchesFailed, RunOptions, run_job
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import Store, read_store
from omniq_verl.generation.workers import Job, WorkItem, here

ROWS = 40
HERE = RunOptions(on="here", batch=4)
QUIET = Console(quiet=True)


def ask(row, note):
    return [{"role": "user", "content": f"<image>{row['extra_info']['id']} {note}"}]


def job(script: str = "", **settings) -> Job:
    return Job(EngineSpec(script, "generation_builders:Echo"), Sampling(n=2, temperature=1.0), ask, **settings)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_rows(tmp_path / "train.parquet", np.linspace(1, 5, ROWS))


def answers(folder: Path) -> dict[str, list[str]]:
    return {record["key"]: [answer["text"] for answer in record["answers"]] for record in read_store(folder)}


def run(data: Path, out: Path, what: Job, run_options: RunOptions = HERE) -> dict[str, list[str]]:
    todo = [WorkItem(ref, f"note {ref.number}") for ref in list_rows([data])]
    with Store(out, {}) as store:
        run_job(what, todo, store, run_options, QUIET, "test")
    return answers(out)


def test_every_row_is_asked_with_its_note_its_image_and_its_seed(data, tmp_path):
    found = run(data, tmp_path / "out", job())
    assert len(found) == ROWS
    seed = seed_of("technical/made/7")
    assert found["technical/made/7"] == [f"<image>made/7 note 7 seed {seed + n} images 1" for n in range(2)]


def test_a_question_about_the_text_alone_shows_no_image(data, tmp_path):
    found = run(data, tmp_path / "out", job(images=False))
    assert found["technical/made/0"][0].endswith("images 0")


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_answers_do_not_depend_on_the_batches(data, tmp_path, batch):
    assert run(data, tmp_path / "a", job(), RunOptions("here", batch=batch)) == run(data, tmp_path / "b", job())


def test_a_second_start_asks_for_nothing_again(data, tmp_path):
    run(data, tmp_path / "out", job())
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    run(data, tmp_path / "out", job("rejects made"))
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")} == before


def test_a_rejected_row_is_kept_as_one_and_costs_no_other(data, tmp_path):
    found = run(data, tmp_path / "out", job("rejects made/7"))
    assert found["technical/made/7"] == ["ValueError: too long"] * 2
    assert sum("too long" in texts[0] for texts in found.values()) == 1


def test_a_batch_whose_worker_died_is_tried_again(data, tmp_path):
    found = run(data, tmp_path / "out", job(f"dies {tmp_path}"))
    assert (tmp_path / "died").exists()
    assert found == run(data, tmp_path / "undisturbed", job())


def test_an_engine_is_closed_before_the_next_one_is_opened(data, tmp_path):
    def events(what: Job, rows: int = 6) -> list[str]:
        list(here(what, [[WorkItem(ref)] for ref in list_rows([data])[:rows]], lambda: None))
        return (tmp_path / "events").read_text().split()

    closable = "generation_builders:Closable"
    once = Job(EngineSpec(f"fine {tmp_path}", closable), Sampling(), ask)
    assert events(once) == ["open", "close"]
    assert events(once) == ["open", "close"] * 2
    (tmp_path / "events").unlink()
    dies = Job(EngineSpec(f"dies {tmp_path}", closable), Sampling(), ask)  # at its third row
    assert events(dies) == ["open", "close"] * 2


def test_a_job_that_is_given_up_closes_its_engine(data, tmp_path):
    def unaskable(row, note):
        raise ValueError("no question")

    what = Job(EngineSpec(f"fine {tmp_path}", "generation_builders:Closable"), Sampling(), unaskable)
    with pytest.raises(BatchesFailed, match="every batch fails"):
        run(data, tmp_path / "out", what)
    assert (tmp_path / "events").read_text().split() == ["open", "close"]


def test_what_fails_every_time_is_said_and_the_rest_is_kept(data, tmp_path):
    with pytest.raises(
        BatchesFailed, match=r"1 rows were not answered, the first technical/made/7 \(RuntimeError: dead"
    ):
        run(data, tmp_path / "out", job("kills made/7"))
    assert len(answers(tmp_path / "out")) == ROWS - 1


def test_where_nothing_works_not_every_row_is_tried(data, tmp_path):
    opened = tmp_path / "opened"
    with pytest.raises(BatchesFailed, match=r"every batch fails \(OSError: no such model\)\. Finished rows are saved"):
        run(data, tmp_path / "out", job(f"unloadable {opened}"), RunOptions("here", batch=1))
    assert opened.read_text() == "x" * 3


def test_that_all_rows_are_rejected_is_a_fault_of_the_settings(data, tmp_path):
    with pytest.raises(BatchesFailed, match=r"every batch fails \(all 4 rows were rejected: ValueError: too long"):
        run(data, tmp_path / "out", job("rejects made"))
    assert answers(tmp_path / "out") == {}


def test_a_few_rows_that_are_rejected_are_kept_as_such_where_others_were_answered(data, tmp_path):
    todo = [WorkItem(ref) for ref in list_rows([data])[:4]]
    console = Console(file=io.StringIO())
    with Store(tmp_path / "out", {}) as store:
        run_job(job(), todo[:2], store, HERE, QUIET, "test")
        run_job(job("rejects made"), todo, store, HERE, console, "test")
    assert len(answers(tmp_path / "out")) == 4
    assert "2 rows were rejected by the engine, e.g. ValueError: too long" in console.file.getvalue()


@pytest.mark.parametrize("rows", [1, 3, 5, 9])  # also one that is alone in its batch
def test_a_few_rows_that_are_all_rejected_are_asked_again_with_the_right_settings(data, tmp_path, rows):
    todo = [WorkItem(ref) for ref in list_rows([data])[:rows]]
    with Store(tmp_path / "out", {}) as store:
        with pytest.raises(
            BatchesFailed, match=rf"all {rows} rows were rejected.*too long.*no rejection was saved|every"
        ):
            run_job(job("rejects made"), todo, store, HERE, QUIET, "test")
        assert answers(tmp_path / "out") == {}
        run_job(job(), todo, store, HERE, QUIET, "test")
    assert len(found := answers(tmp_path / "out")) == rows and "too long" not in str(found)


def test_a_log_is_told_how_far_it_is(data, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_REPORT_EVERY", 0)
    console = Console(file=io.StringIO())
    with Store(tmp_path / "out", {}) as store:
        run_job(job(), [WorkItem(ref) for ref in list_rows([data])], store, HERE, console, "test")
    assert "test: 4 of 40 rows" in console.file.getvalue() and "test: 40 of 40 rows" in console.file.getvalue()


def test_files_that_hold_images_in_two_ways_are_rejected(data, tmp_path):
    rows = [Row("b", "b/0", "technical", "train", 3.0, 3.0, (1.0, 5.0)).record(0, "/images/0.png")]
    write_parquet(rows, tmp_path / "named.parquet")
    with pytest.raises(ValueError, match=r"train.parquet and .*named.parquet hold their images in two ways"):
        list_rows([data, tmp_path / "named.parquet"])


def test_two_rows_of_one_name_are_rejected(data, tmp_path):
    other = write_rows(tmp_path / "other.parquet", [1.0])
    with pytest.raises(SameRow, match="technical/made/0 is in"):
        list_rows([data, other])


def test_a_file_that_data_prep_did_not_write_is_named(tmp_path):
    import pandas

    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"y.parquet cannot be read as parquet"):
        list_rows([tmp_path / "y.parquet"])
    with pytest.raises(ValueError, match=r"x.parquet has no columns .*omniq data"):
        list_rows([tmp_path / "x.parquet"])


def test_a_folder_and_a_file_that_is_not_there_are_told_from_broken_ones(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path} is a folder. Fix: name its files, e.g. {tmp_path}/\*.parquet"):
        list_rows([tmp_path])
    with pytest.raises(ValueError, match=r"x.parquet: there is no such file"):
        list_rows([tmp_path / "x.parquet"])


def test_a_star_is_for_the_pieces_of_a_data_set_in_their_order(tmp_path):
    for number in (1, 0):
        write_rows(tmp_path / f"train-{number}.parquet", [1.0], source=f"s{number}")
    write_rows(tmp_path / "test.parquet", [1.0], source="t")
    found = list_rows([tmp_path / "train*.parquet"])
    assert [Path(ref.file).name for ref in found] == ["train-0.parquet", "train-1.parquet"]
    with pytest.raises(ValueError, match=r"val\*.parquet: no file matches this name"):
        list_rows([tmp_path / "val*.parquet"])


def test_rows_are_read_where_they_lie(data):
    refs = list_rows([data])
    chosen = [refs[30], refs[2], refs[2]]
    rows = list(RowReader(["prompt", "extra_info"]).read(chosen))
    assert [row["extra_info"]["id"] for row in rows] == ["made/30", "made/2", "made/2"]
    assert set(rows[0]) == {"prompt", "extra_info"}


def test_a_row_group_is_read_once_for_its_neighbours(data, monkeypatch):
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda *args, **more: read.append(args[1]) or original(*args, **more)
    )
    reader, refs = RowReader(["prompt"]), list_rows([data])
    read.clear()
    for first in range(0, ROWS, 4):
        list(reader.read(refs[first : first + 4]))
    assert read == [0]


SLOW_RUN = """
import runpy, sys
from pathlib import Path
module = runpy.run_path(sys.argv[1])
module["run"](Path(sys.argv[2]), Path(sys.argv[3]), module["job"]("slow"))
"""


@pytest.mark.slow
def test_killed_at_five_moments_every_row_is_there_once(data, tmp_path):
    out, expected = tmp_path / "out", run(data, tmp_path / "undisturbed", job())
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "builders"), str(Path(__file__).parents[2])])
    command = [sys.executable, "-c", SLOW_RUN, __file__, str(data), str(out)]
    counts = [0]
    for moment in range(5):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
        # Each start finishes two more batches and is killed within the third.
        wanted = min(8 * (moment + 1), ROWS - 4)
        while len(answers(out) if out.exists() else {}) < wanted:
            assert process.poll() is None
            time.sleep(SLOWLY)
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(len(answers(out)))
    assert counts == sorted(counts) and counts[-1] < ROWS
    subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=True)
    lines = [line for path in out.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(lines) == len(expected) == ROWS
    assert answers(out) == expected


@pytest.fixture
def shown(monkeypatch) -> list[int]:
    """How far the progress bar was, each time that it moved."""
    seen, update = [], Progress.update

    def remembering(bar, task, **what):
        seen.append(what["completed"])
        update(bar, task, **what)

    monkeypatch.setattr(Progress, "update", remembering)
    return seen


@pytest.mark.parametrize("engine", ["Echo", "Streams", "InFours"])
def test_the_bar_moves_within_a_batch_and_ends_at_the_number_of_rows(data, tmp_path, shown, engine):
    what = Job(EngineSpec("", f"generation_builders:{engine}"), Sampling(n=2, temperature=1.0), ask)
    assert len(run(data, tmp_path / "out", what, RunOptions(on="here", batch=ROWS))) == ROWS
    assert shown == sorted(shown) and shown[-1] == ROWS
    assert set(range(ROWS + 1)) <= set(shown)


def test_rows_of_a_batch_that_fails_are_taken_off_the_bar_again(data, tmp_path, shown):
    what = Job(EngineSpec("breaks", "generation_builders:Streams"), Sampling(n=1), ask)
    with pytest.raises(BatchesFailed):
        run(data, tmp_path / "out", what, RunOptions(on="here", batch=ROWS, retries=0))
    assert max(shown) == ROWS // 2 and shown[-1] == 0

"""A job of many requests, killed, failing and started again. The engine is a stand-in; the job is the real one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from generation_builders import SLOWLY, write_rows
from rich.console import Console

from omniq_verl.generation.engines import EngineSpec
from omniq_verl.generation.places import SameRow, list_places, read_places
from omniq_verl.generation.request import Sampling, seed_of
from omniq_verl.generation.runner import BatchesFailed, How, Job, Todo, finish
from omniq_verl.generation.store import Store, read_store

ROWS = 40
HERE = How(on="here", batch=4)
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


def run(data: Path, out: Path, what: Job, how: How = HERE) -> dict[str, list[str]]:
    todo = [Todo(place, f"note {place.number}") for place in list_places([data])]
    with Store(out, {}) as store:
        finish(what, todo, store, how, QUIET, "test")
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
    assert run(data, tmp_path / "a", job(), How("here", batch=batch)) == run(data, tmp_path / "b", job())


def test_a_second_start_asks_for_nothing_again(data, tmp_path):
    run(data, tmp_path / "out", job())
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    run(data, tmp_path / "out", job("refuses made"))
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")} == before


def test_a_refused_row_is_kept_as_one_and_costs_no_other(data, tmp_path):
    found = run(data, tmp_path / "out", job("refuses made/7"))
    assert found["technical/made/7"] == ["ValueError: too long"] * 2
    assert sum("too long" in texts[0] for texts in found.values()) == 1


def test_a_batch_whose_worker_died_is_tried_again(data, tmp_path):
    found = run(data, tmp_path / "out", job(f"dies {tmp_path}"))
    assert (tmp_path / "died").exists()
    assert found == run(data, tmp_path / "undisturbed", job())


def test_what_fails_every_time_is_said_and_the_rest_is_kept(data, tmp_path):
    with pytest.raises(
        BatchesFailed, match=r"40 rows were not answered in 3 attempts, the first technical/made/0 \(Attr"
    ):
        run(data, tmp_path / "out", Job(EngineSpec("", "generation_builders:no_such"), Sampling(), ask))


def test_two_rows_of_one_name_are_refused(data, tmp_path):
    other = write_rows(tmp_path / "other.parquet", [1.0])
    with pytest.raises(SameRow, match="technical/made/0 is in"):
        list_places([data, other])


def test_a_file_that_data_prep_did_not_write_is_named(tmp_path):
    import pandas

    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x.parquet has no columns .*data_prep"):
        list_places([tmp_path / "x.parquet"])


def test_rows_are_read_where_they_lie(data):
    places = list_places([data])
    chosen = [places[30], places[2], places[2]]
    assert [row["extra_info"]["id"] for row in read_places(chosen)] == ["made/30", "made/2", "made/2"]
    assert set(next(read_places(chosen, ["prompt"]))) == {"prompt"}


SLOW_RUN = """
import sys
from pathlib import Path
from test_generation_runner import job, run
run(Path(sys.argv[1]), Path(sys.argv[2]), job("slow"))
"""


@pytest.mark.slow
def test_killed_at_five_moments_every_row_is_there_once(data, tmp_path):
    out, expected = tmp_path / "out", run(data, tmp_path / "undisturbed", job())
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    command = [sys.executable, "-c", SLOW_RUN, str(data), str(out)]
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

"""The table of ``omniq score --out``: changed images, a full disk, and the digits of its numbers."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from evaluation_builders import RATER, grey
from rich.console import Console

from omniq_verl.scoring import score_table
from omniq_verl.scoring.image_inputs import list_files
from omniq_verl.scoring.score_table import write_scores
from omniq_verl.scoring.scorer import Score, Scorer


def unfinished(tmp_path: Path) -> Path:
    """A table whose run was killed after one of two images."""
    (tmp_path / "photos").mkdir()
    for name, value in (("a.png", 0), ("b.png", 255)):
        (tmp_path / "photos" / name).write_bytes(grey(value))
    out, photos = tmp_path / "scores.jsonl", tmp_path / "photos"

    def breaks(_files):
        yield Scorer("", RATER).score([photos / "a.png"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scores(list_files([photos]), out, Console(quiet=True), {}, breaks)
    return out


def test_an_image_that_has_changed_since_a_killed_run_is_not_given_its_old_score(tmp_path):
    out = unfinished(tmp_path)
    files = list_files([tmp_path / "photos"])
    os.utime(files[0], (1, 1))  # copied, perhaps, but the same image
    files[0].write_bytes(grey(102))
    with pytest.raises(ValueError, match=r"a\.png has changed since it was scored.*Fix: delete .*unfinished"):
        write_scores(files, out, Console(quiet=True), {}, Scorer("", RATER).batches)
    files[0].write_bytes(grey(0))
    write_scores(files, out, Console(quiet=True), {}, lambda left: [Scorer("", RATER).score(left)])
    assert pd.read_json(out, lines=True).score.tolist() == [1.0, 5.0]


def test_a_table_that_cannot_be_written_leaves_no_half_of_one(tmp_path, monkeypatch):
    out = unfinished(tmp_path)
    files = list_files([tmp_path / "photos"])

    def full(_table, path):
        path.write_text('{"image": "a.png", "sco')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setitem(score_table._WRITERS, ".jsonl", full)
        write_scores(files, out, Console(quiet=True), {}, lambda left: [Scorer("", RATER).score(left)])
    assert not out.exists()
    assert write_scores(files, out, Console(quiet=True), {}, None) == 2  # nothing is asked again


def test_small_numbers_are_not_rounded_to_nothing(tmp_path):
    (tmp_path / "a.png").write_bytes(grey(9))
    score = Score(str(tmp_path / "a.png"), "technical", "ok", 2.3456789012345, outside=1.25e-12)
    out = tmp_path / "scores.jsonl"
    write_scores([tmp_path / "a.png"], out, Console(quiet=True), {}, lambda left: [[score]])
    (line,) = map(json.loads, out.read_text().splitlines())
    assert (line["score"], line["outside"]) == (score.score, pytest.approx(score.outside, rel=1e-3))

"""The checkpoint that validated best survives verl's deletions and a kill at any moment."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from checkpoint_builders import delete, save, step_of

from omniq_verl.doctor.notes import unsaved_validations
from omniq_verl.trainer import best_checkpoint as module
from omniq_verl.trainer.best_checkpoint import (
    best_checkpoint,
    keep_best,
    mean_of,
    part_from_best,
    read_record,
    why_not_compared,
)


def validated(srcc: float | None, **others: float) -> dict[str, float]:
    sources = {} if srcc is None else {"val-core/a/srcc": srcc, "val-core/mean/srcc": srcc}
    return {"val-aux/a/scored": 8.0, **sources, **others}


def train(run: Path, values: dict[int, float | None], kept: int = 2) -> None:
    for number, (step, srcc) in enumerate(values.items()):
        part_from_best(run, step)
        save(run, step)
        for old in list(values)[: max(number + 1 - kept, 0)]:
            delete(run, old)
        keep_best(run, step, validated(srcc), "srcc")


def test_the_best_stays_when_verl_has_deleted_its_checkpoint(tmp_path):
    train(tmp_path, {10: 0.5, 20: 0.9, 30: 0.7, 40: 0.8, 50: 0.6})
    assert sorted(path.parent.name for path in tmp_path.glob("global_step_*/actor")) == [
        "global_step_40",
        "global_step_50",
    ]
    best = best_checkpoint(tmp_path)
    assert (best, step_of(best)) == (tmp_path / "best" / "global_step_20", 20)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["global_step_20"]
    assert not list(best.rglob("*.pt"))  # weights only
    record = json.loads((tmp_path / "best_checkpoint.json").read_text())
    assert (record["metric"], record["step"], record["value"]) == ("val-core/mean/srcc", 20, 0.9)
    assert record["validated"] == {"10": 0.5, "20": 0.9, "30": 0.7, "40": 0.8, "50": 0.6}


def test_it_costs_no_space_while_its_checkpoint_is_there(tmp_path):
    train(tmp_path, {10: 0.5})
    source = tmp_path / "global_step_10/actor/huggingface/model.safetensors"
    assert os.path.samefile(source, best_checkpoint(tmp_path) / "model.safetensors")


def test_a_file_system_without_links_gets_a_copy(tmp_path, monkeypatch):
    def reject(*_args):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", reject)
    train(tmp_path, {10: 0.5, 20: 0.4, 30: 0.3})
    assert step_of(best_checkpoint(tmp_path)) == 10


@pytest.mark.parametrize("value", [0.5, 0.4, None, float("nan")])
def test_what_is_not_better_changes_nothing(tmp_path, value):
    train(tmp_path, {10: 0.5, 20: value})
    assert step_of(best_checkpoint(tmp_path)) == 10


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


def lines_of(run: Path, values: dict[int, float], kill_at: int | None) -> int:
    """Train; in the last keep_best, die before the line of that number. Returns how many lines it has run."""
    *before, (step, value) = values.items()
    train(run, dict(before))
    save(run, step)
    seen = 0

    def trace(frame, event, _arg):
        nonlocal seen
        if frame.f_code.co_filename not in (module.__file__, shutil.__file__):
            return None
        if event == "line":
            if seen == kill_at:
                raise Killed
            seen += 1
        return trace

    sys.settrace(trace)
    try:
        keep_best(run, step, validated(value), "srcc")
    except Killed:
        pass
    except OSError as error:  # shutil closes a folder twice if it dies between closing it and noting that
        assert isinstance(error.__context__, Killed)
    finally:
        sys.settrace(None)
    return seen


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_best(tmp_path):
    values = {10: 0.5, 20: 0.7}
    count = lines_of(tmp_path / "whole", values, None)
    assert step_of(best_checkpoint(tmp_path / "whole")) == 20 and count > 50
    for kill_at in range(0, count, 3):
        run = tmp_path / str(kill_at)
        lines_of(run, values, kill_at)
        for step in (10, 20):
            delete(run, step)  # whatever verl deletes next
        assert step_of(best_checkpoint(run)) == read_record(run)["step"], kill_at
        train(run, {30: 0.9})  # and the next step goes on
        assert step_of(best_checkpoint(run)) == 30 and len(list((run / "best").iterdir())) == 1, kill_at


def test_a_step_that_is_saved_again_does_not_write_into_the_best(tmp_path):
    train(tmp_path, {10: 0.5, 20: 0.9})
    best = best_checkpoint(tmp_path)
    part_from_best(tmp_path, 20)  # the run was set back to step 10
    folder = tmp_path / "global_step_20/actor/huggingface"
    assert not (folder / "model.safetensors").exists() and step_of(best) == 20
    save(tmp_path, 20)
    assert not os.path.samefile(folder / "model.safetensors", best / "model.safetensors")
    keep_best(tmp_path, 20, validated(0.95), "srcc")  # and is better now
    assert best_checkpoint(tmp_path).name == "global_step_20_again"


def test_a_step_without_a_whole_checkpoint_is_said_and_not_kept(tmp_path):
    train(tmp_path, {10: 0.5})
    said = keep_best(tmp_path, 15, validated(0.9), "srcc")
    assert (
        "step 15 validates best (srcc 0.9000) and cannot be kept: there is no" in said and "Fix: make trainer" in said
    )
    save(tmp_path, 20)
    (tmp_path / "global_step_20/actor/huggingface/model.safetensors").write_bytes(b"torn")
    assert "cannot be kept" in keep_best(tmp_path, 20, validated(0.8), "srcc")
    assert step_of(best_checkpoint(tmp_path)) == 10
    assert keep_best(tmp_path, 0, validated(0.99), "srcc") is None  # the model that training begins with


def test_a_step_that_cannot_be_compared_is_said_with_the_reason(tmp_path):
    train(tmp_path, {10: 0.5})
    few = validated(0.9, **{"val-aux/a/answers": 100.0})
    assert keep_best(tmp_path, 20, few, "srcc") == (
        "step 20 is not compared with other checkpoints: only 8 of 100 answers to a have a score"
    )
    assert keep_best(tmp_path, 30, {}, "srcc") == "step 30 is not compared with other checkpoints: it has no srcc"
    assert step_of(best_checkpoint(tmp_path)) == 10


def test_another_metric_begins_a_new_comparison(tmp_path):
    train(tmp_path, {10: 0.9})
    save(tmp_path, 20)
    keep_best(tmp_path, 20, {"val-core/mean/choice_accuracy": 0.6}, "choice_accuracy")
    assert step_of(best_checkpoint(tmp_path)) == 20 and read_record(tmp_path)["validated"] == {"20": 0.6}


HEADS = {
    **{"val-core/a/quality/srcc": 0.8, "val-core/a/aesthetics/srcc": 0.6, "val-aux/a/answers": 9.0},
    **{"val-aux/a/quality/scored": 9.0, "val-aux/a/aesthetics/scored": 9.0},
}


@pytest.mark.parametrize(
    ("metrics", "mean"),
    [
        ({"val-core/mean/srcc": 0.7, "val-core/a/srcc": 0.7, "val-aux/a/scored": 9.0}, 0.7),
        # b answers the same to every image and has no correlation: the mean is over a alone.
        ({"val-core/mean/srcc": 0.7, "val-core/a/srcc": 0.7, "val-aux/a/scored": 9.0, "val-aux/b/scored": 9.0}, None),
        # d is asked for a distortion, and has no scores.
        ({"val-core/mean/srcc": 0.7, "val-core/a/srcc": 0.7, "val-aux/a/scored": 9.0, "val-aux/d/rows": 9.0}, 0.7),
        ({"val-core/mean/srcc": float("nan")}, None),
        # Two of a hundred answers have a score, in the right order.
        (
            {"val-core/mean/srcc": 1.0, "val-core/a/srcc": 1.0, "val-aux/a/scored": 2.0, "val-aux/a/answers": 100.0},
            None,
        ),
        (
            {"val-core/mean/srcc": 0.9, "val-core/a/srcc": 0.9, "val-aux/a/scored": 50.0, "val-aux/a/answers": 100.0},
            0.9,
        ),
        # Every rollout of b failed, which says nothing about scores.
        ({"val-core/mean/srcc": 0.8, "val-core/a/srcc": 0.8, "val-aux/b/lost": 4.0, "val-aux/b/answers": 4.0}, None),
        ({"val-core/mean/srcc": 0.8, "val-core/a/srcc": 0.8, "val-aux/b/lost": 3.0, "val-aux/b/answers": 4.0}, 0.8),
        # A task with two numbers: their mean, if both have a correlation over enough answers.
        ({"val-core/mean/quality/srcc": 0.8, "val-core/mean/aesthetics/srcc": 0.6, **HEADS}, 0.7),
        ({"val-core/mean/quality/srcc": 0.8, **HEADS, "val-aux/a/contrast/scored": 9.0}, None),
        ({"val-core/mean/quality/srcc": 0.8, **HEADS, "val-aux/a/quality/scored": 4.0}, None),
        ({}, None),
    ],
)
def test_a_mean_over_fewer_data_sets_is_not_compared(metrics, mean):
    assert mean_of(metrics, "srcc") == (mean if mean is None else pytest.approx(mean))
    assert (why_not_compared(metrics, "srcc") is None) == (mean is not None)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"model": "best/global_step_7"}'])
def test_a_run_without_a_best_is_told_what_to_do(tmp_path, text):
    if text is not None:
        (tmp_path / "best_checkpoint.json").write_text(text)
    with pytest.raises(ValueError, match="Fix: "):
        best_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("saves", "tests", "keep", "told"),
    [(50, 50, "srcc", False), (25, 50, "srcc", False), (50, 25, "srcc", True), (50, 30, "srcc", True),
     (50, 25, "off", False), (-1, 25, "srcc", False), (50, -1, "srcc", False)],
)  # fmt: skip
def test_validated_steps_without_a_checkpoint_are_noted(saves, tests, keep, told):
    assert bool(unsaved_validations(saves, tests, keep)) == told


def test_a_full_disk_ends_no_training_and_deletes_no_best(tmp_path, monkeypatch):
    train(tmp_path, {10: 0.5})

    def full(*_args):
        raise OSError(28, "No space left on device")

    save(tmp_path, 20)
    monkeypatch.setattr(module, "replace_text", full)
    said = keep_best(tmp_path, 20, validated(0.9), "srcc")
    assert "cannot be written" in said and "No space left" in said
    assert step_of(best_checkpoint(tmp_path)) == 10
    monkeypatch.undo()
    save(tmp_path, 30)
    keep_best(tmp_path, 30, validated(0.95), "srcc")
    assert step_of(best_checkpoint(tmp_path)) == 30 and len(list((tmp_path / "best").iterdir())) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"step": "5"}', '{"value": "x"}', '{"validated": [1]}', "5", "\0"])
def test_a_record_that_is_none_counts_as_none(tmp_path, text):
    (tmp_path / "best_checkpoint.json").write_text(text)
    assert read_record(tmp_path) == {}
    train(tmp_path, {10: 0.5})
    assert step_of(best_checkpoint(tmp_path)) == 10

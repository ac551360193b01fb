"""The runner of pipelines: what is done is skipped, what changed runs again, and stages run side by side."""

import os
from pathlib import Path

import pytest
from pipeline_builders import diamond, python_stage, quiet, runs, writer

from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline import marks, runner
from omniq_verl.pipeline.process import StageFailed
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import PlanError, Stage
from omniq_verl.pipeline.tiny_stages import Settings, build_stages


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner looks after its stages every half second, tests have less time."""
    monkeypatch.setattr(runner, "_TICK", 0.02)
    monkeypatch.setattr(runner, "_COUNT_EVERY", 0.0)


def test_stages_that_are_done_are_skipped(tmp_path):
    seconds = run_stages(diamond(tmp_path), tmp_path, quiet())
    assert list(seconds) == ["run/a", "run/b", "run/c", "run/d"] and all(seconds.values())
    console = quiet()
    assert set(run_stages(diamond(tmp_path), tmp_path, console).values()) == {0.0}
    assert runs(tmp_path) == ["a", "b", "c", "d"] and console.file.getvalue().count("done before") == 4


def test_a_changed_stage_and_what_follows_from_it_run_again(tmp_path):
    run_stages(diamond(tmp_path), tmp_path, quiet())
    stages = diamond(tmp_path)
    stages[2] = writer(tmp_path, "run/c", "run/a", environment={"X": "1"})
    run_stages(stages, tmp_path, quiet())
    assert runs(tmp_path) == ["a", "b", "c", "d", "c", "d"]


def test_a_stage_that_is_run_again_does_not_find_what_its_old_command_left(tmp_path):
    # verl resumes from the last checkpoint it finds: a run with another seed would end before it began.
    checkpoint = tmp_path / "one" / "checkpoint"
    run_stages([python_stage("one", "import sys; open(sys.argv[1], 'w')", checkpoint)], tmp_path, quiet())
    code = "import os, sys; assert not os.path.exists(sys.argv[1])"
    run_stages([python_stage("one", code, checkpoint)], tmp_path, quiet())


def test_a_stage_that_did_not_finish_finds_what_it_had_left(tmp_path):
    code = "import os, sys; there = os.path.exists(sys.argv[1]); open(sys.argv[1], 'w'); assert there"
    stage = python_stage("one", code, tmp_path / "one" / "checkpoint")
    with pytest.raises(StageFailed):
        run_stages([stage], tmp_path, quiet())
    run_stages([stage], tmp_path, quiet())


def test_independent_stages_run_side_by_side_when_asked(tmp_path):
    # b and c each wait until the other has begun.
    code = (
        "import pathlib, sys, time; mine, other = map(pathlib.Path, sys.argv[1:]); mine.touch()\n"
        "end = time.time() + 20\n"
        "while not other.exists():\n    assert time.time() < end\n    time.sleep(0.01)"
    )
    files = tmp_path.parent / f"{tmp_path.name}_b", tmp_path.parent / f"{tmp_path.name}_c"
    stages = [python_stage("b", code, *files), python_stage("c", code, *files[::-1])]
    run_stages(stages, tmp_path, quiet(), jobs=2)


def test_side_by_side_a_stage_waits_for_what_it_needs(tmp_path):
    run_stages(diamond(tmp_path, 0.05), tmp_path, quiet(), jobs=8)
    assert runs(tmp_path)[0] == "a" and runs(tmp_path)[-1] == "d"


def test_side_by_side_and_one_by_one_give_the_same_result(tmp_path):
    for name, jobs in (("x", 1), ("y", 3)):
        run_stages(diamond(tmp_path / name), tmp_path / name, quiet(), jobs=jobs)
    results = [(tmp_path / name / "run" / "d" / "result").read_bytes() for name in ("x", "y")]
    assert results[0] == results[1]


def test_stages_share_the_gpus_of_the_machine(tmp_path):
    code = (
        "import os, sys, time; mine = os.environ['CUDA_VISIBLE_DEVICES'].split(',')\n"
        "for one in mine: os.mkdir(os.path.join(sys.argv[1], one))\n"  # fails where another stage has the GPU
        "time.sleep(0.2)\n"
        "for one in mine: os.rmdir(os.path.join(sys.argv[1], one))\n"
        "open(sys.argv[2], 'w').write(str(len(mine)))"
    )
    taken = tmp_path.parent / f"{tmp_path.name}_gpus"
    taken.mkdir()
    counts = {"a": 2, "b": 1, "c": 2, "d": 1}
    stages = [python_stage(name, code, taken, tmp_path / name / "n", gpus=n) for name, n in counts.items()]
    run_stages(stages, tmp_path, quiet(), jobs=4, gpus=("4", "GPU-5a1", "6"))
    assert {name: int((tmp_path / name / "n").read_text()) for name in counts} == counts


def test_a_stage_that_takes_more_gpus_than_there_are_is_rejected_before_anything_runs(tmp_path):
    stages = [writer(tmp_path, "run/a"), writer(tmp_path, "run/b", "run/a", gpus=4)]
    with pytest.raises(PlanError, match=r"run/b needs 4 GPUs, but 0 are here. Fix: "):
        run_stages(stages, tmp_path, quiet())
    assert runs(tmp_path) == []


def test_stages_without_what_they_need_end_with_an_error_instead_of_waiting(tmp_path):
    stages = diamond(tmp_path)
    need = {"run/a": (), "run/b": ("run/a",), "run/c": ("run/a",), "run/d": ("run/x",)}
    with pytest.raises(PlanError, match="run/d needs run/b, which is not among"):
        run_stages([stages[0], stages[3]], tmp_path, quiet(), need={**need, "run/d": ("run/b",)})


def test_a_failed_stage_names_its_log_and_shows_the_end_of_it(tmp_path):
    code = "print('\\n'.join(f'line {n}' for n in range(20000))); raise SystemExit(7)"
    with pytest.raises(StageFailed) as caught:
        run_stages([python_stage("one", code)], tmp_path, quiet())
    log = tmp_path / "logs" / "one.log"
    assert str(log) in str(caught.value) and "exit code 7" in str(caught.value)
    assert "line 19999" in str(caught.value) and "line 19900\n" not in str(caught.value)
    assert "line 100\n" in log.read_text()


def test_errors_of_a_stage_are_in_its_log(tmp_path):
    with pytest.raises(StageFailed, match="ZeroDivisionError"):
        run_stages([python_stage("one", "1 / 0")], tmp_path, quiet())


def test_a_failed_stage_is_tried_again_and_stages_after_it_wait(tmp_path):
    counter = tmp_path.parent / f"{tmp_path.name}_counter"
    code = "import sys; open(sys.argv[1], 'a').write('x\\n'); raise SystemExit(len(open(sys.argv[1]).readlines()) < 2)"
    stages = [python_stage("run/one", code, counter), writer(tmp_path, "run/two", after=("run/one",))]
    with pytest.raises(StageFailed):
        run_stages(stages, tmp_path, quiet())
    assert runs(tmp_path) == []
    run_stages(stages, tmp_path, quiet())
    assert counter.read_text() == "x\nx\n" and runs(tmp_path) == ["two"]


def test_a_failure_stops_what_runs_beside_it_and_a_restart_resumes_it(tmp_path):
    first = tmp_path / "run" / "slow" / "step0"
    code = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]):\n    time.sleep(0.05)\n1 / 0"
    stages = [writer(tmp_path, "run/slow", seconds=2.0), python_stage("run/bad", code, first.parent / "step0")]
    need = {"run/slow": (), "run/bad": ()}  # its path is no result: both may run at once
    with pytest.raises(StageFailed):
        run_stages(stages, tmp_path, quiet(), jobs=2, need=need)
    assert first.exists() and not (first.parent / "step2").exists()
    written = first.stat().st_mtime_ns
    run_stages(stages[:1], tmp_path, quiet())
    assert first.stat().st_mtime_ns == written and (first.parent / "result").exists()


def test_every_start_of_a_training_writes_metrics_of_its_own(tmp_path):
    write = (
        "import json, os; path = os.environ['VERL_FILE_LOGGER_PATH']; number = int(os.path.basename(path)[:3]);"
        "print(json.dumps({'step': number, 'data': {}}), file=open(path, 'w')); raise SystemExit(number < 3)"
    )
    stage = python_stage("one", write, steps=3)
    for _ in range(2):
        with pytest.raises(StageFailed):
            run_stages([stage], tmp_path, quiet())
    run_stages([stage], tmp_path, quiet())
    assert list(read_metrics(tmp_path / "one")) == [1, 2, 3]


def test_stages_without_gpus_run_on_the_cpu_platform_and_offline(tmp_path):
    wanted = {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1", "TQ_NUM_THREADS": "1"}
    code = f"import os; assert {wanted} == {{name: os.environ[name] for name in {list(wanted)}}}"
    run_stages([python_stage("one", code)], tmp_path, quiet())


@pytest.mark.parametrize("level", [None, "info"])
def test_logs_are_not_filled_with_warnings_of_transformers_unless_asked(tmp_path, monkeypatch, level):
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    if level:
        monkeypatch.setenv("TRANSFORMERS_VERBOSITY", level)
    code = "import os, sys; assert os.environ['TRANSFORMERS_VERBOSITY'] == sys.argv[1]"
    run_stages([python_stage("one", code, level or "error")], tmp_path, quiet())


def test_stages_on_gpus_get_no_cpu_platform(tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    code = "import os; assert 'VERL_PLATFORM' not in os.environ and os.environ['CUDA_VISIBLE_DEVICES'] == '0'"
    run_stages([python_stage("one", code, gpus=1)], tmp_path, quiet(), gpus=("0",))


def other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "code_digest", lambda: "other")


def test_other_code_stops_is_accepted_or_runs_again_as_asked(tmp_path, monkeypatch):
    run_stages(diamond(tmp_path), tmp_path, quiet())
    other_code(monkeypatch)
    with pytest.raises(PlanError, match=r"run/a in .* made with other code. Fix: .*--changed again .*--changed keep"):
        run_stages(diamond(tmp_path), tmp_path, quiet(), changed="stop")
    assert set(run_stages(diamond(tmp_path), tmp_path, quiet(), changed="keep").values()) == {0.0}
    run_stages(diamond(tmp_path), tmp_path, quiet(), changed="stop")
    assert runs(tmp_path) == ["a", "b", "c", "d"]
    monkeypatch.setattr(marks, "code_digest", lambda: "a third one")
    run_stages(diamond(tmp_path), tmp_path, quiet(), changed="again")
    assert runs(tmp_path) == ["a", "b", "c", "d"] * 2


@pytest.mark.parametrize("changed", ["stop", "keep"])
def test_nothing_that_other_settings_made_is_removed_without_asking(tmp_path, changed):
    run_stages(diamond(tmp_path), tmp_path, quiet())
    stages = [writer(tmp_path, "run/a", environment={"X": "1"}), *diamond(tmp_path)[1:]]
    with pytest.raises(PlanError, match=r"made with other settings\. Fix: name another folder, or add --changed again"):
        run_stages(stages, tmp_path, quiet(), changed=changed)
    assert (tmp_path / "run" / "a" / "result").exists() and runs(tmp_path) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"sft_steps": 10}, {"crops": {"sft": 64}}], ids=str)
def test_what_a_setting_of_the_quickstart_changes_is_run_again_with_all_that_follows(tmp_path, change):
    folders = {"repo": tmp_path / "repo", "root": tmp_path / "run"}
    before, after = (build_stages(Settings(**folders, **settings)) for settings in ({}, change))
    first = next(index for index, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1])
    counter = tmp_path / "counter"

    def stand_ins(stages: list[Stage]) -> list[Stage]:
        """The same stages with the same arguments, which only note that they ran."""
        note = f"import sys; print(sys.argv[1], file=open({os.fspath(counter)!r}, 'a'))"
        return [python_stage(one.name, note, one.name, *one.command, after=one.after) for one in stages]

    run_stages(stand_ins(before), tmp_path / "run", quiet())
    run_stages(stand_ins(after), tmp_path / "run", quiet())
    names = [stage.name for stage in before]
    assert counter.read_text().split() == [*names, *names[first:]]


def test_logs_of_all_starts_stay(tmp_path):
    for change in ("1", "2"):
        run_stages([python_stage("one", f"print('start', {change})")], tmp_path, quiet())
    assert "start 1" in Path(tmp_path / "logs" / "one.log").read_text()


def test_what_another_command_left_behind_a_link_is_not_resumed(tmp_path):
    root, disk = tmp_path / "run", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    (root / "a").symlink_to(disk)  # an empty folder on another disk may be given
    run_stages(
        [python_stage("a", "import pathlib, sys; pathlib.Path(sys.argv[1], 'checkpoint').touch()", root / "a")],
        root,
        quiet(),
    )
    other = [python_stage("a", "import pathlib, sys; pathlib.Path(sys.argv[1], 'more').touch()", root / "a")]
    with pytest.raises(PlanError, match=r"is a link, and .* is not empty. Fix"):
        run_stages(other, root, quiet(), changed="again")
    (disk / "checkpoint").unlink()
    run_stages(other, root, quiet(), changed="again")
    assert [path.name for path in disk.iterdir()] == ["more"]


@pytest.mark.parametrize("changed", ["stop", "keep", "again"])
def test_files_that_no_stage_has_made_are_never_removed(tmp_path, changed):
    (tmp_path / "run" / "d").mkdir(parents=True)
    (tmp_path / "run" / "d" / "photograph.jpg").touch()
    with pytest.raises(PlanError, match=r"run/d was not made by this command\. Fix: name another --out"):
        run_stages(diamond(tmp_path), tmp_path, quiet(), changed=changed)
    assert (tmp_path / "run" / "d" / "photograph.jpg").exists() and runs(tmp_path) == []
    (tmp_path / "run" / "d" / "photograph.jpg").unlink()  # an empty folder holds nothing that could be lost
    run_stages(diamond(tmp_path), tmp_path, quiet(), changed=changed)
    assert runs(tmp_path) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_link_that_no_stage_has_made_is_named(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photograph.jpg").touch()
    place = tmp_path / "root" / "a"
    place.parent.mkdir()
    place.touch() if kind == "file" else place.symlink_to(tmp_path / "mine")
    with pytest.raises(PlanError, match="was not made by this command"):
        run_stages([python_stage("a", "pass")], tmp_path / "root", quiet())
    assert place.exists() and (tmp_path / "mine" / "photograph.jpg").exists()


def test_an_old_folder_that_cannot_be_removed_is_not_resumed(tmp_path, monkeypatch):
    run_stages([writer(tmp_path, "run/a")], tmp_path, quiet())

    def rejected(*_args: object, **_settings: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.unlink", rejected)
    with pytest.raises(OSError, match="Read-only"):
        run_stages([python_stage("run/a", "pass")], tmp_path, quiet())
    assert (tmp_path / "run" / "a" / "result").exists()

"""What the doctor says of a run's checkpoints is what verl's own code does with them."""

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
from doctor_builders import checkpoint, composed
from omegaconf import DictConfig
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.checkpoint.checkpoint_handler import CheckpointHandler, OrchestrationMode

from omniq_verl.doctor.resume import GRPO, SFT, Resume, check_resume

BELOW = {"grpo": "actor", "sft": ""}
TRACKER = "latest_checkpointed_iteration.txt"
ROWS = 40  # five steps of eight rows, two epochs


def tracked(text: str | bytes, *steps: int) -> Callable[[Path, str], None]:
    """A folder with whole checkpoints of these steps, and a tracker file of this text."""

    def make(run: Path, trainer: str) -> None:
        for step in steps:
            checkpoint(run, step, below=BELOW[trainer])
        (run / TRACKER).write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def untracked(*steps: int) -> Callable[[Path, str], None]:
    def make(run: Path, trainer: str) -> None:
        tracked("", *steps)(run, trainer)
        (run / TRACKER).unlink()

    return make


def tracker_is_a_folder(run: Path, trainer: str) -> None:
    untracked(3)(run, trainer)
    (run / TRACKER).mkdir()


STATES: dict[str, Callable[[Path, str], None]] = {
    "no folder": lambda run, trainer: run.rmdir(),
    "empty folder": lambda run, trainer: None,
    "tracker and folder": tracked("3", 3),
    "line ends around the number": tracked("\n3 \r\n", 3),
    "a sign": tracked("+3", 3),
    "zeros before it": tracked("003", 3),
    "older folders, too": tracked("3", 1, 2, 3),
    "a newer folder that is not in the tracker": tracked("3", 3, 4),
    "only an older folder": tracked("3", 2),
    "only a newer folder": tracked("3", 4),
    "tracker alone": tracked("3"),
    "folders alone": untracked(2, 3),
    "empty tracker": tracked("", 3),
    "blank tracker": tracked(" \n", 3),
    "garbage": tracked("three", 3),
    "bytes": tracked(b"\xff\xfe3", 3),
    "a fraction": tracked("3.0", 3),
    "two numbers": tracked("2\n3", 3),
    "a name": tracked("global_step_3", 3),
    "below zero": tracked("-3", 3),
    "step 0": tracked("0", 0),
    "the tracker is a folder": tracker_is_a_folder,
    "the last step": tracked("10", 10),
    "beyond the last step": tracked("11", 11),
    "the last but one": tracked("9", 9),
}

SETTINGS: dict[str, dict[str, str | None]] = {
    "auto": {},
    "disable": {"resume_mode": "disable"},
    "path": {"resume_mode": "resume_path", "resume_from_path": "{run}/global_step_3"},
    "relative path": {"resume_mode": "resume_path", "resume_from_path": "run/global_step_3"},
    "path with a slash": {"resume_mode": "resume_path", "resume_from_path": "{run}/global_step_3/"},
    "path of another step": {"resume_mode": "resume_path", "resume_from_path": "{run}/global_step_2"},
    "path without a step": {"resume_mode": "resume_path", "resume_from_path": "{run}"},
    "path without a number": {"resume_mode": "resume_path", "resume_from_path": "{run}/global_step_x"},
    "path of nothing": {"resume_mode": "resume_path", "resume_from_path": "{run}/global_step_77"},
    "no path": {"resume_mode": "resume_path", "resume_from_path": None},
    "unknown mode": {"resume_mode": "sometimes"},
}


class Loaded(Exception):
    """verl has begun to load a checkpoint."""


class Engine:
    def load_checkpoint(self, local_path: str, **_: object) -> None:
        raise Loaded(local_path)


def verl_does(config: DictConfig, trainer: str) -> str:
    """Return "anew", "stops", or the step that verl's own code continues after."""
    settings = config.trainer
    try:
        with redirect_stdout(io.StringIO()):
            if trainer == "grpo":
                one = SimpleNamespace(config=config, actor_rollout_wg=Engine())
                PPOTrainer._load_checkpoint(one)
            else:
                names = ("default_local_dir", "resume_mode", "resume_from_path")
                given = {name: settings[name] for name in names}
                one = CheckpointHandler(Engine(), None, mode=OrchestrationMode.RAY, **given)
                one.load_checkpoint()
    except Loaded as loaded:
        folder = Path(str(loaded))
        step = one.global_steps if trainer == "grpo" else one.resume_global_step
        # What follows in verl reads this file, and the loop ends at the last step.
        if not (folder / "model_world_size_1_rank_0.pt").is_file():
            return "stops"
        return str(step) if step < 10 else "nothing left"
    except Exception:
        return "stops"
    return "anew"


def doctor_says(found: Resume) -> str:
    text = " ".join([*map(str, found.problems), *found.notes])
    if found.problems:
        return "stops"
    if "will end without training" in text:
        return "nothing left"
    if match := re.search(r"will resume after step (-?\d+)", text):
        assert int(match[1]) == found.step
        return match[1]
    assert not text or "will start from the beginning at step 0" in text
    return "anew"


def configured(trainer: str, run: Path, **settings: str | None) -> DictConfig:
    config = composed(f"quickstart/{trainer}")
    config.trainer.default_local_dir = str(run)
    config.trainer.total_epochs, config.trainer.total_training_steps = 2, None
    config.data.train_batch_size = 8
    for name, value in settings.items():
        config.trainer[name] = value.format(run=run) if value else value
    return config


@pytest.mark.parametrize("trainer", ["grpo", "sft"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("state", STATES)
def test_the_doctor_says_what_verl_does(tmp_path, monkeypatch, state, setting, trainer):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    STATES[state](run, trainer)
    config = configured(trainer, run, **SETTINGS[setting])
    found = check_resume(config, {"grpo": GRPO, "sft": SFT}[trainer], ROWS)
    assert doctor_says(found) == verl_does(config, trainer), [*map(str, found.problems), *found.notes]
    assert all("Traceback" not in str(problem) and "\n" not in str(problem) for problem in found.problems)


@pytest.mark.parametrize("trainer", ["grpo", "sft"])
@pytest.mark.parametrize("part", ["model", "optim", "extra_state"])
@pytest.mark.parametrize("fault", ["missing", "cut", "empty"])
def test_a_checkpoint_that_is_not_whole_is_a_problem(tmp_path, trainer, part, fault):
    folder = checkpoint(tmp_path, 3, below=BELOW[trainer])
    file = folder / f"{part}_world_size_1_rank_0.pt"
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:40] if fault == "cut" else b"")
    (problem,) = check_resume(configured(trainer, tmp_path), {"grpo": GRPO, "sft": SFT}[trainer], ROWS).problems
    assert file.name in problem.what and ("is missing" if fault == "missing" else "is incomplete") in problem.what


def test_parts_that_are_not_loaded_need_not_be_there(tmp_path):
    folder = checkpoint(tmp_path, 3)
    (folder / "optim_world_size_1_rank_0.pt").unlink()
    config = configured("grpo", tmp_path)
    config.actor_rollout_ref.actor.checkpoint.load_contents = ["model", "extra"]
    assert check_resume(config, GRPO, ROWS).step == 3


@pytest.mark.parametrize(("mode", "path"), [("auto", "/x/global_step_3"), ("disable", "/x/global_step_3")])
def test_a_path_that_verl_would_not_read_is_a_problem(tmp_path, mode, path):
    (problem,) = check_resume(configured("grpo", tmp_path, resume_mode=mode, resume_from_path=path), GRPO).problems
    assert problem.where == f"trainer.resume_from_path={path}" and "does not read it" in problem.what


@pytest.mark.parametrize(
    ("trainer", "step", "total", "rows", "said"),
    [
        ("grpo", 9, None, ROWS, "resume after step 9"),
        ("grpo", 10, None, ROWS, "will end without training"),
        ("grpo", 7, 7, ROWS, "will end without training"),
        ("grpo", 6, 7, ROWS, "resume after step 6"),
        ("grpo", 10, 99, ROWS, "will end without training"),
        ("grpo", 7, 7, None, "will end without training"),
        ("grpo", 70, None, None, "resume after step 70"),
        ("sft", 9, None, ROWS, "resume after step 9"),
        ("sft", 10, None, ROWS, "will end without training"),
        ("sft", 7, 7, ROWS, "train one more step"),
        ("sft", 9, 7, ROWS, "train one more step"),
        ("sft", 10, 7, ROWS, "will end without training"),
    ],
)
def test_a_checkpoint_of_the_last_step_or_a_later_one(tmp_path, trainer, step, total, rows, said):
    checkpoint(tmp_path, step, below=BELOW[trainer])
    config = configured(trainer, tmp_path)
    config.trainer.total_training_steps = total
    found = check_resume(config, {"grpo": GRPO, "sft": SFT}[trainer], rows)
    assert found.problems == [] and said in found.notes[0], found

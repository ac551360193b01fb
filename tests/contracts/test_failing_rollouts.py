"""What the trainer does about failed rollouts: it numbers draws, saves failures, and stops where the reward failed."""

import json

import pytest
from omegaconf import OmegaConf
from tensordict import NonTensorData, TensorDict
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

import omniq_verl.trainer.trainer_verl as module
from omniq_verl.live.failures_verl import FILE_NAME, Failure, RewardFailed
from omniq_verl.trainer.trainer_verl import OmniqTrainerSync

LOST = Failure("koniq/1", "koniq", "ValueError: too long")
BROKEN = Failure("koniq/2", "koniq", "ValueError: returns -0.2", reward=True)


@pytest.fixture
def trainer(tmp_path, monkeypatch) -> OmniqTrainerSync:
    """A trainer without Ray, whose queue has the failures in ``waiting``."""
    made = OmniqTrainerSync.__new__(OmniqTrainerSync)
    made.config = OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path), "save_freq": -1}})
    made.train_dataset, made.global_steps, made.waiting = None, 3, []
    monkeypatch.setattr(module, "collect_failures", lambda: made.waiting)
    return made


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]


@pytest.mark.parametrize("name", ["step", "_validate"])
def test_failures_are_saved_even_if_nothing_is_left_to_train_or_to_validate(trainer, tmp_path, monkeypatch, name):
    def fails(self, *_args):
        raise RuntimeError("every rollout failed")

    monkeypatch.setattr(PPOTrainerSync, name, fails)
    trainer.waiting = [LOST, LOST]
    with pytest.raises(RuntimeError, match="every rollout failed"):
        getattr(trainer, name)(*[{}, {}] if name == "step" else [])
    assert [(line["step"], line["row"], line["reward"]) for line in lines(tmp_path)] == [(3, "koniq/1", False)] * 2


@pytest.mark.parametrize("name", ["step", "_validate"])
def test_a_reward_that_failed_stops_the_run_and_names_its_row(trainer, tmp_path, monkeypatch, name):
    monkeypatch.setattr(PPOTrainerSync, name, lambda self, *_args: {})
    trainer.waiting = [LOST, BROKEN]
    with pytest.raises(RewardFailed, match=r"for 1 answers, first for one to koniq/2 of koniq: .*-0\.2.*Fix: "):
        getattr(trainer, name)(*[{}, {}] if name == "step" else [])
    assert [line["row"] for line in lines(tmp_path)] == ["koniq/1", "koniq/2"]


def test_rollouts_that_failed_by_themselves_are_counted_by_row(trainer, monkeypatch):
    monkeypatch.setattr(PPOTrainerSync, "step", lambda self, *_args: "batch")
    trainer.waiting = [LOST, LOST]
    metrics: dict = {}
    assert trainer.step(metrics, {}) == "batch" and metrics["data/rows_failed"] == 1


def test_the_draws_of_a_step_are_numbered(trainer, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        PPOTrainerSync, "_submit_batch_to_rollout", lambda self, batch: drawn.append(batch["omniq_draw"])
    )
    for step in (3, 3, 3, 4, 4, 5):
        trainer.global_steps = step
        trainer._submit_batch_to_rollout(TensorDict({}, batch_size=[2]))
    assert drawn == [0, 1, 2, 0, 1, 0]


def test_the_rollouts_of_the_live_check_are_no_draws(trainer, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        PPOTrainerSync, "_submit_batch_to_rollout", lambda self, batch: drawn.append(batch["omniq_draw"])
    )
    for numbered in ({}, {"omniq_draw": NonTensorData(0)}, {"omniq_draw": NonTensorData(0)}, {}):
        trainer._submit_batch_to_rollout(TensorDict(numbered, batch_size=[2]))
    assert drawn == [0, 0, 0, 1]

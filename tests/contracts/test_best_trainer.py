"""The trainer keeps the best weights after each validation, and parts them from a step that is saved anew."""

from checkpoint_builders import save, step_of
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from omniq_verl.trainer.best_checkpoint import best_checkpoint
from omniq_verl.trainer.trainer_verl import OmniqTrainerSync


def trainer_at(run, step: int, **v1: str) -> OmniqTrainerSync:
    trainer = OmniqTrainerSync.__new__(OmniqTrainerSync)  # without Ray
    trainer._save_failures = lambda: 0  # asks Ray's queue
    trainer.config = OmegaConf.create({"trainer": {"default_local_dir": str(run), "save_freq": 10, "v1": v1}})
    trainer.global_steps = step
    return trainer


def test_a_validation_keeps_the_best_and_a_new_save_leaves_it_alone(tmp_path, monkeypatch, capsys):
    values = iter([0.7, 0.5])
    monkeypatch.setattr(PPOTrainerSync, "_validate", lambda self: {"val-core/mean/srcc": next(values)})
    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", lambda self: save(tmp_path, self.global_steps))
    for step in (10, 20):
        trainer = trainer_at(tmp_path, step, keep_best="srcc")
        trainer._save_checkpoint()
        assert trainer._validate()["val-aux/rows_failed"] == 0
    assert step_of(best_checkpoint(tmp_path)) == 10
    assert "step 10 validates best (srcc 0.7000)" in capsys.readouterr().out
    source = tmp_path / "global_step_10/actor/huggingface/model.safetensors"
    assert source.stat().st_nlink == 2
    trainer_at(tmp_path, 10, keep_best="srcc")._save_checkpoint()
    assert source.stat().st_nlink == 1 and step_of(best_checkpoint(tmp_path)) == 10


def test_nothing_is_kept_where_it_is_off(tmp_path, monkeypatch):
    monkeypatch.setattr(PPOTrainerSync, "_validate", lambda self: {"val-core/mean/srcc": 0.7})
    save(tmp_path, 10)
    trainer_at(tmp_path, 10, keep_best="off")._validate()
    trainer_at(tmp_path, 10)._validate()
    assert not (tmp_path / "best_checkpoint.json").exists()

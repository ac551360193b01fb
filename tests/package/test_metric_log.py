"""Where a run's metrics go."""

from pathlib import Path

import pytest

from omniq_verl.metric_log import log_into

NAMES = ("VERL_FILE_LOGGER_PATH", "TENSORBOARD_DIR")


@pytest.fixture
def environment(monkeypatch):
    """Without these names, and without them again at the end."""
    import os

    for name in NAMES:
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    return lambda: {name: os.environ.get(name) for name in NAMES}


def test_each_start_has_a_file_of_its_own_below_the_runs_folder(tmp_path, environment, monkeypatch):
    log_into(tmp_path, ["console", "file"])
    first = Path(environment()["VERL_FILE_LOGGER_PATH"])
    assert first == tmp_path / "metrics" / "001.jsonl" and environment()["TENSORBOARD_DIR"] is None
    first.write_text("{}")
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH")
    log_into(tmp_path, ["file", "tensorboard"])
    assert environment() == {NAMES[0]: str(tmp_path / "metrics" / "002.jsonl"), NAMES[1]: str(tmp_path / "tensorboard")}


def test_a_root_of_the_users_own_stays(tmp_path, environment, monkeypatch):
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", "mine")
    log_into(tmp_path, ["file"])
    assert environment()[NAMES[0]] is None and not (tmp_path / "metrics").exists()


def test_a_place_of_the_users_own_stays(tmp_path, environment, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "mine")
    log_into(tmp_path, ["file", "tensorboard"])
    assert set(environment().values()) == {"mine"} and not (tmp_path / "metrics").exists()


def test_loggers_that_write_no_files_change_nothing(tmp_path, environment):
    log_into(tmp_path, ["console", "wandb"])
    assert set(environment().values()) == {None}

"""What the doctor says of a folder that holds no model."""

from omniq_verl.doctor.model_checks import inspect_model


def test_a_folder_without_config_is_no_model(tmp_path):
    (problem,) = inspect_model(str(tmp_path)).problems
    assert "no config.json" in str(problem) and problem.fix == "name the folder that holds config.json"


def test_for_the_folder_of_a_run_its_checkpoints_are_named(tmp_path):
    (tmp_path / "best/global_step_5").mkdir(parents=True)
    (tmp_path / "best/global_step_5/config.json").write_text("{}")
    (problem,) = inspect_model(str(tmp_path)).problems
    assert problem.fix == f"name a checkpoint, such as {tmp_path}/best/global_step_5"

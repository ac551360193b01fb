"""The stages of the tiny experiments, without running them: names, settings, and what each reads of the others."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from doctor_builders import composed
from generation_builders import write_rows
from omegaconf import OmegaConf

from omniq_verl.cli import app
from omniq_verl.data.row_refs import limited_rows
from omniq_verl.evaluation.answers import judge_answers, per_image, read_labels
from omniq_verl.evaluation.metrics import all_metrics
from omniq_verl.evaluation.papers import load_table
from omniq_verl.generation.request import Answer, as_record
from omniq_verl.packaged import HOME
from omniq_verl.pipeline import rali
from omniq_verl.pipeline.experiment import Experiment, seed_folder
from omniq_verl.pipeline.experiments import TINY, build
from omniq_verl.pipeline.stage import Stage, needs
from omniq_verl.pipeline.tiny_baselines import one_score
from omniq_verl.pipeline.tiny_stages import Settings, build_stages

ROOT = Path("/somewhere/run")


@pytest.fixture(params=list(TINY))
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return build(request.param, "tiny", ROOT, [0, 3], None, None)


def value(stage: Stage, key: str) -> str:
    (found,) = [word.partition("=")[2] for word in stage.command if word.startswith(f"{key}=")]
    return found


def test_every_stage_reads_what_earlier_stages_of_its_seed_write(experiment):
    for name, read in needs(experiment.stages, ROOT).items():
        seed = name.partition("/")[0]
        assert all(one.startswith(f"{seed}/") or one == "data" for one in read), name
    assert len(experiment.stages) > 10


def test_every_seed_has_the_same_stages_with_its_own_seed(experiment):
    groups = [
        [stage for stage in experiment.stages if stage.name.startswith(f"seed{seed}/")] for seed in experiment.seeds
    ]
    names = [[stage.name.partition("/")[2] for stage in group] for group in groups]
    assert names[0] == names[1]
    for seed, group in zip(experiment.seeds, groups, strict=True):
        drawn = [stage for stage in group if stage.name.endswith("/data")]
        trained = [stage for stage in group if "verl.trainer.main_ppo" in stage.command]
        assert all(stage.command[stage.command.index("--seed") + 1] == str(seed) for stage in drawn)
        assert all(value(stage, "data.seed") == str(seed) for stage in trained)
        assert (drawn and trained) or experiment.name == "rali"


def test_a_training_that_starts_from_a_checkpoint_names_the_step_its_run_ends_with(experiment):
    steps = {stage.name: stage.steps for stage in experiment.stages}
    seen = 0
    for stage in experiment.stages:
        for word in stage.command:
            ref = Path(word.partition("=")[2] or word)
            if not ref.is_relative_to(ROOT):
                continue
            parts = ref.relative_to(ROOT).parts
            numbers = [index for index, part in enumerate(parts) if part.startswith("global_step_")]
            for index in numbers:
                seen += 1
                assert steps["/".join(parts[:index])] == int(parts[index].removeprefix("global_step_")), stage.name
    assert seen > 3 or experiment.name == "rali"


def test_every_row_of_every_table_is_measured_by_a_stage_and_stands_beside_a_row_of_the_paper(experiment):
    names = [stage.name for stage in experiment.stages]
    for table in experiment.tables:
        rows = {(row.group, row.method) for row in load_table(table.paper).rows} if table.paper else set()
        assert table.name
        for row in table.rows:
            folder = f"{seed_folder(0)}/{row.folder}"
            assert folder in names or str(Path(folder).parent) in names, row.folder
            assert row.paper is None or row.paper in rows, row.paper
    assert not {table.paper for table in experiment.tables} & set(experiment.not_run)


def test_modules_that_stages_start_exist(experiment):
    modules = {stage.command[2] for stage in experiment.stages if stage.command[1] == "-m"}
    scripts = {stage.command[1] for stage in experiment.stages if stage.command[1] != "-m"}
    for name in modules - {"verl.trainer.main_ppo", "verl.trainer.sft_trainer"}:
        assert importlib.util.find_spec(name) is not None, name
    assert scripts <= {str(HOME / "data_prep" / f"{name}.py") for name in ("photo_distortions", "answers")}


@pytest.mark.slow  # reads fifteen recipes
def test_training_stages_set_keys_that_their_recipes_have(experiment):
    training = [stage for stage in experiment.stages if "--config-name" in stage.command]
    for stage in training:
        ref = stage.command.index("--config-name")
        keys = [word.partition("=")[0] for word in stage.command[ref + 2 :]]
        assert [key for key in keys if "." not in key] in ([], ["omniquality_r"], ["q_insight"], ["ract"])
        recipe = composed(stage.command[ref + 1])
        for key in (key for key in keys if "." in key):
            assert key.rpartition(".")[2] in OmegaConf.select(recipe, key.rpartition(".")[0]), (stage.name, key)
    assert len(training) >= 3 or experiment.name == "rali"


def test_the_quickstart_is_a_part_of_the_pipeline():
    quick = build_stages(Settings(HOME, ROOT / "seed0" / "table4"))
    stages = {stage.name: stage.command for stage in build("omniquality_r", "tiny", ROOT, [0], None, None).stages}
    for stage in quick[:3]:
        assert stages[f"seed0/table4/{stage.name}"] == stage.command


def test_one_score_of_an_image_is_read_from_the_quickstarts_measurement(tmp_path):
    greedy = {"srcc": 0.6, "plcc": None, "mae": 0.8, "parsed": 0.9}
    (tmp_path / "metrics.json").write_text(json.dumps({"greedy": greedy, "sampled": {}}))
    wanted = {"SRCC": 0.6, "PLCC": math.nan, "MAE": 0.8, "with a score": 0.9}
    assert one_score(tmp_path) == pytest.approx(wanted, nan_ok=True)


def test_one_score_of_an_image_is_read_from_an_evaluation(tmp_path):
    refs = limited_rows([write_rows(tmp_path / "test.parquet", [1.0, 2.0, 3.0, 4.0])])
    labels, texts = read_labels(refs), [*(f"<answer>{one}</answer>" for one in (1.5, 2, 4)), "nothing"]
    judged = judge_answers(labels, [as_record(ref.key, [Answer(text)]) for ref, text in zip(refs, texts, strict=True)])
    metrics = all_metrics(per_image(labels, judged), judged, resamples=10)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    # Scores 1.5, 2 and 4 of labels 1, 2 and 3; the fourth image has none.
    wanted = {"SRCC": 1.0, "PLCC": math.sqrt(75 / 84), "MAE": 0.5, "with a score": 0.75}
    assert one_score(tmp_path) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing", "tiny", [0], None, None), "no experiment 'nothing'. Fix: use one of omniquality_r"),
        (("ract", "huge", [0], None, None), "no scale 'huge'. Fix: use --scale tiny"),
        (("ract", "tiny", [], None, None), "Fix: name one or more whole numbers"),
        (("ract", "tiny", [1, 1], None, None), "each once"),
        (("ract", "tiny", [0], Path("x"), None), "--data and --model have no effect with --scale tiny"),
    ],
)
def test_what_cannot_be_built_is_rejected(words, said):
    name, scale, *rest = words
    with pytest.raises(ValueError, match=said):
        build(name, scale, ROOT, *rest)


@pytest.mark.parametrize("name", ["a b", "a,b", "a=b", "a[b]", "a'b", "größe", "$a"])
def test_a_folder_whose_name_hydra_would_misread_is_rejected(name):
    with pytest.raises(ValueError, match=r"training settings\. Fix: give another --out"):
        build("ract", "tiny", ROOT / name, [0], None, None)


def test_the_commands_of_every_experiment_can_be_parsed(experiment):
    for stage in experiment.stages:
        if stage.command[2] != "omniq_verl.cli":
            continue
        group, words = typer.main.get_command(app), stage.command[3:]
        while hasattr(group, "commands"):
            group, words = group.commands[words[0]], words[1:]
        assert group.make_context("omniq", list(words)).params


def test_the_commands_of_the_tiny_clip_can_be_parsed():
    from omniq_verl.pipeline.made.tiny_clip import parser

    found = [
        parser().parse_args(stage.command[3:]) for stage in rali.seed_stages(ROOT, 4) if "tiny_clip" in stage.command[2]
    ]
    assert [one.seed for one in found] == [4, 4] and found[0].epochs == rali.PRETRAIN_EPOCHS


def test_a_case_is_read_by_its_number(tmp_path):
    cases = {number: {"plcc": int(number) / 10, "srcc": 0.5, "low": -1.0, "high": 6.0} for number in rali.CASES}
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "cases.json").write_text(json.dumps(cases))
    figures = rali.read_case(tmp_path / "cases" / "3")
    assert figures == {"PLCC": 0.3, "SRCC": 0.5, "lowest basis": -1.0, "highest basis": 6.0}


def test_building_an_experiment_needs_no_framework():
    code = (
        "import sys; from pathlib import Path; from omniq_verl.pipeline.experiments import build\n"
        "build('omniquality_r', 'tiny', Path('x'), [0], None, None)\n"
        "assert not {'torch', 'vllm', 'transformers', 'ray', 'verl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

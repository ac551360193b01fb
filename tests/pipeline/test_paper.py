"""The experiments at real size, without running them: every stage composes, and the doctor accepts the trainings."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from doctor_builders import png, record, tiny_model, written

from data_prep import answers
from omniq_verl.cli import app
from omniq_verl.cot.run import CotConfig
from omniq_verl.doctor.checks import check_config
from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.free_space import FreeSpace
from omniq_verl.evaluation.papers import load_table
from omniq_verl.generation.config import read_config
from omniq_verl.packaged import RECIPES, SCRIPTS
from omniq_verl.pipeline.cost import estimate
from omniq_verl.pipeline.data_sets import BY_NAME
from omniq_verl.pipeline.experiment import Experiment
from omniq_verl.pipeline.experiments import build
from omniq_verl.pipeline.marks import differences, marks_of
from omniq_verl.pipeline.paper.experiments import PAPERS
from omniq_verl.pipeline.paper.shared_stages import IMAGE_SIZE
from omniq_verl.pipeline.stage import SILENCE, PlanError, Stage, needs
from omniq_verl.preparation.mix import PRESETS

REPO = Path(__file__).parents[2]
ROOT = Path("/somewhere/run")
WANTED = {
    "omniquality_r": {f"omniquality_r:{number}" for number in range(1, 9)},
    "q_insight": {f"q_insight:{number}" for number in range(2, 6)},
    "ract": {f"rali:{number}" for number in ("3", "5", "A.2", "A.3")},
    "rali": {f"rali:{number}" for number in ("2", "4", "A.5", "A.6")},
}
"""The tables that each experiment is about."""


@pytest.fixture(params=list(PAPERS))
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return build(request.param, "paper", ROOT, [0, 1], None, None)


@pytest.mark.parametrize("scale", ["tiny", "paper"])
@pytest.mark.parametrize("name", list(PAPERS))
def test_every_table_is_measured_or_named_as_not_run(name, scale):
    found = build(name, scale, ROOT, [0], None, None)
    assert {table.paper for table in found.tables} | found.not_run.keys() == WANTED[name]


def test_every_stage_reads_what_earlier_stages_write(experiment):
    assert len(needs(experiment.stages, ROOT)) == len(experiment.stages) > 20


def test_every_row_is_measured_by_a_stage_and_stands_beside_a_row_of_the_paper(experiment):
    names = {stage.name for stage in experiment.stages}
    for table in experiment.tables:
        rows = {(row.group, row.method) for row in load_table(table.paper).rows}
        assert all(f"seed1/{row.folder}" in names for row in table.rows)
        assert all(row.paper is None or row.paper in rows for row in table.rows)


def test_every_data_set_of_a_table_is_evaluated_for_it(experiment):
    stages = {stage.name: stage for stage in experiment.stages}
    for table in experiment.tables:
        sources = {column.data_source for column in load_table(table.paper).columns} - {None}
        for row in table.rows:
            command = stages[f"seed0/{row.folder}"].command
            missing = {one for one in sources if str(ROOT / "data" / one / "test.parquet") not in command}
            assert not missing, (table.paper, row.title)


def test_commands_of_omniq_can_be_parsed(experiment):
    for stage in experiment.stages:
        if "omniq_verl.cli" not in stage.command:
            continue
        words = stage.command[stage.command.index("omniq_verl.cli") + 1 :]
        group = typer.main.get_command(app)
        while hasattr(group, "commands"):
            group, words = group.commands[words[0]], words[1:]
        assert group.make_context("omniq", list(words)).params


@pytest.mark.parametrize("name", list(PAPERS))
def test_scripts_take_the_options_of_their_stages(name):
    for one, more in PAPERS[name].OPTIONS.items():
        options = (*IMAGE_SIZE.get(one, ()), *more)
        spec = importlib.util.spec_from_file_location(f"prepare_{one}", SCRIPTS / f"{one}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        from omniq_verl.preparation import cli

        (dataset,) = [value for value in vars(module).values() if isinstance(value, cli.DataSet)]
        parsed = cli._parser(dataset, "").parse_args(["--root", ".", "--out", "x", "--shard-rows", "100000", *options])
        assert parsed.shard_rows == 100_000


def test_the_training_mixture_is_that_of_the_paper():
    stages = {stage.name: stage for stage in build("omniquality_r", "paper", ROOT, [0], None, None).stages}
    taken = [f"{name}={rows}" for name, rows in PRESETS["omniquality_r"].items()]
    ref = stages["seed0/mix"].command.index("--take")
    assert stages["seed0/mix"].command[ref + 1 : ref + 4] == taken


def omniquality_r() -> dict[str, Stage]:
    return {stage.name: stage for stage in build("omniquality_r", "paper", ROOT, [0], None, None).stages}


def test_the_cold_start_has_the_settings_of_the_example():
    command = omniquality_r()["seed0/cot"].command
    example = read_config(CotConfig, REPO / "examples" / "omniquality_r" / "cot.yaml", [])
    ours = read_config(CotConfig, None, command[command.index("run") + 1 :])
    files = [str(ROOT / file) for file in example.data]
    same = replace(ours, data=sorted(ours.data), out=example.out, run_options=example.run_options)
    assert same == replace(example, data=sorted(files))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_all_jointly_trained_baselines_are_rows_of_ours(number):
    found = build("omniquality_r", "paper", ROOT, [0], None, None)
    (table,) = [table for table in found.tables if table.paper == f"omniquality_r:{number}"]
    group = next(row.group for row in load_table(table.paper).rows if "OmniQuality-R" in row.method)
    wanted = {row.method for row in load_table(table.paper).rows if row.group == group}
    assert {row.paper[1] for row in table.rows if row.paper} == wanted and len(wanted) == 5
    assert {row.paper[1].lower().replace("-", ""): row.folder for row in table.rows if row.paper} == {
        "qalign": "q_align_test",
        "deqa": "deqa_test",
        "qwensft": "qwen_sft_test",
        "qinsight": "q_insight_test",
        "omniqualityr (ours)": "stage2_test",
    }


@pytest.mark.parametrize(("name", "kind"), [("qwen_sft", "score"), ("q_align", "level"), ("deqa", "soft")])
def test_a_baseline_learns_and_is_measured_by_the_same_kind_of_answer(name, kind):
    stages = omniquality_r()
    rows, asked = stages[f"seed0/{name}_rows"].command, stages[f"seed0/{name}_test"].command
    assert answers.parser().parse_args(rows[2:]).kind == kind
    assert f"data.train_files={ROOT}/seed0/{name}_rows/sft.parquet" in stages[f"seed0/{name}"].command
    assert recipe(stages[f"seed0/{name}"])[0] == f"baselines/{name}"
    assert (asked[-4:] == ["--family", "levels", "--mode", "direct"]) == (kind != "score")


def test_stages_validate_on_the_splits_of_all_three_sets():
    for name in ("stage1", "stage2", "q_insight"):
        (word,) = [word for word in omniquality_r()[f"seed0/{name}"].command if word.startswith("data.val_files=")]
        assert {f"{ROOT}/data/{one}/val.parquet" in word for one in ("ava", "evalmuse", "koniq")} == {True}
        assert "test.parquet" not in word


def test_stages_start_from_and_measure_the_chosen_checkpoint():
    stages, model = omniquality_r(), f"{ROOT}/seed0/stage1_model/huggingface"
    assert f"actor_rollout_ref.model.path={model}" in stages["seed0/stage2"].command
    assert model in stages["seed0/stage1_test"].command
    assert "omniq_verl.pipeline.checkpoint" in stages["seed0/stage1_model"].command


def test_stages_that_train_or_ask_a_model_name_its_base(experiment):
    for stage in experiment.stages:
        clip = "rali" in stage.command and "pairs" not in stage.command
        assert bool(stage.work.model) == bool(stage.gpus and not clip), stage.name


def test_no_stage_that_reads_images_counts_as_hung_after_minutes(experiment):
    assert not [stage.name for stage in experiment.stages if stage.work.images and stage.silence <= SILENCE]


def test_launchers_of_two_stages_on_one_machine_share_no_port(experiment):
    launched = [stage.command for stage in experiment.stages if "torch.distributed.run" in stage.command]
    assert launched or experiment.name == "q_insight"
    for command in launched:
        options = command[command.index("torch.distributed.run") + 1 : command.index("omniq_verl.pipeline.worker")]
        assert "--standalone" in options


def test_photographs_of_spaq_are_prepared_at_a_size_that_fits_everywhere(experiment):
    for stage in experiment.stages:
        assert ("--short-side" in stage.command) == (stage.name == "data/spaq")
        assert "--max-model-len" not in stage.command


def with_data(root: Path, *names: str) -> Path:
    """Empty label files of data sets."""
    for name in names:
        for group in BY_NAME[name].labels:
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / group[0]).touch()
    return root


def test_sets_that_are_only_tested_on_may_be_missing_and_are_named(tmp_path):
    data = with_data(tmp_path / "data", "koniq", "ava", "evalmuse", "spaq")
    found = build("omniquality_r", "paper", tmp_path / "run", [0], data, None)
    stages = {stage.name: stage for stage in found.stages}
    assert [name for name in stages if name.startswith("data/")] == [
        "data/koniq",
        "data/ava",
        "data/evalmuse",
        "data/spaq",
    ]
    assert stages["data/ava"].reads == (data.resolve() / "ava",)
    tested = [Path(word).parent.name for word in stages["seed0/stage2_test"].command if word.endswith("test.parquet")]
    assert tested == ["koniq", "ava", "evalmuse", "spaq"]
    assert "pipal" in found.not_run["data"] and "spaq" not in found.not_run["data"]
    assert "spaq (11,125 of 11,125 images)" in found.not_run["data in part"]


@pytest.mark.parametrize("name", list(PAPERS))
def test_other_weights_in_the_folder_of_the_base_model_are_noticed(tmp_path, name):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_text("1")
    stages = build(name, "paper", tmp_path / "run", [0], None, str(model)).stages
    need = needs(stages, tmp_path / "run")
    before = marks_of(stages, need)
    (model / "model.safetensors").write_text("22")
    changed = {one for one, mark in marks_of(stages, need).items() if differences(before[one], mark) == ["data"]}
    named = {stage.name for stage in stages if str(model) in " ".join(stage.command)}
    assert named and named <= changed
    assert not any(one.startswith("data/") for one in changed)


def test_a_run_may_not_write_over_the_data_sets_it_reads(tmp_path):
    data = with_data(tmp_path / "data", "koniq")
    stages = build("rali", "paper", tmp_path, [0], data, None).stages
    with pytest.raises(PlanError, match=r"stage data/koniq would write into .*/data/koniq, .* Fix: name another --out"):
        needs(stages, tmp_path)


def test_a_set_that_is_trained_on_has_to_be_there(tmp_path):
    data = with_data(tmp_path, "koniq", "evalmuse")
    with pytest.raises(ValueError, match=r"ava not found, needed for training. Fix: download them \(omniq data status"):
        build("omniquality_r", "paper", tmp_path / "run", [0], data, None)


def recipe(stage: Stage) -> tuple[str, list[str]]:
    ref = stage.command.index("--config-name")
    return stage.command[ref + 1], stage.command[ref + 2 :]


def trainings(name: str, root: Path) -> list[Stage]:
    """One training of every recipe of an experiment, and of every stage that an ablation is applied to."""
    found = {}
    for stage in build(name, "paper", root, [0], None, None).stages:
        if "--config-name" in stage.command:
            one, overrides = recipe(stage)
            found.setdefault((one, *(word for word in overrides if word.startswith("omniquality_r="))), stage)
    return list(found.values())


@pytest.mark.parametrize("name", list(PAPERS))
def test_every_training_composes_and_has_a_cost(name):
    composed = {}

    def compose(recipe_name, overrides):
        composed[recipe_name] = compose_recipe(recipe_name, overrides, RECIPES)
        return composed[recipe_name]

    for stage in trainings(name, ROOT):
        cost = estimate(stage, compose)
        assert cost.hours > 0.5 and cost.gpus == 4 and cost.source
        if config := composed.get(recipe(stage)[0]):
            rows = stage.work.images // config.trainer.total_epochs
            assert stage.steps == rows // config.data.train_batch_size * config.trainer.total_epochs
        assert recipe(stage)[0] in composed or "verl.trainer.sft_trainer" in stage.command


SFT = {"messages": [{"role": "user", "content": "<image>Rate it."}, {"role": "assistant", "content": "A soft image."}]}
PLENTY = FreeSpace(memory=1e15, shared_memory=1e15, disk=1e15, gpus=(80 * 2**30,) * 4)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """A model and rows of the right form."""
    folder = tmp_path_factory.mktemp("healthy")
    tiny_model(folder / "model")
    image = png()
    written(folder, [record(number, image) for number in range(256)], "grpo.parquet")
    rows = [{**SFT, "images": [{"bytes": image}], "extra_info": {"id": f"made/{n}"}} for n in range(256)]
    written(folder, rows, "sft.parquet")
    return folder


def stand_in(stage: Stage, healthy: Path) -> list[str]:
    """The overrides of a training; files and models that earlier stages would leave are replaced by stand-ins."""
    kind = "sft" if "verl.trainer.sft_trainer" in stage.command else "grpo"
    overrides = []
    for word in recipe(stage)[1]:
        key, _, value = word.partition("=")
        if key.endswith("_files"):
            count = value.count(".parquet")
            assert count and value.count(str(ROOT)) == count
            value = f"{healthy / kind}.parquet"
        elif key.endswith("model.path"):
            value = str(healthy / "model")
        elif key == "trainer.default_local_dir":
            value = str(healthy / "run")
        overrides.append(f"{key}={value}")
    return overrides


@pytest.mark.slow  # composes twenty recipes
@pytest.mark.parametrize("name", list(PAPERS))
def test_the_doctor_accepts_every_training(name, healthy):
    for stage in trainings(name, ROOT):
        overrides = stand_in(stage, healthy)
        report = check_config(compose_recipe(recipe(stage)[0], overrides, RECIPES), PLENTY, overrides)
        assert not report.problems, (stage.name, [str(problem) for problem in report.problems])
        assert not any("it does nothing" in note for note in report.notes), stage.name

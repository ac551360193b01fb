"""The reference pages name every setting with its default, every metric, every task, command and paper table."""

import math
import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest
import typer
import yaml
from docs_builders import REPO, bare, code_words, tables
from evaluation_builders import write_distorted, write_scored
from omegaconf import OmegaConf
from rich.console import Console

from omniq_verl.cli import app
from omniq_verl.cot.run import CotConfig
from omniq_verl.data.rows import schema
from omniq_verl.evaluation.papers import list_tables
from omniq_verl.evaluation.run import EvalConfig, evaluate
from omniq_verl.filters.settings import FilterSettings
from omniq_verl.generation.runner import RunOptions
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.live.findings import MODES
from omniq_verl.losses.settings import GateSettings
from omniq_verl.ract.align import AlignConfig
from omniq_verl.rewards import RewardSettings, Status, compute_score
from omniq_verl.tasks import TASKS
from omniq_verl.trainer.validation import ANSWER_KEYS, validation_metrics

SETTINGS, METRICS = Path("docs/reference/settings.md"), Path("docs/reference/metrics.md")
PAPERS, CONCEPTS, SCORE = Path("docs/papers.md"), Path("docs/concepts.md"), Path("docs/guides/score.md")
RATER = "evaluation_builders:Rater"
SFT, COT, RACT, GRPO = "SFT", "omniq cot", "omniq ract align", "GRPO"
PARTS = {SFT: SFT, COT: COT, RACT: RACT, "Hardware": "", "Environment variables": ""}


def documented(part: str) -> dict[str, object]:
    """Keys and defaults of a part of the page of settings."""
    found: dict[str, object] = {}
    for table in tables(SETTINGS):
        if PARTS.get(table.heading, GRPO) == part and table.header[1] == "default":
            for row in table.rows:
                key = table.below + bare(row[0])
                assert key not in found, f"{key} is there twice"
                found[key] = yaml.safe_load(bare(row[1]))
                assert row[2], f"{key} has no meaning"
    return found


def flat(node: object, prefix: str = "") -> dict[str, object]:
    if not (isinstance(node, dict) and node):
        return {prefix.removesuffix("."): node}
    return {k: v for name, value in node.items() for k, v in flat(value, f"{prefix}{name}.").items()}


@pytest.mark.parametrize(("part", "name"), [(GRPO, "grpo"), (SFT, "sft")])
def test_every_setting_of_a_base_recipe_is_documented_with_its_default(part, name):
    recipe = flat(OmegaConf.to_container(OmegaConf.load(REPO / f"recipes/base/{name}.yaml"), resolve=False))
    del recipe["defaults"]
    assert documented(part) == recipe


def settings_of(kind: type) -> dict[str, object]:
    """Keys and defaults of a dataclass of settings, and of those within it."""
    found: dict[str, object] = {}
    for field in fields(kind):
        value = field.default if field.default is not MISSING else field.default_factory()
        inner = {f"{field.name}.{f.name}": getattr(value, f.name) for f in fields(value)} if is_dataclass(value) else {}
        found |= inner or {field.name: value}
    return found


def test_every_setting_of_cot_and_ract_is_documented_with_its_default():
    assert documented(COT) == settings_of(CotConfig)
    ract, others = settings_of(AlignConfig), settings_of(CotConfig)
    shared = {key: value for key, value in ract.items() if key.startswith(("engine.", "run_options."))}
    assert shared.items() <= others.items(), "the page says that these are the same"
    assert documented(RACT) == {key: value for key, value in ract.items() if key not in shared}


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        (RewardSettings, "reward.custom_reward_function.reward_kwargs."),
        (FilterSettings, "trainer.v1.sampler.sampler_kwargs."),
        (GateSettings, "actor_rollout_ref.actor.policy_loss.gate_"),
    ],
)
def test_the_defaults_of_recipes_are_those_of_the_code(kind, prefix):
    page = {key.removeprefix(prefix): value for key, value in documented(GRPO).items() if key.startswith(prefix)}
    page.pop("sources", None)
    assert page == settings_of(kind)


def test_the_values_of_the_live_check_and_all_environment_variables_are_named():
    (row,) = [row for table in tables(SETTINGS) for row in table.rows if "live_check" in row[0]]
    assert set(MODES) == set(re.findall(r'`"?(\w+)"?`', f"{row[1]} {row[2]}"))
    source = "".join(path.read_text() for path in (REPO / "omniq_verl").rglob("*.py"))
    assert set(re.findall(r"OMNIQ_[A-Z_]+", source)) <= set(code_words(SETTINGS))


# Metrics


def names(heading: str) -> set[str]:
    """What the first columns of the tables below a heading name."""
    rows = [row for table in tables(METRICS) if table.heading == heading for row in table.rows]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_metric_that_training_writes_is_documented_and_no_other():
    source = "".join(path.read_text() for path in (REPO / "omniq_verl").rglob("*_verl.py"))
    written = set(re.findall(r'"((?:filter|gate|data|val-aux|batch_reward|drift)/[\w/]+)"', source))
    written |= set(re.findall(r'"((?:filter)/\w+)" if', source))
    page = {name.removeprefix("actor/") if "gate" in name else name for name in names("Training") | names("Validation")}
    patterned = {name for name in page if "<" in name}
    assert page - patterned - written == set()
    assert written - page - {"filter/dropped_at_"} == set()
    assert {"parse/<source>/<status>", "filter/dropped_at_<low>_to_<high>"} <= patterned
    assert 'f"parse/{row.data_source}/{status}"' in source and 'f"filter/dropped_at_{fifth' in source


def test_every_metric_of_validation_is_documented_and_no_other():
    rows = [
        ("koniq", compute(4.0, 3.5)),
        ("koniq", compute(2.0, 2.5)),
        ("koniq", compute(1.0, 1.5)),
        ("koniq", compute(None, 3.0)),
        ("dq", degradation("noise")),
        ("pairs", choice("Image A")),
    ]
    answers = {key: [one[key] for _, one in rows] for key in ANSWER_KEYS}
    found = validation_metrics([source for source, _ in rows], answers, [str(number) for number in range(len(rows))])
    shown = {re.sub(r"/(koniq|dq|pairs|mean)/", "/<source>/", key) for key in found}
    shown = {re.sub(r"rejected/\w+", "rejected/<status>", key) for key in shown}
    assert shown == names("Validation") - {"val-aux/rows_failed"}


def compute(score: float | None, label: float) -> dict[str, float]:
    text = "no answer" if score is None else f"<think>x</think><answer>{score}</answer>"
    return compute_score("koniq", text, f'{{"score": {label}}}', {"task": "technical"})


def degradation(name: str) -> dict[str, float]:
    truth = '{"distortion_class": "noise", "severity": "slight"}'
    text = f'<think>x</think><answer>{{"distortion_class": "{name}", "severity": "slight"}}</answer>'
    return compute_score("dq", text, truth, {"task": "degradation"})


def choice(name: str) -> dict[str, float]:
    text = f"<think>x</think><answer>{name}</answer>"
    return compute_score("pairs", text, '{"choice": "first"}', {"task": "q_insight_comparison"})


def test_every_result_of_the_reward_function_is_documented_and_no_other():
    for found in (compute(4.0, 3.5), compute(None, 3.0), degradation("blur"), choice("Image B")):
        assert set(found) == names("The reward function")
    assert math.isnan(compute(4.0, 3.5)["choice_right"])


def test_every_status_is_documented_and_no_other():
    assert names("Statuses") == {status.value for status in Status}
    scored = {name for row in table_of(SCORE, "What has no score").rows for name in re.findall(r"`(\w+)`", row[0])}
    assert scored == {status.value for status in Status} | {"bad_image", "no_class", "error"}


def table_of(page: Path, heading: str):
    (found,) = [table for table in tables(page) if table.heading == heading]
    return found


def test_every_figure_of_an_evaluation_is_documented_and_no_other(tmp_path):
    write_scored(tmp_path / "scored.parquet", [10, 100, 200, 250], [1.0, 2.0, 3.0, 4.0])
    write_distorted(tmp_path / "worn.parquet", [10, 100, 200])
    data, engine = [tmp_path / "scored.parquet", tmp_path / "worn.parquet"], EngineSpec("", RATER)
    config = EvalConfig(data, tmp_path / "out", engine, run_options=RunOptions(on="here"), by=["dark"], resamples=20)
    found = evaluate(config, Console(quiet=True))
    assert set(found) == names("omniq eval")
    assert {key for figures in found["sets"].values() for key in figures} == names("Figures of a set")
    assert set(found["sets"]["made"]["srcc"]) == names("Parts of a figure")


def test_the_columns_of_a_row_are_documented_and_no_other():
    rows = {bare(row[0]): row[1] for row in table_of(Path("docs/guides/data.md"), "Columns of a row").rows}
    assert list(rows) == schema(embedded=True).names
    info = schema(embedded=True).field("extra_info").type
    assert re.findall(r"`(\w+)`", rows["extra_info"]) == [field.name for field in info]


# Other pages


def test_every_finding_of_the_live_check_is_described():
    source = (REPO / "omniq_verl/live/conclusions.py").read_text()
    written = set(re.findall(r'[fF]inding\(\s*"([\w -]+)"', source))
    described = {bare(row[0]) for row in table_of(Path("docs/guides/preflight.md"), "With live engines").rows}
    assert len(written) > 5 and described - {"... is what the rollout engine sees"} == written


def test_every_task_is_described_and_no_other():
    assert {bare(row[0]) for row in table_of(CONCEPTS, "Task").rows} == set(TASKS)


def test_every_table_of_the_papers_is_in_the_index():
    named = {name for table in tables(PAPERS) for row in table.rows for name in re.findall(r"`(\w+:[\w.]+)`", row[0])}
    assert named == set(list_tables())


def test_every_recipe_of_the_index_is_there():
    for word in code_words(PAPERS):
        if re.match(r"(omniquality_r|q_insight|ract)/[\w/]+$", word):
            assert (REPO / f"recipes/{word}.yaml").is_file(), word


def test_every_command_has_a_guide():
    guides = "".join(path.read_text() for path in (REPO / "docs/guides").glob("*.md"))
    todo = [("omniq", typer.main.get_command(app))]
    while todo:
        name, group = todo.pop()
        if hasattr(group, "commands"):
            todo += [(f"{name} {part}", one) for part, one in group.commands.items()]
        else:
            assert name in guides, name


def test_every_script_of_data_preparation_is_listed():
    (table,) = [table for table in tables(Path("docs/guides/data.md")) if table.header[0] == "script"]
    assert {bare(row[0]) for row in table.rows} == {path.name for path in (REPO / "data_prep").glob("*.py")}


def test_every_recipe_is_listed():
    text = (REPO / "docs/reference/recipes.md").read_text()
    for path in (REPO / "recipes").rglob("*.yaml"):
        name = path.relative_to(REPO / "recipes").with_suffix("").as_posix()
        folder, _, file = name.rpartition("/")
        if folder in ("base", "hardware"):
            continue
        known = file in text or f"_{file.rsplit('_', 1)[-1]}" in text or re.search(rf"{folder}/(\w+)_\*", text)
        assert known, name

"""The findings on tiny models: data without reasoning, and a figure of each finding by its place in the JSON."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row, sft_record
from omniq_verl.evaluation.answers import read_answer
from omniq_verl.packaged import HOME
from omniq_verl.pipeline import findings
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
from omniq_verl.pipeline.experiments import build
from omniq_verl.pipeline.finding_readers import FIGURES, answered, read_figure
from omniq_verl.pipeline.made.without_reasoning import direct_record, prepare
from omniq_verl.pipeline.tables import write_tables
from omniq_verl.pipeline.tiny_stages import Settings
from omniq_verl.tasks import task_of

ANSWER = "<think>slight blur, good quality</think><answer>3.7</answer>"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two rows a file, as ``data_prep/photo_distortions.py`` writes them."""
    for split in ("train", "val", "test"):
        rows = [Row("photos", f"photos/{split}/{n}", "technical", split, score=2.0 + n, details={"photo": "coins"})
                for n in range(2)]  # fmt: skip
        write_parquet((row.record(n, png()) for n, row in enumerate(rows)), tmp_path / f"{split}.parquet")
    rows = [Row("photos", f"photos/sft/{n}", "technical", "sft", score=3.0) for n in range(2)]
    write_parquet((sft_record(row, png(), ANSWER) for row in rows), tmp_path / "sft.parquet")
    return tmp_path


def test_the_files_without_reasoning_have_the_same_rows_labels_and_numbers(photographs, tmp_path):
    prepare(photographs, tmp_path / "direct")
    for split in ("train", "val", "test"):
        before = pq.read_table(photographs / f"{split}.parquet").to_pylist()
        after = pq.read_table(tmp_path / "direct" / f"{split}.parquet").to_pylist()
        for one, other in zip(before, after, strict=True):
            assert not task_of(other["extra_info"]).reasoning and "think" not in other["prompt"][0]["content"]
            same = ("data_source", "images", "reward_model")
            assert all(one[key] == other[key] for key in same)
            assert {**one["extra_info"], "task": "technical_direct"} == other["extra_info"]
    for row in pq.read_table(tmp_path / "direct" / "sft.parquet").to_pylist():
        assert row["messages"][-1]["content"] == "<answer>3.7</answer>"
        task = task_of(other["extra_info"])
        assert read_answer(row["messages"][-1]["content"], "", task)["score"] == 3.7
        assert "think" not in row["messages"][0]["content"]


def test_an_answer_without_reasoning_has_none_to_remove():
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<answer>3.7</answer>"}]
    with pytest.raises(ValueError, match=r"row a: its answer has no </think>\. Fix"):
        direct_record({"messages": turns, "extra_info": {"id": "a"}})


def test_both_trainings_have_the_same_recipes_and_steps():
    own = Settings(HOME, Path("/somewhere"), 3, findings.SFT_STEPS, findings.GRPO_STEPS)
    stages = {stage.name: stage for stage in findings.stages(own)}
    for name in ("sft", "grpo"):
        reason, direct = stages[name], stages[f"direct_{name}"]
        assert reason.steps == direct.steps
        differing = {
            one.partition("=")[0] for one, other in zip(reason.command, direct.command, strict=True) if one != other
        }
        assert differing <= {
            *("model.path", "actor_rollout_ref.model.path", "trainer.default_local_dir"),
            *("data.train_files", "data.val_files"),
        }


PATHS = {
    "the model itself": {"srcc": {"value": 0.6}},
    "own text alone": {"srcc": {"value": 0.5}},
    "image and another image's text": {"srcc": {"value": 0.1}, "srcc_with_text": 0.9},
    "ridge on the text's words": {"srcc": {"value": None}},
    "ridge on the image's tokens": {"srcc": {"value": 0.7}},
}
SPACE = {"probe": {"value": 0.5, "chance": 0.2}}
MODEL = {
    "attention": {"reasoning_of_reasoning_and_image": {"value": 0.4}, "share": {"prompt": {"value": 0.7}}},
    "text_only": {"paths": [{"name": name, **path} for name, path in PATHS.items()]},
    "domain_gap": dict.fromkeys(("visual", "visual_late", "reasoning"), SPACE),
    "self_consistency": {
        "greedy": {"srcc": {"value": 0.6}},
        "sampled": [{"srcc": {"value": 0.1}}, {"srcc": {"value": 0.5}, "gain": {"value": -0.1}}],
    },
    "gate": {
        "entropy_passed": 0.8,
        "entropy_and_gradient": {"output_layer": {"value": 0.9}, "all_weights": {"value": 1}},
    },
}
ROW = {"reason": {"srcc": {"value": 0.6}}, "direct": {"srcc": {"value": 0.2}}}
COSTS = {f"{name}, {mode} reasoning": {"outside": 0.25} for name in "ab" for mode in ("with", "without")}
NUMBERS = {
    **{name: {"models": {"a": model, "b": model}} for name, model in MODEL.items()},
    "swap": {"pairs": [{"srcc": {"difference": -0.05}}]},
    "no_reasoning": {"rows": [ROW, ROW], "costs": COSTS},
    "reward_hacking": {"change": {"reward": {"value": 0.3}, "srcc": {"value": 0.2}}},
}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Folder of a seed whose findings are all there."""
    for place in FIGURES:
        folder = place.split("/")[0]
        name = folder.removesuffix("_direct")
        (tmp_path / "seed0" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "seed0" / folder / f"{name}.json").write_text(json.dumps(NUMBERS[name]))
    return tmp_path


@pytest.mark.parametrize(
    ("place", "before", "after"),
    [
        ("attention/reasoning", 0.4, 0.4),
        ("text_only/follows", 0.9, 0.9),
        ("text_only/words", math.nan, math.nan),
        ("domain_gap/reasoning", 0.3, 0.3),
        ("self_consistency/mean", 0.5, 0.5),
        ("self_consistency/gain", -0.1, -0.1),
        ("gate/all", 1.0, 1.0),
        ("swap/difference", math.nan, -0.05),
        ("no_reasoning/outside", 0.25, 0.25),
        ("no_reasoning_direct/direct", 0.2, 0.2),
        ("reward_hacking/reward", math.nan, 0.3),
    ],
)
def test_a_figure_is_read_by_its_place(finished, place, before, after):
    found = read_figure(finished / "seed0" / place)
    assert list(found) == ["after SFT", "after GRPO"]
    assert list(found.values()) == pytest.approx([before, after], nan_ok=True)


def test_every_figure_can_be_read_and_stands_in_a_table_without_a_paper(finished):
    table = OurTable(None, tuple(OurRow(title, place) for place, (title, _) in FIGURES.items()), read_figure, title="x")
    write_tables(Experiment("findings", "tiny", (0,), [], (table,)), finished)
    text = (finished / "tables.md").read_text()
    assert "## x\n" in text and "not there yet" not in text and "the paper" not in text
    assert "| swap: SRCC under the tower before GRPO, minus its own | - | -0.050 |" in text
    rows = json.loads((finished / "tables.json").read_text())["tables"]["x"]["rows"]
    assert len(rows) == len(FIGURES) and rows["swap: SRCC under the tower before GRPO, minus its own"] == {
        "after SFT": [None], "after GRPO": [-0.05]
    }  # fmt: skip


def test_figures_of_the_held_out_answers(tmp_path):
    found = {"images": 4, "scored": 3, "plcc": {"value": None}, "srcc": {"value": 0.6}, "mae": 0.8}
    (tmp_path / "metrics.json").write_text(json.dumps({"sets": {"photo_distortions": found}}))
    figures = answered(tmp_path)
    assert math.isnan(figures.pop("PLCC")) and figures == {"SRCC": 0.6, "MAE": 0.8, "parsable": 0.75}


def test_the_table_of_the_paper_has_both_models_with_and_without_reasoning():
    (first, second) = build("findings", "tiny", Path("/somewhere"), [0], None, None).tables
    assert [row.folder for row in first.rows] == ["sft_test", "direct_sft_test", "grpo_test", "direct_grpo_test"]
    assert second.paper is None and len(second.rows) == len(FIGURES)

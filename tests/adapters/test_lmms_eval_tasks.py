"""Tasks for lmms-eval: the functions by themselves, and with the package itself where it is installed."""

import io
import json
import math
from importlib.util import find_spec

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from evaluation_builders import write_distorted, write_scored
from PIL import Image

from omniq_verl.adapters.lmms_eval_tasks import (
    doc_to_messages,
    doc_to_target,
    doc_to_text,
    doc_to_visual,
    parsed,
    plcc,
    process_results,
    srcc,
    write_tasks,
)

VALUES, LABELS = (20, 90, 150, 220), (1.2, 2.5, 3.0, 4.9)


@pytest.fixture
def prepared(tmp_path):
    (tmp_path / "koniq").mkdir()
    return write_scored(tmp_path / "koniq" / "test.parquet", VALUES, LABELS)


def rows_of(path):
    return pq.read_table(path).to_pylist()


def test_a_row_becomes_its_image_its_question_and_its_label(prepared):
    row = rows_of(prepared)[1]
    (image,) = doc_to_visual(row)
    stored = np.asarray(Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB"))
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), stored)
    assert "<image>" + doc_to_text(row) == row["prompt"][-1]["content"]
    assert float(doc_to_target(row)) == pytest.approx(json.loads(row["reward_model"]["ground_truth"])["score"])


def test_messages_keep_the_system_turn_and_the_position_of_the_image(prepared):
    row = rows_of(prepared)[0]
    row["prompt"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>Rate it."}]
    system, user = doc_to_messages(row)
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert [part["type"] for part in user["content"]] == ["image", "text"]
    assert doc_to_text(row) == "Be brief.\n\nRate it."


def test_the_coefficients_are_those_of_the_parsed_answers(prepared):
    answers = ["<think>a</think><answer>1.5</answer>", "no idea", "<answer>2.5</answer>", "<answer>4.75</answer>"]
    rows = rows_of(prepared)
    pairs = [process_results(row, [answer])["plcc"] for row, answer in zip(rows, answers, strict=True)]
    assert [pair["prediction"] for pair in pairs] == [1.5, None, 2.5, 4.75]
    labels = np.array([pairs[index]["label"] for index in (0, 2, 3)])
    centred = labels - labels.mean(), np.array([1.5, 2.5, 4.75]) - 8.75 / 3
    expected = (centred[0] * centred[1]).sum() / math.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    assert plcc(pairs) == pytest.approx(expected, abs=1e-12)
    assert srcc(pairs) == pytest.approx(1.0)
    assert parsed(pairs) == 0.75
    assert math.isnan(plcc(pairs[:2])) and math.isnan(parsed([]))
    assert "score" not in pairs[0]  # lmms-eval computes a standard error of what stands there, and stops at None


@pytest.mark.parametrize("answer", ["<answer>9</answer>", "", None, ["<answer>3</answer>"]])
def test_an_answer_outside_of_the_scale_or_of_another_type_has_no_score(prepared, answer):
    assert process_results(rows_of(prepared)[0], [answer])["srcc"]["prediction"] is None


def test_the_files_name_the_data_and_the_functions(prepared, tmp_path):
    (name,) = write_tasks([prepared], tmp_path / "tasks", max_tokens=64)
    text = (tmp_path / "tasks" / f"{name}.yaml").read_text()
    config = yaml.safe_load(text.replace("!function ", ""))
    assert name == config["task"] == "omniq_koniq_test"
    assert config["dataset_kwargs"] == {"data_files": {"test": str(prepared)}}
    assert config["generation_kwargs"]["max_new_tokens"] == 64
    module = {}
    exec((tmp_path / "tasks" / "utils.py").read_text(), module)
    named = [word for key, word in config.items() if key.startswith(("doc_to", "process"))]
    named += [metric["aggregation"] for metric in config["metric_list"]]
    assert len(named) == 8 and all(callable(module[one.removeprefix("utils.")]) for one in named)


@pytest.mark.parametrize("folder", ["set [1]", "x*y", "what?", "d\u00e9 #1"])
def test_a_path_that_looks_like_a_pattern_finds_its_own_file_alone(prepared, tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / "xzy").mkdir()
    for name in (folder, "xzy"):
        (tmp_path / name / "test.parquet").write_bytes(prepared.read_bytes())
    (name,) = write_tasks([tmp_path / folder / "test.parquet"], tmp_path / "tasks")
    text = (tmp_path / "tasks" / f"{name}.yaml").read_text().replace("!function ", "")
    files = yaml.safe_load(text)["dataset_kwargs"]["data_files"]
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert found["test"].num_rows == len(rows_of(prepared))


def test_a_path_that_is_taken_for_a_chain_of_addresses_is_named(prepared, tmp_path):
    (tmp_path / "a::b").mkdir()
    file = tmp_path / "a::b" / "test.parquet"
    file.write_bytes(prepared.read_bytes())
    with pytest.raises(ValueError, match=r"a::b.* takes :: for a chain of addresses\. Fix: rename"):
        write_tasks([file], tmp_path / "tasks")


def test_what_is_no_benchmark_of_scores_is_rejected(prepared, tmp_path):
    (tmp_path / "other" / "koniq").mkdir(parents=True)
    twin = tmp_path / "other" / "koniq" / "test.parquet"
    twin.write_bytes(prepared.read_bytes())
    with pytest.raises(ValueError, match=r"give the same task omniq_koniq_test\. Fix"):
        write_tasks([prepared, twin], tmp_path / "tasks")
    with pytest.raises(ValueError, match=r"gives no single score of one image\. Fix"):
        write_tasks([write_distorted(tmp_path / "worn.parquet", VALUES)], tmp_path / "tasks")
    second = rows_of(write_scored(tmp_path / "b.parquet", VALUES, LABELS, source="second"))
    for row in second:
        row["extra_info"]["id"] += "b"
    both = pa.Table.from_pylist(rows_of(prepared) + second, schema=pq.read_schema(prepared))
    pq.write_table(both, tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"several data sets or tasks: made, second\. Fix"):
        write_tasks([tmp_path / "c.parquet"], tmp_path / "tasks")
    assert not (tmp_path / "tasks").exists()


@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed")
def test_lmms_eval_loads_asks_and_measures_the_task(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    from lmms_eval.evaluator_utils import TaskOutput
    from lmms_eval.tasks import TaskManager, get_task_dict

    (name,) = write_tasks([prepared], tmp_path / "tasks")
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    task = get_task_dict([name], manager)[name]
    docs, rows = list(task.test_docs()), rows_of(prepared)
    assert [task.doc_to_text(doc) for doc in docs] == [doc_to_text(row) for row in rows]
    assert all(task.doc_to_visual(doc)[0].size == (16, 16) for doc in docs)
    output = TaskOutput.from_taskdict(name, task)
    answers = [f"<answer>{score}</answer>" for score in (1.5, 2.0, 3.0)] + ["no idea"]
    for doc, answer in zip(task.test_docs_no_media(), answers, strict=True):
        for metric, value in task.process_results(doc, [answer]).items():
            output.sample_metrics[metric, "none"].append(value)
    output.calculate_aggregate_metric(bootstrap_iters=0)
    output.calculate_clt_aggregate_metric()
    labels = [json.loads(row["reward_model"]["ground_truth"])["score"] for row in rows[:3]]
    assert output.agg_metrics["plcc,none"] == pytest.approx(np.corrcoef(labels, [1.5, 2, 3])[0, 1], abs=1e-9)
    assert output.agg_metrics["srcc,none"] == pytest.approx(1.0) and output.agg_metrics["parsed,none"] == 0.75
    assert output.agg_metrics["plcc_stderr_clt,none"] == "N/A"

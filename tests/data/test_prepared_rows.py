"""What can be wrong with a prepared file or a row: every command finds it by name before a model is asked."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_builders import RATER, grey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.data.prepared import BadRow, row_info
from omniq_verl.data.row_refs import SameRow, list_rows

MODEL = "evaluation_builders:never"
"""An engine that is not there: a command that gets as far as asking it has looked too late."""


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    """A row of a training split; ``extra_info__id=...`` changes a key of a column, DROP takes it out."""
    info = {"index": number, "id": f"x/{number}", "split": "train", "task": "technical", "score": 3.0,
            "scale_low": 1.0, "scale_high": 5.0, "raw_score": 3.0, "text": None, "details": "{}"}  # fmt: skip
    found: dict[str, Any] = {
        "data_source": "x",
        "prompt": [{"role": "user", "content": "<image>Rate it."}],
        "images": [{"bytes": grey(40 * number)}],
        "ability": "technical",
        "reward_model": {"style": "rule", "ground_truth": json.dumps({"score": 3.0})},
        "extra_info": info,
    }
    for name, value in changed.items():
        column, _, key = name.partition("__")
        within = found[column] if key else found
        within.pop(key or column)
        if value is not DROP:
            within[key or column] = value
    return found


DROP = object()


def write(path: Path, *rows: dict[str, Any], schema: pa.Schema | None = None) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


VERLS_OWN = row(extra_info={"split": "train", "index": 0})
FAULTS = {
    "verl's own row": (VERLS_OWN, "row 0: extra_info.id is None"),
    "no task": (row(extra_info__task=DROP), "row 0: extra_info.task is None"),
    "an unknown task": (row(extra_info__task="beauty"), "row 0: extra_info.task is 'beauty'"),
    "an empty id": (row(extra_info__id=""), "row 0: extra_info.id is ''"),
    "a fraction for an id": (row(extra_info__id=1.5), "row 0: extra_info.id is 1.5"),
    "no source": (row(data_source=None), "row 0: data_source is None"),
    "a number for a source": (row(data_source=7), "row 0: data_source is 7"),
    "half a scale": (row(extra_info__scale_high=None), "row 0: extra_info.scale_low is 1.0 and scale_high is None"),
    "a scale of text": (row(extra_info__scale_low="1"), "row 0: extra_info.scale_low is '1'"),
    "a scale turned round": (row(extra_info__scale_low=9.0), "row 0: extra_info.scale_low is 9"),
    "a number for a split": (row(extra_info__split=1), "row 0: extra_info.split is 1"),
    "text for a score": (row(extra_info__score="good"), "row 0: extra_info.score is 'good'"),
    "text for extra_info": (row(extra_info="{}"), "column extra_info is of type string"),
    "no extra_info": (row(extra_info=DROP), "has no columns ['extra_info']"),
    "no images": (row(images=DROP), "has no columns ['images']"),
    "names for images": (row(images=["a.png"]), "column images is of type list<"),
    "an image for images": (row(images={"bytes": b"x"}), "column images is of type struct<"),
    "images by path": (row(images=[{"path": "a.png"}]), "column images is of type list<"),
    "text for a prompt": (row(prompt="<image>Rate it."), "column prompt is of type string"),
    "an empty prompt": (row(prompt=[]), "column prompt is of type list<"),
    "a prompt without roles": (row(prompt=[{"content": "x"}]), "column prompt is of type list<"),
    "a turn without text": (row(prompt=[{"role": "user", "content": None}]), "column prompt|row 0: prompt is"),
}
LABELS = {
    "a label from 0 to 100": (row(reward_model__ground_truth='{"score": 73}'), "label 73 is outside the scale"),
    "a plain number": (row(reward_model__ground_truth="3.0"), "ground_truth is '3.0', not a JSON object"),
    "a number": (row(reward_model__ground_truth=3.0), "ground_truth is 3.0, not a JSON object"),
    "no label": (row(reward_model__ground_truth=None), "ground_truth is None"),
    "another label": (row(reward_model__ground_truth='{"rating": 3}'), "no number under 'score'"),
    "text for reward_model": (row(reward_model="3"), "column reward_model is of type string"),
    "no reward_model": (row(reward_model=DROP), "has no columns ['reward_model']"),
    "details that are a list": (row(extra_info__details="[1]"), "extra_info.details is '[1]'"),
    "details that are no JSON": (row(extra_info__details="dark"), "extra_info.details is 'dark'"),
}
COMMANDS = {
    "eval": ["eval", "--data", "FILE", "--model", "m", "--engine", MODEL, "--out", "OUT"],
    "cot": ["cot", "run", "data=[FILE]", "engine.model=m", f"engine.kind={MODEL}", "out=OUT", "run_options.on=here"],
    "ract": ["ract", "align", "domains.a.model=m", "domains.a.data=[FILE]", f"engine.kind={MODEL}", "out=OUT"],
    "pairs": ["rali", "pairs", "--data", "FILE", "--model", "m", "--engine", MODEL, "--out", "OUT", "--on", "here"],
    "fit": ["rali", "fit", "--data", "FILE", "--model", "/nowhere", "--out", "OUT"],
}


def said(command: str, file: Path) -> str:
    words = [word.replace("FILE", str(file)).replace("OUT", str(file.parent / "out")) for word in COMMANDS[command]]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), (result.exception, result.output)
    return result.output.strip()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_command_names_file_and_row_and_fix(tmp_path, command, fault):
    wrong, reason = FAULTS[fault]
    text = said(command, write(tmp_path / "rows.parquet", wrong))
    assert f"{tmp_path}/rows.parquet" in text and any(one in text for one in reason.split("|")), text
    assert "Fix: " in text and "\n" not in text


@pytest.mark.parametrize("fault", LABELS)
def test_an_evaluation_names_a_wrong_label_before_the_model_is_asked(tmp_path, fault):
    wrong, reason = LABELS[fault]
    text = said("eval", write(tmp_path / "rows.parquet", wrong))
    assert f"{tmp_path}/rows.parquet" in text and reason in text and "Fix: " in text and "\n" not in text


@pytest.mark.parametrize("command", ["cot", "ract", "pairs", "fit"])
@pytest.mark.parametrize("score", [73.0, None, 0.0])
def test_whatever_learns_names_a_wrong_score_before_the_model_is_asked(tmp_path, command, score):
    rows = [row(0), row(1, extra_info__score=score)]
    text = said(command, write(tmp_path / "rows.parquet", *rows))
    assert f"{tmp_path}/rows.parquet, row 1 (technical/x/1): extra_info.score" in text and "Fix: " in text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as parquet"),
        (b"PAR1", "cannot be read as parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_is_no_parquet_is_said_in_one_line(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "rows.parquet").write_bytes(content)
    text = said("eval", tmp_path / "rows.parquet")
    assert reason in text and f"{tmp_path}/rows.parquet" in text and "Fix: " in text and "\n" not in text


def test_a_cut_file_and_one_without_rows_are_said(tmp_path):
    whole = write(tmp_path / "rows.parquet", *map(row, range(4)))
    empty = pq.read_table(whole).slice(0, 0)
    whole.write_bytes(whole.read_bytes()[:-40])
    assert "cannot be read as parquet" in said("eval", whole)
    pq.write_table(empty, tmp_path / "empty.parquet")
    assert "has no rows" in said("eval", tmp_path / "empty.parquet")
    pq.write_table(pa.table({}), tmp_path / "nothing.parquet")
    assert "has no columns" in said("eval", tmp_path / "nothing.parquet")


def test_the_same_id_twice_in_a_file_is_named_with_both_rows(tmp_path):
    file = write(tmp_path / "rows.parquet", row(0), row(1), row(2, extra_info__id="x/0"))
    with pytest.raises(SameRow, match=rf"technical/x/0 is in {file}, row 0 and in {file}, row 2. Fix: "):
        list_rows([file])


def test_row_numbers_count_over_row_groups(tmp_path):
    table = pa.Table.from_pylist([*map(row, range(5)), row(5, extra_info__task="beauty")])
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    with pytest.raises(ValueError, match=r"row 5: extra_info\.task"):
        list_rows([tmp_path / "rows.parquet"])


def other_types(table: pa.Table) -> dict[str, pa.Table]:
    """The same rows in other types of Arrow."""
    image = pa.struct([("bytes", pa.large_binary())])
    turn = pa.struct([("role", pa.large_string()), ("content", pa.large_string())])
    changed = {
        "large": {"images": pa.large_list(image), "prompt": pa.large_list(turn), "data_source": pa.large_string()},
        "dictionary": {"data_source": pa.dictionary(pa.int32(), pa.string())},
        "fixed": {"images": pa.list_(pa.struct([("bytes", pa.binary())]), 1)},
    }
    found = {}
    for name, types in changed.items():
        fields = [pa.field(one.name, types.get(one.name, one.type)) for one in table.schema]
        found[name] = pa.Table.from_pylist(table.to_pylist(), schema=pa.schema(fields))
    both = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    rows = [{**one, "images": [{**one["images"][0], "path": None}]} for one in table.to_pylist()]
    fields = [pa.field(one.name, both if one.name == "images" else one.type) for one in table.schema]
    return {**found, "as datasets writes it": pa.Table.from_pylist(rows, schema=pa.schema(fields))}


@pytest.mark.parametrize("kind", ["large", "dictionary", "fixed", "as datasets writes it"])
def test_other_types_of_the_same_rows_are_read_alike(tmp_path, kind):
    plain = pa.Table.from_pylist([row(number) for number in range(4)])
    pq.write_table(plain, tmp_path / "plain.parquet")
    pq.write_table(other_types(plain)[kind], tmp_path / "other.parquet")
    sets = {}
    for name in ("plain", "other"):
        words = ["eval", "--data", str(tmp_path / f"{name}.parquet"), "--model", "m", "--engine", RATER]
        result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / name), "--resamples", "20"])
        assert result.exit_code == 0, result.output
        sets[name] = json.loads((tmp_path / name / "metrics.json").read_text())["sets"]
    assert sets["plain"] == sets["other"]


def test_files_of_other_types_but_the_same_kind_of_images_may_be_named_together(tmp_path):
    plain = pa.Table.from_pylist([row(number) for number in range(4)])
    pq.write_table(plain.slice(0, 2), tmp_path / "plain.parquet")
    pq.write_table(other_types(plain)["large"].slice(2), tmp_path / "large.parquet")
    assert len(list_rows([tmp_path / "plain.parquet", tmp_path / "large.parquet"])) == 4


@pytest.mark.parametrize("image", [{"bytes": b""}, {"bytes": None}, None])
def test_an_image_that_is_not_there_is_counted_and_costs_its_own_row_only(tmp_path, image):
    kinds = pa.Table.from_pylist([row(0)]).schema
    rows = [*map(row, range(5)), row(5, images=[image]), row(6, images=[])]
    write(tmp_path / "rows.parquet", *rows, schema=kinds)
    words = ["eval", "--data", str(tmp_path / "rows.parquet"), "--model", "m", "--engine", RATER]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--resamples", "20"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["sets"]["x"]
    counts = [found[name] for name in ("images", "scored", "bad_images", "unreadable")]
    assert counts == [7, 5, 2, 0] and found["status"] == {"ok": 5, "bad_image": 2}


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2), st.binary(max_size=3),
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(VALUES, st.dictionaries(st.sampled_from(["id", "task", "split", "score", "scale_low", "scale_high"]), VALUES))
def test_a_row_is_either_read_or_rejected_by_name(source, changed):
    info = {"id": "x", "task": "technical", **changed}
    for found in (info, source):
        try:
            read = row_info({"data_source": source, "extra_info": found})
        except BadRow as error:
            assert "Fix: " in str(error) and "\n" not in str(error)
        else:
            assert read["data_source"] == source and read["task"] == "technical"

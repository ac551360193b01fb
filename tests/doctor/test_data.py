"""Preflight checks of data files: each bad row is named, healthy ones pass, tokens are counted as verl counts them."""

import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from doctor_builders import pixels, png, record, records, tiny_model, written
from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor

from omniq_verl.data.rows import Row
from omniq_verl.doctor.data_files import FileReport, check_file
from omniq_verl.doctor.prompt_length import PromptLength
from omniq_verl.doctor.rows import Fault, check_id, image_size
from omniq_verl.tasks import DEGRADATION, TASKS, TECHNICAL, comparison_task


def test_a_row_without_a_name_of_its_own_is_named(tmp_path):
    rows = records(3)
    rows[1]["extra_info"]["id"] = ""
    assert "extra_info.id is neither text nor a whole number" in only_problem(check_rows(tmp_path, rows))


@pytest.mark.parametrize(
    ("name", "sound"), [(0, True), (7, True), ("7", True), (None, False), (True, False), (7.5, False)]
)
def test_a_name_is_a_text_or_a_whole_number(name, sound):
    try:
        check_id({"extra_info": {"id": name}})
    except Fault:
        assert not sound
    else:
        assert sound


def test_labels_of_someone_elses_reward_are_theirs(tmp_path):
    rows = records(3)
    for row in rows:
        row["reward_model"]["ground_truth"], row["extra_info"]["task"] = "3.0", "mine"
    path = written(tmp_path, rows)
    assert check_file(path, None, 128).problems and not check_file(path, None, 128, labels=False).problems


def check_rows(folder: Path, rows: list[dict]) -> FileReport:
    return check_file(written(folder, rows), None, 128)


def only_problem(report: FileReport) -> str:
    assert len(report.problems) == 1, [str(problem) for problem in report.problems]
    return str(report.problems[0])


def labelled(text: str | None, task: str = TECHNICAL.name) -> list[dict]:
    """Rows of which only the first may have a fault."""
    rows = records(2)
    rows[0]["reward_model"]["ground_truth"], rows[0]["extra_info"]["task"] = text, task
    if task == DEGRADATION.name:
        rows[0]["extra_info"] |= {"scale_low": None, "scale_high": None}
    return rows


def messages(row_id: str = "koniq/0") -> tuple[tuple[str, str], ...]:
    return tuple((turn["role"], turn["content"]) for turn in TECHNICAL.messages(row_id))


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory):
    return AutoProcessor.from_pretrained(tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


# Files and rows


def test_a_healthy_file_has_no_problem(tmp_path):
    report = check_rows(tmp_path, records(3))
    assert (report.rows, report.problems) == (3, [])


def test_a_missing_file_is_named(tmp_path):
    text = only_problem(check_file(str(tmp_path / "none.parquet"), None, 128))
    assert f"{tmp_path}/none.parquet: there is no such file" in text
    assert "data.train_files=PATH" in text


def test_a_cut_off_file_is_unreadable(tmp_path):
    path = Path(written(tmp_path, records()))
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read as parquet" in only_problem(check_file(str(path), None, 128))


def test_a_file_damaged_in_the_middle_is_unreadable(tmp_path):
    path = Path(written(tmp_path, records(200)))
    data = bytearray(path.read_bytes())
    data[100 : len(data) // 2] = bytes(len(data) // 2 - 100)
    path.write_bytes(data)
    report = check_file(str(path), None, 128)
    assert any("cannot be read as parquet" in str(problem) for problem in report.problems)


def test_a_missing_column_is_named(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "reward_model"} for row in records()]
    assert "lacks the column reward_model" in only_problem(check_rows(tmp_path, rows))


def test_a_file_without_rows_is_rejected(tmp_path):
    path = written(tmp_path, records())
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert "the file has no row" in only_problem(check_file(path, None, 128))


def test_a_truncated_image_is_named_by_row_and_id(tmp_path):
    rows = records()
    rows[2]["images"][0]["bytes"] = png()[:-200]
    text = only_problem(check_rows(tmp_path, rows))
    assert text.startswith(f"{tmp_path}/train.parquet, row 2 (id koniq/2): the image does not decode (")
    assert "Fix: " in text


@pytest.mark.parametrize("encoding", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_damaged_jpeg_is_judged_as_by_full_decoding(encoding):
    """Decoding at an eighth of the size finds what decoding each pixel finds, in the same words."""
    buffer, chance = io.BytesIO(), np.random.default_rng(0)
    Image.fromarray(pixels(96, 128)).save(buffer, "JPEG", **encoding)
    whole, verdicts = buffer.getvalue(), set()
    for _ in range(150):
        data = bytearray(whole[: chance.integers(len(whole))] if chance.random() < 0.3 else whole)
        for where in chance.integers(len(data), size=chance.integers(8)) if data else ():
            data[where] = chance.integers(256)
        found, expected = (outcome(read, bytes(data)) for read in (image_size, fully_decoded_size))
        assert found == expected
        verdicts.add(isinstance(found, tuple))
    assert verdicts == {True, False}


def fully_decoded_size(image: dict[str, bytes]) -> tuple[int, int]:
    with Image.open(io.BytesIO(image["bytes"])) as opened:
        opened.load()
        return opened.height, opened.width


def outcome(read: Callable[[dict[str, bytes]], tuple[int, int]], data: bytes) -> tuple[int, int] | str:
    """The size, or the decoder's own words."""
    try:
        return read({"bytes": data})
    except Exception as error:
        reason = str(error.__cause__ if isinstance(error, Fault) and error.__cause__ else error)
        return re.sub(r"object at 0x\w+", "object", reason)


def test_bytes_of_no_image_format_are_rejected(tmp_path):
    assert "no known image format" in only_problem(check_rows(tmp_path, [record(0, b"not an image")]))


def test_an_image_above_pils_limit_is_rejected_and_no_warning_filter_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 24 - 1)
    before = list(warnings.filters)
    assert "decompression bomb" in only_problem(check_rows(tmp_path, records(1)))
    assert warnings.filters == before


def test_an_image_without_bytes_is_rejected(tmp_path):
    rows = records()
    rows[1]["images"] = [{"bytes": None}]
    assert "row 1 (id koniq/1): the image has no bytes" in only_problem(check_rows(tmp_path, rows))


def test_an_image_file_that_does_not_exist_is_named(tmp_path):
    (tmp_path / "there.png").write_bytes(png())
    rows = records(2)
    for row, name in zip(rows, ("there.png", "gone.png"), strict=True):
        row["images"] = [{"image": str(tmp_path / name)}]
    text = only_problem(check_rows(tmp_path, rows))
    assert f"row 1 (id koniq/1): the image file {tmp_path}/gone.png does not exist" in text


def test_an_image_under_a_key_verl_does_not_read_is_rejected(tmp_path):
    rows = records(1)
    rows[0]["images"] = [{"path": "somewhere.png"}]
    assert "neither bytes nor the name of a file under 'image'" in only_problem(check_rows(tmp_path, rows))


@pytest.mark.parametrize("score", [0.9, 5.1, -3])
def test_a_label_outside_of_the_scale_is_rejected(tmp_path, score):
    rows = records()
    rows[3]["reward_model"]["ground_truth"] = json.dumps({"score": score})
    text = only_problem(check_rows(tmp_path, rows))
    assert f"row 3 (id koniq/3): the label {score:g} is outside the scale [1, 5]" in text


@pytest.mark.parametrize("text", ["3.2", "good", "[3]", "null", "", None])
def test_a_label_that_is_no_json_object_is_shown_with_one_that_would_do(tmp_path, text):
    found = only_problem(check_rows(tmp_path, labelled(text)))
    assert f"row 0 (id koniq/0): reward_model.ground_truth is {text!r}, not a JSON object" in found
    assert '{"score": 3.2}' in found


@pytest.mark.parametrize("text", ['{"score": "3"}', '{"score": NaN}', '{"score": true}', '{"mos": 3}', "{}"])
def test_a_label_that_is_no_number_under_score_is_rejected(tmp_path, text):
    assert "row 0 (id koniq/0): there is no number under 'score'" in only_problem(check_rows(tmp_path, labelled(text)))


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ({"distortion_class": "haze", "severity": "slight"}, "distortion_class is 'haze'; known: noise, compression"),
        ({"distortion_class": "blur", "severity": "huge"}, "severity is 'huge'; known: slight, moderate"),
        ({"score": 3.2}, "distortion_class is ''; known: noise"),
    ],
)
def test_a_label_that_is_no_known_degradation_is_rejected(tmp_path, label, fault):
    text = only_problem(check_rows(tmp_path, labelled(json.dumps(label), "degradation")))
    assert fault in text
    assert '{"distortion_class": "blur", "severity": "slight"}' in text


@pytest.mark.parametrize("label", [("noise", "catastrophic"), (None, None)])
def test_a_label_that_is_a_known_degradation_or_none_is_fine(tmp_path, label):
    text = json.dumps(dict(zip(("distortion_class", "severity"), label, strict=True)))
    assert check_rows(tmp_path, labelled(text, "degradation")).problems == []


def test_a_label_on_the_edge_of_the_scale_is_fine(tmp_path):
    rows = records(2)
    rows[0]["reward_model"]["ground_truth"] = '{"score": 1}'
    rows[1]["reward_model"]["ground_truth"] = '{"score": 5.0}'
    assert check_rows(tmp_path, rows).problems == []


def test_a_label_is_judged_on_the_scale_of_its_row(tmp_path):
    rows = labelled('{"score": 0.5}')
    rows[0]["extra_info"] |= {"scale_low": 0.0, "scale_high": 5.0}
    assert check_rows(tmp_path, rows).problems == []


@pytest.mark.parametrize("scale", [(5.0, 1.0), (1.0, None)])
def test_a_scale_that_is_none_is_named(tmp_path, scale):
    rows = records()
    rows[0]["extra_info"] |= dict(zip(("scale_low", "scale_high"), scale, strict=True))
    assert "scale_low and scale_high are wrong" in only_problem(check_rows(tmp_path, rows))


def test_an_unknown_task_is_named_with_the_known_ones(tmp_path):
    rows = records()
    rows[0]["extra_info"]["task"] = "smell"
    fault = only_problem(check_rows(tmp_path, rows))
    assert f"extra_info.task is 'smell', an unknown task. Fix: name one of {', '.join(TASKS)}, or" in fault


@pytest.mark.parametrize(("images", "found"), [([], 0), ([{"bytes": png()}] * 2, 2)])
def test_images_and_placeholders_must_match(tmp_path, images, found):
    rows = records()
    rows[0]["images"] = images
    assert f"has 1 times <image>, the row has {found} images" in only_problem(check_rows(tmp_path, rows))


def test_a_prompt_that_is_no_chat_is_rejected(tmp_path):
    rows = [{**row, "prompt": "<image>How good?"} for row in records(1)]
    assert "prompt is not a list of turns" in only_problem(check_rows(tmp_path, rows))


def test_a_row_with_two_faults_shows_both(tmp_path):
    rows = [record(0, b"broken")]
    rows[0]["reward_model"]["ground_truth"] = "9"
    assert len(check_rows(tmp_path, rows).problems) == 2


def test_of_many_equal_faults_five_are_listed_and_the_rest_is_counted(tmp_path):
    rows = [record(number, b"broken") for number in range(12)]
    listed = [str(problem) for problem in check_rows(tmp_path, rows).problems]
    assert len(listed) == 6
    assert "row 4 (" in listed[4]
    assert "and 7 more rows with such a fault (image)" in listed[5]


# Comparisons


def compared(reference: bool = False, **changes: Any) -> dict:
    images = [png(24, 24), png(80, 80), png(24, 120)][not reference :]
    row = Row("pairs", "pairs/0", comparison_task(reference).name, "train", choice="first")
    return row.record(0, *images) | changes


@pytest.mark.parametrize("reference", [False, True])
def test_a_comparison_is_fine_and_its_length_is_that_of_all_its_images(processor, tmp_path, reference):
    path, lengths = written(tmp_path, [compared(reference)]), PromptLength(processor)
    report = check_file(path, lengths, 4096)
    turns = tuple((turn["role"], turn["content"]) for turn in comparison_task(reference).messages(None))
    sizes = ((24, 24), (80, 80), (24, 120))[not reference :]
    assert (report.problems, report.longest_prompt) == ([], lengths.count(turns, sizes).total)
    assert f"raise data.max_prompt_length to at least {report.longest_prompt}" in only_problem(
        check_file(path, lengths, report.longest_prompt - 1)
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"reward_model": {"ground_truth": '{"choice": "Image A"}'}},
            "choice is 'Image A'; known: first, second. Fix",
        ),
        ({"reward_model": {"ground_truth": '{"score": 3.0}'}}, 'write it like {"choice": "first"}'),
        ({"images": [{"bytes": png()}] * 3}, "has 2 times <image>, the row has 3 images"),
        ({"images": [{"bytes": png()}, {"bytes": png()[:-200]}]}, "the image does not decode"),
    ],
)
def test_a_broken_comparison_is_named(tmp_path, changes, fault):
    found = [str(problem) for problem in check_rows(tmp_path, [compared(**changes)]).problems]
    assert any("row 0 (id pairs/0): " in one and fault in one for one in found), found


def test_a_comparison_of_another_number_of_images_is_named(tmp_path):
    row = compared(True)
    row["extra_info"]["task"] = "q_insight_comparison"
    text = only_problem(check_rows(tmp_path, [row]))
    assert "the task q_insight_comparison is about 2 images, the row has 3" in text


# Tokens


@pytest.mark.parametrize("size", [(80, 80), (24, 24), (3, 5), (200, 75), (64, 500), (333, 41)])
@pytest.mark.parametrize("settings", [{}, {"min_pixels": 4096, "max_pixels": 9999}])
def test_the_count_is_what_verl_and_the_processor_make(processor, size, settings):
    expected = tokens_by_verl(processor, messages(), pixels(*size), settings)
    assert PromptLength(processor, processor_kwargs=settings).count(messages(), (size,)).total == expected


def tokens_by_verl(processor, turns, image: np.ndarray, settings: dict) -> int:
    """As verl 0.9.1: rl_dataset.py ``_build_messages`` and ``doc2len``."""
    (_, content) = turns[0]
    text = content.removeprefix("<image>")
    parts = [{"type": "image", "image": Image.fromarray(image)}, {"type": "text", "text": text}]
    chat = [{"role": "user", "content": parts}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    images, _ = process_vision_info(chat, image_patch_size=processor.image_processor.patch_size)
    return len(processor(text=[prompt], images=images, **settings)["input_ids"][0])


def test_a_processor_without_the_formula_is_run(processor, monkeypatch):
    formula = PromptLength(processor).count(messages(), ((200, 75),))
    monkeypatch.delattr(type(processor.image_processor), "get_number_of_image_patches")
    assert PromptLength(processor).count(messages(), ((200, 75),)) == formula


def test_several_images_are_added_up(processor):
    lengths = PromptLength(processor)
    one = lengths.count((("user", "<image>Compare."),), ((80, 80),))
    two = lengths.count((("user", "<image><image>Compare."),), ((80, 80), (80, 80)))
    # A second image brings its own tokens and the two that enclose them.
    assert (two.images, two.total) == (2 * one.images, one.total + one.images + 2)


def test_a_prompt_that_is_too_long_is_named_with_the_length_it_needs(processor, tmp_path):
    path, lengths = written(tmp_path, records(1)), PromptLength(processor)
    needed = check_file(path, lengths, 4096).longest_prompt
    assert check_file(path, lengths, needed).problems == []
    text = only_problem(check_file(path, lengths, needed - 1))
    image_tokens = lengths.count(messages(), ((24, 24),)).images
    assert f"the prompt has {needed} tokens ({image_tokens} of the image)" in text
    assert f"data.max_prompt_length is {needed - 1}" in text
    assert f"raise data.max_prompt_length to at least {needed}" in text


def test_an_image_the_processor_rejects_is_named(processor, tmp_path):
    path = written(tmp_path, [record(0, png(2, 900))])
    text = only_problem(check_file(path, PromptLength(processor), 128))
    assert "row 0 (id koniq/0): the processor rejects an image of 900 x 2 pixels" in text

"""``Scorer`` and ``omniq score`` with a stand-in for the model: every form of image, hostile ones, restarts."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from evaluation_builders import RATER, RECORDER, Recorder, grey
from PIL import Image
from typer.testing import CliRunner

import omniq_verl
from omniq_verl import Scorer
from omniq_verl.cli import app
from omniq_verl.generation.request import Answer, seed_of
from omniq_verl.scoring.image_inputs import list_files
from omniq_verl.scoring.scorer import summarise
from omniq_verl.tasks import DEGRADATION, Q_INSIGHT_SCORE, TECHNICAL, Scale

BUILDERS = Path(__file__).parents[1] / "builders"


@pytest.fixture
def scorer() -> Scorer:
    return Scorer("", RATER, batch=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Three images and five files that are none a model should see."""
    folder = tmp_path_factory.mktemp("made") / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, value in (("a.png", 0), ("deep/b.png", 255), ("c.png", 51)):
        (folder / name).write_bytes(grey(value))
    (folder / "note.txt").write_text("not an image")
    (folder / "empty.jpg").touch()
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (20_000, 20)).save(folder / "long.png")
    Image.new("1", (30_000, 30_000)).save(folder / "bomb.png")
    return folder


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def test_every_form_of_one_image_gets_the_same_score(scorer, tmp_path):
    data = grey(102)
    (tmp_path / "x.png").write_bytes(data)
    array = np.full((16, 16, 3), 102, dtype=np.uint8)
    forms = [tmp_path / "x.png", str(tmp_path / "x.png"), data, Image.fromarray(array), array, array[..., 0]]
    forms += [np.dstack([array, np.full((16, 16), 255, np.uint8)]), bytearray(data)]
    found = scorer.score(forms)
    # 1 + 4 * 102 / 255 = 2.6.
    assert [(one.status, one.score, one.level) for one in found] == [("ok", pytest.approx(2.6), "fair")] * 8
    assert found[0].reasoning == "its brightness is 0.40" and "<answer>2.60" in found[0].answer
    assert [one.image for one in found[1:3]] == [str(tmp_path / "x.png"), "image 2"]


def test_one_image_gives_one_score_and_many_a_list(scorer):
    assert scorer.score(grey(0)).score == 1.0
    assert scorer.score(np.zeros((16, 16, 3), np.uint8)).score == 1.0
    assert [one.score for one in scorer.score([grey(0)])] == [1.0]
    assert scorer.score([]) == []
    assert [one.score for one in scorer.score(np.zeros((2, 16, 16, 3), np.uint8))] == [1.0, 1.0]


def test_scores_stay_with_their_images_over_batches_and_rejects(scorer):
    values = [0, 255, None, 51, 102, 153, None, None, 204, 255, 0]
    found = scorer.score([b"broken" if value is None else grey(value) for value in values])
    assert [one.score for one in found] == [None if v is None else pytest.approx(1 + 4 * v / 255) for v in values]
    assert [one.status for one in found].count("bad_image") == 3
    assert found[2].image == "image 2" and "no known image format" in found[2].error


def test_several_tasks_are_asked_of_an_image_together(scorer):
    both = scorer.score([grey(0), b"", grey(255)], task=["technical", "degradation"])
    assert [set(one) for one in both] == [{"technical", "degradation"}] * 3
    dark, broken, bright = (one["degradation"] for one in both)
    assert (dark.distortion, dark.severity, dark.score) == ("noise", "slight", None)
    assert bright.ok and bright.distortion is None and not broken.ok
    assert both[2]["technical"].score == 5.0


@pytest.mark.parametrize(
    ("said", "status", "distortion"),
    [
        ('{"distortion": "blur", "severity": "serious"}', "no_class", None),
        ('{"rating": 3}', "no_class", None),
        ("{}", "ok", None),
        ('{"severity": null}', "ok", None),
        ('{"distortion_class": "JPEG", "severity": "slight"}', "ok", "compression"),
    ],
)
def test_an_object_that_names_no_distortion_does_not_say_there_is_none(said, status, distortion):
    answers = [Answer(f"<answer>{said}</answer>")] * 2
    found = summarise("a.png", DEGRADATION, answers)
    assert (found.status, found.distortion, found.parsed) == (status, distortion, 2 * (status == "ok"))


def test_a_score_in_an_object_is_a_score():
    found = summarise("a.png", Q_INSIGHT_SCORE, [Answer('<think>a</think><answer>{"rating": 3.2}</answer>')])
    assert (found.status, found.score, found.level) == ("ok", 3.2, "fair")


def test_a_scale_for_a_task_without_one_is_rejected(photos):
    words = ["score", str(photos), "--model", "m", "--task", "degradation", "--scale", "0-5"]
    found = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert found.exit_code == 1 and "the task degradation has no score" in found.output


def test_alignment_needs_its_prompt_and_puts_it_into_the_question(tmp_path):
    with pytest.raises(ValueError, match="none was given"):
        Scorer("", RATER).score(grey(9), task="alignment")
    with pytest.raises(ValueError, match="2 prompts for 1 images"):
        Scorer("", RATER).score([grey(9)], task="alignment", prompt=["a", "b"])
    for blank in ("", " \n", ["", "a cat"], ["a cat", ""], ["a cat", None]):
        with pytest.raises(ValueError, match=r"needs the text.*(image [01] is empty|none was given)"):
            Scorer("", RATER).score([grey(9), grey(99)], task="alignment", prompt=blank)
    asked = Scorer("", RECORDER)
    asked.score([grey(9), grey(99)], task="alignment", prompt=["a cat", "two {dogs}"])
    assert ['"a cat"' in text for text in Recorder.texts] == [True, False]
    assert '"two {dogs}"' in Recorder.texts[1]
    assert all(text.startswith("<image>") for text in Recorder.texts)


def test_an_images_question_and_seed_do_not_depend_on_its_place_or_company():
    scorer = Scorer("", RECORDER)
    scorer.score([grey(1), grey(2), grey(3)])
    texts, seeds = Recorder.texts[:], Recorder.seeds[:]
    scorer.score([grey(3), grey(1)])
    assert Recorder.seeds[3:] == [seeds[2], seeds[0]] and len(set(texts + Recorder.texts)) == 1
    assert len(set(seeds)) == 3 and seeds[0] != seed_of("0/technical")


def test_another_scale_is_asked_for_and_kept_to():
    Scorer("", RECORDER).score(grey(1), scale=Scale(0, 10))
    assert "from 0 (bad) to 10 (excellent)" in Recorder.texts[0]
    assert Scorer("", RATER).score(grey(255), scale=Scale(0, 3)).status == "out_of_range"


def test_several_answers_give_mean_and_spread(scorer):
    one = scorer.score(grey(102), samples=3)
    assert one.score == pytest.approx(2.61) and one.std == pytest.approx(np.std([2.60, 2.61, 2.62]))
    assert (one.parsed, one.answers) == (3, 3)
    assert scorer.score(grey(102)).std is None


def test_answers_are_summed_up_by_hand():
    texts = ["no", "<think>a</think><answer>2</answer>", "<think>b</think><answer>4</answer>", "<answer>9</answer>"]
    found = summarise("x", TECHNICAL, [Answer(text) for text in texts])
    assert (found.status, found.score, found.std, found.level) == ("ok", 3.0, 1.0, "fair")
    assert (found.parsed, found.answers, found.reasoning) == (2, 4, "a")
    assert summarise("x", TECHNICAL, [Answer("no"), Answer("<answer>9</answer>")]).status == "no_answer"
    rejected = summarise("x", TECHNICAL, [Answer("too long", "error")])
    assert (rejected.status, rejected.error, rejected.score) == ("error", "too long", None)
    said = ['{"distortion_class": "JPEG", "severity": "slight"}', '{"distortion_class": "blur", "severity": "slight"}']
    votes = [Answer(f"<answer>{text}</answer>") for text in [said[1], said[0], said[0]]]
    assert summarise("x", DEGRADATION, votes).distortion == "compression"


def test_an_engine_that_rejects_one_image_scores_the_others():
    found = Scorer("rejects", RATER).score([grey(0), grey(200)])
    assert [(one.status, one.error) for one in found] == [("error", "ValueError: too dark"), ("ok", None)]


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((16, 16, 3)), "float64"),
        (np.zeros((16, 16, 5), np.uint8), "shape"),
        (np.zeros((0, 16, 3), np.uint8), ""),
        (Image.new("F", (16, 16)), "no agreed range"),
        (b"", "no bytes"),
        (3.5, "float"),
        (None, "NoneType"),
        ("/no/such.png", "cannot be read"),
        ("no\0file", "cannot be read"),
        ("http://localhost:1/x.png", "only fetched with allow_urls=True"),
        ("HTTPS://example.com/x.png", "only fetched with allow_urls=True"),
        ("file:///etc/passwd", "cannot be read"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_image_is_named_and_never_raises(scorer, image, why):
    (found,) = scorer.score([image])
    assert found.status == "bad_image" and why in found.error


class _Web(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/x.png" else 404)
        self.end_headers()
        self.wfile.write(grey(255))

    def log_message(self, *_words):
        pass


class _Torn(_Web):
    """Ends in the middle of a file, or sends what is not packed as it says."""

    def do_GET(self):
        self.send_response(200)
        short = self.path == "/short"
        self.send_header(*(("Content-Length", "5000") if short else ("Content-Encoding", "gzip")))
        self.end_headers()
        self.wfile.write(grey(255)[:50])


def test_a_download_that_breaks_off_costs_its_own_image_alone():
    server = HTTPServer(("127.0.0.1", 0), _Torn)
    Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    found = Scorer("", RATER, allow_urls=True).score([f"{base}/short", f"{base}/packed", grey(255)])
    server.shutdown()
    assert [one.status for one in found] == ["bad_image", "bad_image", "ok"]
    assert "cannot be fetched" in found[0].error and "IncompleteRead" in found[0].error


def test_addresses_are_fetched_where_asked_for():
    server = HTTPServer(("127.0.0.1", 0), _Web)
    Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    scorer = Scorer("", RATER, allow_urls=True)
    found = scorer.score([f"{base}/x.png", f"{base}/gone.png", f"{base}/away", "http://127.0.0.1:1/x"])
    server.shutdown()
    assert [one.status for one in found] == ["ok", "bad_image", "bad_image", "bad_image"]
    assert "404" in found[1].error and "root:" not in str(found)


def test_an_image_deleted_midway_costs_itself_only(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(12)]
    for file in files:
        file.write_bytes(grey(50))
    batches = Scorer("", RATER, batch=2).batches(files)
    found = next(batches)
    files[9].unlink()
    found += [score for batch in batches for score in batch]
    assert [one.ok for one in found] == [number != 9 for number in range(12)]
    assert found[9].image == str(files[9]) and "cannot be read" in found[9].error


def test_unknown_tasks_and_engines_are_named(scorer):
    with pytest.raises(ValueError, match="technical, aesthetic, alignment, degradation"):
        scorer.score(grey(0), task="beauty")
    with pytest.raises(ValueError, match="unknown engine 'magic'"):
        Scorer("", "magic")
    with pytest.raises(AttributeError):
        omniq_verl.Skorer  # noqa: B018


def test_a_folder_is_scored_and_its_rejects_named(folder):
    result = CliRunner().invoke(app, ["score", str(folder), "--model", "", "--engine", RATER, "--reasoning"])
    lines = result.output.splitlines()
    assert result.exit_code == 0, result.output
    assert f"{folder}/a.png: 1.00 bad" in lines and f"{folder}/deep/b.png: 5.00 excellent" in lines
    assert "    its brightness is 0.20" in lines
    for name in ("note.txt", "empty.jpg", "one.png", "long.png", "bomb.png"):
        assert any(line.startswith(f"{folder}/{name}: ") for line in lines)


def test_the_command_asks_on_another_scale(tmp_path):
    (tmp_path / "a.png").write_bytes(grey(1))
    for out in ([], ["--out", str(tmp_path / "scores.csv")]):
        Recorder.texts.clear()
        words = ["--model", "", "--engine", RECORDER, "--scale", "0-5", *out]
        assert CliRunner().invoke(app, ["score", str(tmp_path / "a.png"), *words]).exit_code == 0
        assert "from 0 (bad) to 5 (excellent)" in Recorder.texts[0]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_is_written_in_the_order_of_the_files(folder, tmp_path, ending):
    out = tmp_path / f"scores.{ending}"
    result = CliRunner().invoke(app, ["score", str(folder), "--model", "hostile", "--engine", RATER, "--out", str(out)])
    assert result.exit_code == 0, result.output
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}
    table = read[ending](out)
    assert [Path(name).name for name in table.image] == [
        *("a.png", "bomb.png", "c.png", "b.png", "empty.jpg", "long.png", "note.txt", "one.png")
    ]
    assert table.score[3] == 5.0 and table.status[0] == "truncated" and "1 of 8 files scored" in result.output
    assert not (tmp_path / f"scores.{ending}.unfinished").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "scores.txt"], ".csv, .jsonl, .parquet"),
        (["--out", "nowhere/scores.csv"], "no such folder"),
        (["--out", "there.csv"], "exists already"),
        (["--task", "alignment"], "none was given"),
        (["--task", "alignment", "--prompt", " "], "image 0 is empty"),
        (["--samples", "2", "--temperature", "nan"], "temperature >= 0"),
        (["--samples", "2", "--temperature", "inf"], "temperature >= 0"),
        (["--task", "beauty"], "unknown task"),
        (["--scale", "0-10"], "unknown scale '0-10'; known: 1-5, 0-5"),
        (["gone"], "no such file"),
    ],
)
def test_mistakes_are_named(folder, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").touch()
    result = CliRunner().invoke(app, ["score", str(folder), "--model", "", "--engine", RATER, *words])
    assert result.exit_code == 1 and said in result.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("task", "said"),
    [("beauty", "unknown task"), ("q_insight_comparison", "is not about one image"), ("alignment", "none was given")],
)
def test_a_wrong_task_is_found_before_a_model_is_opened(folder, task, said):
    words = ["score", str(folder), "--model", "/no/such/model", "--task", task]
    assert said in CliRunner().invoke(app, words).output


def test_nothing_scored_is_an_error_code(folder):
    words = ["score", str(folder / "note.txt"), "--model", "", "--engine", RATER]
    assert CliRunner().invoke(app, words).exit_code == 1


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "scores.csv"
    folder.mkdir()
    for number in range(600):
        (folder / f"{number:04d}.png").write_bytes(grey(number % 256))
    words = [sys.executable, "-m", "omniq_verl.cli", "score", str(folder), "--model", "slow", "--engine", RATER]
    words += ["--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(BUILDERS)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    store = tmp_path / "scores.csv.unfinished"
    deadline = time.monotonic() + 60
    while not done(store) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists() and 0 < done(store) < 600
    subprocess.run(words, env=environment, check=True, capture_output=True)
    table = pd.read_csv(out)
    assert len(table) == 600 and table.image.is_unique and (table.status == "ok").all()
    again = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert again.returncode == 1 and "exists already" in again.stdout.replace("\n", " ")


def done(store: Path) -> int:
    return sum(part.read_bytes().count(b"\n") for part in store.glob("0*.jsonl"))


def test_an_array_is_kept_losslessly():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    from omniq_verl.scoring.image_inputs import load_source

    with Image.open(io.BytesIO(load_source(pixels))) as image:
        assert (np.asarray(image) == pixels).all()
    assert load_source(grey(7)) == grey(7)
    assert load_source(Image.fromarray(pixels)) == load_source(pixels)


def test_what_lies_in_hidden_folders_is_left_out_and_an_empty_folder_named(tmp_path):
    for name in ("a.png", ".cache/thumb.png", "deep/.b.png", "deep/c.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(grey(9))
    assert [file.name for file in list_files([tmp_path / "photos"])] == ["a.png", "c.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no files"):
        list_files([tmp_path / "empty"])


def test_links_to_folders_are_entered_once_and_links_to_nothing_are_missed(tmp_path, scorer):
    for name in ("photos/own/a.png", "elsewhere/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(grey(9))
    photos = tmp_path / "photos"
    links = {"again": "own", "loop": ".", "up": "..", "set": "../elsewhere", "gone.png": "moved.png"}
    for name, target in links.items():
        (photos / name).symlink_to(target)
    files = list_files([photos])
    assert [str(file.relative_to(photos)) for file in files] == ["gone.png", "own/a.png", "set/b.png"]
    assert [one.status for one in scorer.score(files)] == ["bad_image", "ok", "ok"]

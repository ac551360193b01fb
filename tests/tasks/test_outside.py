"""Tasks from outside: found by name in every process, and numbered alike."""

import importlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import pytest
from evaluation_builders import RATER, grey
from reference_builders import EXAMPLES, reward_and_number, run, write_distribution, write_modules
from rich.console import Console

from omniq_verl.data.rows import Row
from omniq_verl.doctor.file_report import row_findings
from omniq_verl.doctor.rows import check_label, check_row
from omniq_verl.evaluation.compare import same_task
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.preparation.shards import Planned, Shard
from omniq_verl.preparation.task_names import name_for
from omniq_verl.rewards import compute_score
from omniq_verl.scoring.score_table import score_files
from omniq_verl.t2i.best_of_n import BestOfN
from omniq_verl.t2i.generator import GeneratorSpec
from omniq_verl.tasks import (
    IMAGE_PLACEHOLDER,
    TASKS,
    TECHNICAL,
    Scale,
    Task,
    find_task,
    names_by_number,
    outside_marks,
    registry,
    task_names,
    task_number,
    task_of,
    task_on,
)
from omniq_verl.trainer.validation import ANSWER_KEYS, asked_tasks, task_names_of, validation_metrics

DOTTED = "task:SHARPNESS"


@pytest.fixture(autouse=True)
def examples(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Install distributions with these entry points, and forget them again."""

    def install(*distributions: dict[str, str]) -> None:
        for number, some in enumerate(distributions):
            monkeypatch.syspath_prepend(str(write_distribution(tmp_path / f"{number}", f"dist{number}", some)))
        forget()

    def forget() -> None:
        registry._outside.cache_clear()
        registry._found.cache_clear()

    yield install
    forget()


def reward(name: str, said: str, score: float, **info) -> dict[str, float]:
    return compute_score("mine", f"<answer>{said}</answer>", json.dumps({"score": score}), {"task": name, **info})


def test_a_task_goes_by_the_name_it_was_asked_by():
    task = find_task(DOTTED)
    assert (task.name, task.scale, task.asks_for) == (DOTTED, Scale(0.0, 10.0), "score")
    assert task_of({"task": DOTTED, "scale_low": 0.0, "scale_high": 1.0}).scale == Scale(0.0, 1.0)
    assert find_task(DOTTED) is task


def test_an_entry_point_gives_a_short_name(entries):
    with pytest.raises(ValueError, match="unknown task 'sharpness'"):
        find_task("sharpness")
    entries({"sharpness": DOTTED})
    assert find_task("sharpness") == replace(find_task(DOTTED), name="sharpness")
    assert task_names() == [*TASKS, "sharpness"] and reward("sharpness", "9", 9.0)["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("distributions", "name", "said"),
    [
        (
            [{"technical": DOTTED}],
            "sharpness",
            "dist0 provides a task 'technical', which is the name of a built-in task",
        ),
        ([{"sharpness": DOTTED}, {"sharpness": "other:X"}], "sharpness", "two packages provide a task 'sharpness'"),
        ([{"a.b": DOTTED}], "sharpness", "'a.b'. Fix: use letters, digits and _ in its name"),
        ([{"sharpness": "nowhere:X"}], "sharpness", "entry point 'nowhere:X' of the group omniq_verl.tasks"),
        ([{"sharpness": "task"}], "sharpness", "Fix: write package.module:object"),
        ([{"sharpness": "task:ANSWER_RULE"}], "sharpness", "which is of the type str. Fix: name an object of"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_named(entries, distributions, name, said):
    entries(*distributions)
    with pytest.raises(ValueError, match="Fix: ") as caught:
        find_task(name)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_same_entry_point_seen_twice_is_one(entries):
    entries({"sharpness": DOTTED}, {"sharpness": DOTTED})
    assert find_task("sharpness").scale == Scale(0.0, 10.0)


def test_an_entry_point_that_cannot_be_imported_is_left_out_of_lists(entries, caplog):
    entries({"broken": "nowhere:X", "sharpness": DOTTED})
    assert list(registry.known_tasks()) == [*TASKS, "sharpness"] and "nowhere:X" in caplog.text


def test_numbers_of_tasks_do_not_depend_on_what_is_installed(entries):
    before = {name: task_number(name) for name in (*TASKS, DOTTED, "sharpness")}
    entries({"a": DOTTED, "sharpness": DOTTED, "zoom": DOTTED})
    assert {name: task_number(name) for name in before} == before
    assert [before[name] for name in TASKS] == list(range(len(TASKS)))
    assert before[DOTTED] == 5813983 and before["sharpness"] == 15150003  # made from the name alone
    assert len(set(before.values())) == len(before) and max(before.values()) < 2**24


def test_two_tasks_of_one_number_are_an_error(monkeypatch):
    monkeypatch.setattr(registry, "_NUMBERS", registry._FIRST_OUTSIDE + 1)
    with pytest.raises(ValueError, match=r"'a:B' and 'c:D' have the same number\. Fix: rename"):
        names_by_number(["a:B", "a:B", "c:D"])


def test_validation_names_tasks_from_outside(caplog):
    rows = [(name, said) for name in ("technical", DOTTED) for said in (1.0, 2.0, 3.0, 4.0)]
    found = [reward(name, f"{said}", said) for name, said in rows]
    answers = {key: [one[key] for one in found] for key in ANSWER_KEYS}
    metrics = validation_metrics(["mine"] * 8, answers, tasks=[DOTTED])
    assert metrics["val-core/mine/technical/srcc"] == metrics[f"val-core/mine/{DOTTED}/srcc"] == 1.0
    number = task_number(DOTTED)
    assert f"val-core/mine/task-{number}/srcc" in validation_metrics(["mine"] * 8, answers)
    assert task_names_of([0.0, float(number), None], [DOTTED]) == ["technical", DOTTED, None]


def test_the_tasks_of_a_data_set_are_read_from_its_rows():
    datasets = pytest.importorskip("datasets")
    infos = [{"task": DOTTED, "id": "a"}, {"task": "technical", "id": "b"}, {"task": None, "id": "c"}]
    own = type("Own", (), {"dataframe": datasets.Dataset.from_dict({"extra_info": infos})})
    assert asked_tasks(own()) == {DOTTED, "technical"}
    assert asked_tasks(object()) == frozenset()


def test_a_started_process_finds_the_same_task():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(reward_and_number, DOTTED).result(60) == reward_and_number(DOTTED)


@pytest.mark.slow  # starts Ray
def test_a_worker_of_ray_finds_the_same_task_and_reward(tmp_path):
    code = f"""
import json, ray
from omniq_verl.rewards import compute_score
from omniq_verl.scoring.score_table import score_files
from omniq_verl.t2i.best_of_n import BestOfN
from omniq_verl.t2i.generator import GeneratorSpec
asked = ("mine", "<answer>9</answer>", json.dumps({{"score": 8.0}}), {{"task": "{DOTTED}"}})
settings = {{"score_reward": "reward:closeness", "score_settings": {{"power": 2}}}}
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
there = ray.get(ray.remote(lambda: compute_score(*asked, **settings)).remote())
assert there["score"] == compute_score(*asked, **settings)["score"] == 0.75 and there["task"] == {task_number(DOTTED)}
print("done")
"""
    assert "done" in run(["-c", code], EXAMPLES, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"questions": "How sharp?"}, "questions must be a tuple"),
        ({"questions": ()}, "questions must be a tuple"),
        ({"questions": ("a", 3)}, "questions must be a tuple"),
        ({"answer_format": "words"}, "number, json or choice, got 'words'"),
        ({"scale": None}, "number needs a scale"),
        ({"answer_format": "choice"}, "choice has no scale"),
        ({"questions": (f"{IMAGE_PLACEHOLDER} a", "b")}, "the same number of times"),
        ({"questions": ("a {text}", "b")}, "the same number of times"),
        ({"answer_rule": " Say it."}, "every question must end with answer_rule"),
    ],
)
def test_a_task_that_cannot_be_asked_is_named(wrong, said):
    Task("sharp", ["How sharp?"], Scale(0, 1))  # a list will do
    with pytest.raises(ValueError, match=f"the task 'sharp': .*{said}"):
        Task(**{"name": "sharp", "questions": ("How sharp?",), "scale": Scale(0.0, 1.0), **wrong})


def test_rows_of_a_task_from_outside_are_checked_as_any_others():
    record = Row("mine", "x", DOTTED, "train", 7.0).record(0, grey(9))
    assert record["extra_info"]["scale_high"] == 10.0 and check_row(record, None, 9999)[0] == []
    check_label(record)
    with pytest.raises(ValueError, match=f"outside the scale .0, 10. of the task {DOTTED}"):
        Row("mine", "x", DOTTED, "train", 11.0)
    record["extra_info"]["task"] = "task:BLUR"
    (fault,) = {fault.what: fault for fault in check_row(record, None, 9999)[0]}.values()
    assert "extra_info.task is 'task:BLUR', and task has no BLUR" in fault.what and "correct the name" in fault.fix


def test_what_was_found_about_rows_of_other_tasks_is_not_stored():
    record = Row("mine", "x", "technical", "train", 3.0).record(0, grey(9))
    assert not row_findings(record, [], None).reads_files
    for name in (DOTTED, "gone"):  # it may be there the next time
        record["extra_info"]["task"] = name
        assert row_findings(record, [], None).reads_files


@pytest.fixture
def asks(tmp_path, monkeypatch, entries):
    """Give the task ``user_task:T`` a wording, as a user who edits the file between two commands."""

    def write(question: str) -> None:
        code = f"from omniq_verl.tasks import Scale, Task\nT = Task('t', ({question!r},), Scale(1.0, 5.0))\n"
        write_modules(tmp_path, {"user_task": code})
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        sys.modules.pop("user_task", None)
        importlib.invalidate_caches()
        for cache in (registry._found, task_on):
            cache.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for cache in (registry._found, task_on):
        cache.cache_clear()


def test_prepared_files_are_written_anew_when_the_task_asks_anew(tmp_path, asks):
    def mark() -> str:
        row = Row("mine", "x", "user_task:T", "train", 3.0)
        return Shard(tmp_path / "train.parquet", 0, (Planned(row, tmp_path / "a.png", "a.png"),)).mark()

    marks = []
    for question in ("Sharp?", "Sharp?", "Really sharp?"):
        asks(question)
        marks.append(mark())
    assert marks[0] == marks[1] != marks[2]


def test_kept_scores_of_another_wording_are_not_gone_on_with(tmp_path, asks):
    files = [tmp_path / f"{number}.png" for number in range(513)]  # three batches
    for file in files:
        file.write_bytes(grey(9))
    score = partial(score_files, files=files, console=Console(quiet=True), asked={"task": "user_task:T"})
    asks("Sharp?")
    dying, alive = EngineSpec(f"dies {tmp_path}", "generation_builders:Echo"), EngineSpec("", RATER)
    with pytest.raises(RuntimeError, match="out of memory"):
        score(dying, out=tmp_path / "scores.csv")
    asks("Really sharp?")
    with pytest.raises(ValueError, match="outside_tasks"):
        score(dying, out=tmp_path / "scores.csv")
    assert score(alive, out=tmp_path / "others.csv") == 513
    guided = BestOfN([{"prompt": "a fox"}], tmp_path, GeneratorSpec("x"), alive, {"user_task:T": 1.0})
    assert guided.settings()["outside_tasks"] == outside_marks(["user_task:T"]) != {}
    assert "outside_tasks" not in replace(guided, weights={"alignment": 1.0}).settings()


def test_another_wording_from_outside_is_compared_as_its_task(tmp_path, monkeypatch):
    code = "from dataclasses import replace\nfrom omniq_verl.tasks import TECHNICAL\n"
    code += "T = replace(TECHNICAL, like='technical')\n"
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, {"user_wording": code})))
    assert same_task("user_wording:T") == "technical"
    assert same_task(DOTTED) == DOTTED and same_task("nowhere:X") == "nowhere:X"
    assert name_for(["technical"], False, "user_wording:T") == "user_wording:T"
    assert find_task("user_wording:T").question("x") != "" and TECHNICAL.like == ""


@pytest.mark.parametrize(
    ("labels", "any_task", "name", "said"),
    [
        (["technical"], False, DOTTED, "asks for labels that this data set lacks. Fix: give the task like='technical'"),
        (["degradation"], True, DOTTED, "asks for labels that this data set lacks"),
        (["technical"], True, "nowhere:X", "nowhere cannot be imported"),
        (["technical"], True, "degradation", "invalid choice: 'degradation'"),
        (["technical"], True, "beauty", r"invalid choice: 'beauty' \(choose from technical, q_insight_score,"),
    ],
)
def test_labels_are_asked_for_by_tasks_that_have_such(labels, any_task, name, said):
    with pytest.raises(Exception, match=said):
        name_for(labels, any_task, name)
    assert name_for(["technical"], True, DOTTED) == DOTTED

"""``package.module:object`` in every setting that takes one: what is wrong is one line that names the setting."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_builders import EXAMPLES, write_modules

from omniq_verl.data.rows import Row
from omniq_verl.generation.engines import open_async_engine, open_engine
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.object_reference import BadReference, is_reference, load_function, load_object
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.outside_reader import open_reader
from omniq_verl.rewards import RewardSettings
from omniq_verl.rewards.outside import probe
from omniq_verl.scoring.scorer import asked_tasks
from omniq_verl.serving.settings import ServerSettings
from omniq_verl.t2i.generator import GeneratorSpec, open_generator
from omniq_verl.t2i.outside_selector import choose_by
from omniq_verl.tasks import find_task, task_of

SCORES = {"technical": [1.0, 3.0, None], "aesthetic": [4.0, 2.5, 5.0]}
REFERENCES = {
    "extra_info.task": lambda name: task_of({"task": name}),
    "task": lambda name: asked_tasks(name),
    "row x: task": lambda name: Row("made", "x", name, "train", 3.0),
    "--task": lambda name: ServerSettings(EngineSpec(""), tasks=(name,)).check(),
    "score_reward": lambda name: RewardSettings.for_source("koniq", score_reward=name),
    "--reader": open_reader,
    "--selector": lambda name: choose_by(name, SCORES),
    "the engine": lambda name: open_engine(EngineSpec("", name)),
    "the engine ": lambda name: open_async_engine(EngineSpec("", name)),
    "--generator": lambda name: open_generator(GeneratorSpec(name)),
}
MODULES = {
    "user_faults": "NUMBER = 3\nclass Inside:\n    NUMBER = 4\n",
    "user_syntax": "def broken(:\n",
    "user_raises": "x = 1\nraise RuntimeError('no\\nlicence')\n",
    "user_exits": "import sys\nsys.exit(3)\n",
    "user_imports": "import nowhere_to_be_found\n",
}
FAULTS = {
    "user_nowhere:x": "user_nowhere cannot be imported (ModuleNotFoundError: No module named 'user_nowhere')",
    "user_syntax:x": "user_syntax cannot be imported (SyntaxError: invalid syntax",
    "user_raises:x": "user_raises cannot be imported (RuntimeError: no licence, user_raises.py line 2)",
    "user_exits:x": "user_exits cannot be imported (SystemExit: 3, user_exits.py line 2)",
    "user_imports:x": "No module named 'nowhere_to_be_found', user_imports.py line 1)",
    "user_faults:SHARPNESS": "user_faults has no SHARPNESS (it has NUMBER, Inside)",
    "user_faults:Inside.x": "user_faults has no Inside.x (it has NUMBER)",
    "user_faults:NUMBER": "",
    "user_faults:Inside.NUMBER": "",
}


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, MODULES)))
    return tmp_path


@pytest.mark.parametrize("setting", REFERENCES)
@pytest.mark.parametrize("name", FAULTS)
def test_a_name_that_leads_nowhere_is_one_line_with_setting_reason_and_fix(outside, setting, name):
    with pytest.raises(ValueError) as caught:
        REFERENCES[setting](name)
    said = str(caught.value)
    assert setting.strip() in said and repr(name) in said and FAULTS[name] in said
    assert re.search(r"Fix: \w", said) and "\n" not in said and "Traceback" not in said


@pytest.mark.parametrize("name", ["a:b", "a.b:c", "a.b:C.d", "_a1.b:c_2"])
def test_a_reference_is_a_module_and_an_object(name):
    assert is_reference(name)


@pytest.mark.parametrize(
    "name", ["", "a", "a.b", ":", "a:", ":b", "a:b:c", "a/b:c", "a b:c", "http://x", "1a:b", "a..b:c", "a:b\n", None, 3]
)
def test_anything_else_is_none(name):
    assert not is_reference(name)


@given(st.text(max_size=20))
def test_a_text_of_any_form_is_opened_or_named(text):
    if not is_reference(text):
        with pytest.raises(BadReference, match=r"Fix: write package\.module:object"):
            load_object("--x", text, "a thing")


@pytest.mark.parametrize(
    ("function", "arguments", "keywords", "fits"),
    [
        ("def f(a, b): pass", 2, (), True),
        ("def f(a, b, *, c=1): pass", 2, ("c",), True),
        ("def f(*a, **k): pass", 2, ("c",), True),
        ("f = max", 2, (), True),  # written in C, and does not tell
        ("def f(a): pass", 2, (), False),
        ("def f(a, b, c): pass", 2, (), False),
        ("def f(a, b): pass", 2, ("c",), False),
        ("def f(a, b, *, c): pass", 2, (), False),
    ],
)
def test_a_function_is_checked_for_its_arguments(tmp_path, monkeypatch, function, arguments, keywords, fits):
    name = f"user_function_{abs(hash((function, keywords)))}"
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, {name: function})))
    if fits:
        assert callable(load_function("--x", f"{name}:f", "f(a, b)", arguments, keywords))
        return
    with pytest.raises(BadReference, match=r"which takes \(.*Fix: give it the form f\(a, b\)"):
        load_function("--x", f"{name}:f", "f(a, b)", arguments, keywords)


REWARDS = {
    "half": ("return 0.5", "", None),
    "numpy": ("import numpy; return numpy.float32(abs(p - t) < 1)", "", None),
    "zero-dimensional": ("import numpy; return numpy.array(0.5)", "", None),
    "torch": ("import torch; return torch.tensor(0.5)", "", None),
    "truth": ("return abs(p - t) < 0.5", "", None),
    "negative": ("return -abs(p - t)", "returns -1.0 for pred=2 and target=1", "a number from 0 to 1"),
    "distance": ("return abs(p - t) / 4", "for the label 1 the score 2 earns 0.25", "closeness"),
    "above": ("return 1.5", "returns 1.5", "a number from 0 to 1"),
    "nan": ("return float('nan')", "returns nan", "a number from 0 to 1"),
    "infinite": ("return float('inf')", "returns inf", "a number from 0 to 1"),
    "none": ("pass", "returns None", "a number from 0 to 1"),
    "text": ("return '0.5'", "returns '0.5'", "a number from 0 to 1"),
    "several": ("import numpy; return numpy.ones(2)", "returns array([1., 1.])", "a number from 0 to 1"),
    "fails": ("return 1 / (p - t)", "ZeroDivisionError: ", "fails for pred=1 and target=1"),
}


@pytest.mark.parametrize("kind", REWARDS)
def test_a_score_reward_is_tried_before_a_training_depends_on_it(tmp_path, monkeypatch, kind):
    body, said, fix = REWARDS[kind]
    name = f"user_reward_{kind.replace('-', '_')}"
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, {name: f"def f(p, t): {body}"})))
    function = RewardSettings(score_reward=f"{name}:f").score_function
    if fix is None:
        probe(function)
        return
    with pytest.raises(ValueError) as caught:
        probe(function)
    assert said in str(caught.value) and fix in str(caught.value) and "\n" not in str(caught.value)


SELECTORS = {
    "too few": "return [1.0]",
    "too many": "return [1.0] * 9",
    "no list": "return 3",
    "nan": "return [float('nan')] * 3",
    "words": "return ['a', 'b', 'c']",
    "truth values": "return [True, False, True]",
    "fails": "raise KeyError('alignment')",
}


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_selector_returns_one_number_or_none_an_image(tmp_path, monkeypatch, kind):
    name = f"user_selector_{kind.replace(' ', '_')}"
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, {name: f"def f(scores): {SELECTORS[kind]}"})))
    with pytest.raises(ValueError, match=f"^--selector {name}:f (returns|fails for 3 images)") as caught:
        choose_by(f"{name}:f", SCORES)
    assert "\n" not in str(caught.value)


READERS = {
    "no items": ("return [{'name': 'a'}]", "item 0 is {'name': 'a'}. Fix: yield omniq_verl.preparation.build.Item"),
    "fails": ("yield from ()\n    raise KeyError('score')", "at item 0: KeyError: 'score', user_reader_fails.py line"),
    "no list": ("return 3", "fails at item 0: TypeError: 'int' object is not iterable"),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_reader_yields_items(tmp_path, monkeypatch, kind):
    name, (body, said) = f"user_reader_{kind.replace(' ', '_')}", READERS[kind]
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, {name: f"def f(request):\n    {body}"})))
    with pytest.raises(LabelFileError, match=re.escape(said)):
        list(open_reader(f"{name}:f")(SimpleNamespace()))


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        (lambda name: open_engine(EngineSpec("", name)), "without a method answer"),
        (lambda name: open_async_engine(EngineSpec("", name)), "without a method answer"),
        (lambda name: open_generator(GeneratorSpec(name)), "which cannot draw"),
    ],
)
def test_an_engine_and_a_generator_have_their_method(tmp_path, monkeypatch, opened, said):
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, {"user_nothing": "def f(spec): return None"})))
    with pytest.raises(ValueError, match=f"user_nothing:f.*{said}.*Fix: name function"):
        opened("user_nothing:f")


@pytest.mark.parametrize("name", ["antigravity:x", "os:system", "os.path:join", "this:s", "webbrowser:open"])
def test_a_row_imports_no_module_of_python_itself(name):
    with pytest.raises(ValueError, match=r"is part of Python's standard library\. Fix: name an object of"):
        find_task(name)


def test_the_examples_choose_and_reward_as_they_say(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    choice = choose_by("selector:worst_task", SCORES)
    assert (choice.best, choice.ranking, choice.without) == (1, (1, 0), (2,))  # 2.5 before 1.0
    settings = RewardSettings.for_source("x", score_reward="reward:closeness", score_settings={"power": 2})
    assert [settings.score_function(pred, 3.0) for pred in (3.0, 4.0, 2.0, 5.0, 1.0)] == [1.0, 0.75, 0.75, 0.0, 0.0]
    probe(settings.score_function)

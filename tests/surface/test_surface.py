"""What this package uses of ray, torch, transformers, verl and vLLM exists in both pinned sets of packages."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version
from surface.allowed import ALLOWED
from surface.check import ABSENT, LOST, SETS, call_problem, override_problem, problems, recording
from surface.record import REPO, installed_set
from surface.resolve import MODULE, UNKNOWN, UNREADABLE, VALUE, describe
from surface.usage import Call, Use, uses_of

RECORD = Path(__file__).with_name("record.py")


@cache
def uses() -> list[Use]:
    return uses_of(REPO / "omniq_verl")


@pytest.mark.parametrize("name", SETS)
def test_every_name_exists_and_every_call_and_override_fits(name):
    found = problems(uses(), recording(name)["names"], ALLOWED[name])
    assert not found, f"with the {name} set:\n" + "\n".join(found)


@pytest.mark.parametrize("name", SETS)
def test_the_recording_is_of_the_pinned_versions(name):
    lines = (REPO / f"constraints/{name}.txt").read_text().splitlines()
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    recorded = {one: Version(version).public for one, version in recording(name)["versions"].items()}
    assert recorded == {one: pins[one] for one in recorded}, f"renew it: make surface, for {name}"


def test_the_recording_is_of_the_installed_packages(tmp_path):
    name, out = installed_set(), tmp_path / "now.json"
    command = [sys.executable, str(RECORD), "--set", name, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(out.read_text()) == recording(name), f"tests/surface/{name}.json is out of date: make surface"


@pytest.mark.parametrize("name", SETS)
def test_a_name_missing_from_the_recording_is_a_problem(name):
    names = recording(name)["names"]
    by_name = {use.name: use for use in uses() if use.name not in ALLOWED[name]}
    assert len(by_name) > 200
    for one, use in by_name.items():
        without = {key: value for key, value in names.items() if key != one}
        assert problems([use], without, {}) == [f"{use.where}: {one} is not in the recording. Renew it: make surface"]


@pytest.mark.parametrize("name", SETS)
def test_a_name_that_upstream_removes_is_a_problem(name):
    names = recording(name)["names"]
    for use in uses():
        if names.get(use.name) is not ABSENT:
            lost = LOST if use.ours else ABSENT  # what record.py would write
            assert problems([use], {**names, use.name: lost}, {}), use


@pytest.mark.parametrize("name", SETS)
def test_each_allowed_name_is_still_needed(name):
    names = recording(name)["names"]
    for one, reason in ALLOWED[name].items():
        others = {key: value for key, value in ALLOWED[name].items() if key != one}
        assert problems(uses(), names, others) and len(reason) > 20, one


def written(tmp_path: Path, **files: str) -> list[Use]:
    package = tmp_path / "omniq_verl"
    package.mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    return uses_of(package)


def calls(found: list[Use]) -> dict[str, Call]:
    return {use.name: use.call for use in found if use.call}


def test_imports_are_found_at_the_top_and_inside_of_functions(tmp_path):
    source = """
import torch.distributed as dist
from vllm import LLM
import json

def f():
    import ray
    from verl.utils import tensordict_utils as tu
    return ray.data.from_items(tu.get(dist.group))
"""
    found = {use.name: use.where for use in written(tmp_path, a=source)}
    assert found == {
        "torch.distributed": "omniq_verl/a.py:2",
        "vllm.LLM": "omniq_verl/a.py:3",
        "ray": "omniq_verl/a.py:7",
        "verl.utils.tensordict_utils": "omniq_verl/a.py:8",
        "ray.data.from_items": "omniq_verl/a.py:9",
        "ray.data": "omniq_verl/a.py:9",
        "verl.utils.tensordict_utils.get": "omniq_verl/a.py:9",
        "torch.distributed.group": "omniq_verl/a.py:9",
    }


def test_a_local_name_that_hides_an_import_is_not_taken_for_it(tmp_path):
    source = "import ray\ndef f(ray):\n    return ray.init(1)\ndef g():\n    ray = 3\n    return ray.real\n"
    assert {use.name for use in written(tmp_path, a=source)} == {"ray"}


def test_keywords_are_seen_also_where_a_dictionary_brings_them(tmp_path):
    settings = "def settings(x):\n    more = {'c': 1}\n    return {'a': 1, 'b': x, **more}\n"
    source = """
from vllm import LLM, SamplingParams
from omniq_verl.settings import settings

def f(x):
    chosen = {"n": 1} if x else {"seed": 2}
    SamplingParams(1, top_p=2)
    return LLM(**settings(x), d=1), SamplingParams(**chosen)
"""
    found = written(tmp_path, a=source, settings=settings)
    assert calls(found)["vllm.LLM"] == Call(0, ("d", "a", "b", "c"), open=True)
    assert [use.call for use in found if use.name == "vllm.SamplingParams" and use.call] == [
        Call(1, ("top_p",), open=False),
        Call(0, ("n", "seed"), open=True),
    ]


def test_methods_are_seen_on_what_a_constructor_returns(tmp_path):
    source = """
import ray
from vllm import LLM

class Model:
    def __init__(self):
        self._engine = LLM("m")
        llm = LLM("m")
        self._first, self._second = llm.first, llm.second

    def answer(self, prompts):
        ray.data.from_items(prompts).map(f, num_cpus=1)
        engine = LLM("m")
        engine.chat(tools=None)
        self._second.step(1)
        return self._engine.generate(prompts, use_tqdm=False)
"""
    found = calls(written(tmp_path, a=source))
    assert found["vllm.LLM().generate"] == Call(1, ("use_tqdm",), open=False)
    assert found["vllm.LLM().chat"] == Call(0, ("tools",), open=False)
    assert found["vllm.LLM().second.step"] == Call(1, (), open=False)
    assert found["ray.data.from_items().map"] == Call(1, ("num_cpus",), open=False)


def test_overrides_and_what_is_called_by_super_are_seen_through_our_own_classes(tmp_path):
    base = "from verl.x import Engine\nclass Ours(Engine):\n    pass\n"
    source = """
from omniq_verl.base import Ours

class More(Ours):
    def step(self, batch: dict, scale: float = 1.0, *, last=None) -> None:
        super().step(batch, scale=scale)
        self.finish(1)
"""
    found = written(tmp_path, a=source, base=base)
    assert [(use.name, use.method, use.call, use.ours) for use in found if use.method or use.call] == [
        ("verl.x.Engine().step", "batch, scale=..., *, last=...", None, True),
        ("verl.x.Engine().step", None, Call(1, ("scale",), open=False), False),
        ("verl.x.Engine().finish", None, Call(1, (), open=False), True),
    ]


def test_annotated_parameters_and_results_are_followed(tmp_path):
    opening = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from vllm import LLM

def open_model() -> "LLM":
    from vllm import LLM
    return LLM()
"""
    source = """
from omniq_verl.opening import open_model
from verl.x import Engine

class Model:
    def __init__(self):
        self._llm = open_model()

    def step(self, engine: Engine | None):
        self._llm.llm_engine.step(1)
        return engine.state
"""
    found = written(tmp_path, a=source, opening=opening)
    assert calls(found)["vllm.LLM().llm_engine.step"] == Call(1, (), open=False)
    assert "verl.x.Engine().state" in {use.name for use in found}


def test_the_module_given_to_an_import_hook_is_read(tmp_path):
    source = """
from omniq_verl.import_hooks import after_import

after_import("verl.utils.distributed", change)

def change(module):
    module.start = lambda: module.stop(1)
"""
    assert {use.name for use in written(tmp_path, a=source)} == {
        "verl.utils.distributed",
        "verl.utils.distributed.start",
        "verl.utils.distributed.stop",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("json", MODULE),
        ("json.dumps", "obj, *, skipkeys=..., ensure_ascii=..., check_circular=..., allow_nan=..., cls=..., indent=...,"
         " separators=..., default=..., sort_keys=..., **kw"),
        ("json.JSONEncoder().encode", "o"),
        ("json.JSONEncoder().nothing", ABSENT),
        ("json.nothing", ABSENT),
        ("json.decoder.WHITESPACE", VALUE),
        ("json.dumps().encode", UNKNOWN),
        ("uuid.SafeUUID", VALUE),
        ("pathlib.Path.cwd().joinpath", UNKNOWN),
        ("datetime.date.fromisoformat().isoformat", UNKNOWN),
        ("fractions.Fraction.from_float", "f"),
        ("builtins.min", UNREADABLE),
        ("xml.dom.minidom.parseString", "string, parser=..."),
    ],
)  # fmt: skip
def test_a_name_is_described_by_its_parameters(name, expected):
    assert describe(name) == expected


OBJECTS = """
class Part:
    def step(self, x, *, y=1):
        pass

def make_part() -> Part:
    return Part()

class Whole:
    declared: int
    direct: Part

    def __init__(self, part):
        self.part, self.made = part, make_part()
        self.direct = Part()
        self.again = self.direct

    @property
    def seen(self) -> Part:
        return self.direct

    @classmethod
    def from_nothing(cls) -> 'Whole':
        return cls(None)
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("direct", VALUE),
        ("direct.step", "x, *, y=..."),
        ("direct.nothing", ABSENT),
        ("again.step", "x, *, y=..."),
        ("seen.step", "x, *, y=..."),
        ("part", VALUE),
        ("part.step", UNKNOWN),
        ("declared", VALUE),
        ("nothing", ABSENT),
        ("from_nothing().direct.step", "x, *, y=..."),
    ],
)
def test_attributes_of_objects_are_found_without_creating_one(path, expected, tmp_path, monkeypatch):
    (tmp_path / "objects_of_a_test.py").write_text(OBJECTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "objects_of_a_test", raising=False)
    assert describe(f"objects_of_a_test.Whole().{path}") == expected


def test_a_module_that_fails_to_import_is_no_absent_name(tmp_path, monkeypatch):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package/__init__.py").write_text("")
    (tmp_path / "broken_package/part.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        describe("broken_package.part.name")


@pytest.mark.parametrize(
    ("call", "parameters", "problem"),
    [
        (Call(1, ("b",), open=False), "a, *, b", None),
        (Call(1, ("c",), open=False), "a, *, b=...", "got an unexpected keyword argument 'c'"),
        (Call(1, ("c",), open=False), "a, **kwargs", None),
        (Call(2, (), open=False), "a, *, b=...", "too many positional arguments"),
        (Call(0, (), open=False), "a", "missing a required argument: 'a'"),
        (Call(0, (), open=True), "a", None),
        (Call(0, ("a",), open=False), "a, /", "'a'"),
    ],
)
def test_a_call_is_compared_with_the_parameters(call, parameters, problem):
    found = call_problem(call, parameters)
    assert found is None if problem is None else problem in found


@pytest.mark.parametrize(
    ("ours", "upstream", "fits"),
    [
        ("batch", "batch", True),
        ("rows", "batch", False),
        ("batch", "batch, scale=...", False),
        ("batch, **kwargs", "batch, scale=...", True),
        ("batch, scale", "batch", False),
        ("batch, ours=...", "batch", True),
        ("scale, batch", "batch, scale", True),
        ("*args, **kwargs", "batch, *, scale", True),
        ("pixels", "*input", True),
    ],
)
def test_an_override_accepts_what_upstream_accepts(ours, upstream, fits):
    assert (override_problem(ours, upstream) is None) is fits

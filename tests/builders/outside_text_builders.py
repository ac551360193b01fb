"""A tiny model's processor, the texts that poison a question, and every way a text from outside comes in."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from doctor_builders import png, tiny_model
from evaluation_builders import RATER, grey
from rich.console import Console
from serving_builders import app, base64_of
from starlette.testclient import TestClient
from t2i_builders import PAINTER
from transformers import AutoProcessor

from data_prep import geneval as geneval_script
from omniq_verl.cot.verdict import judge_path
from omniq_verl.data.rows import Row
from omniq_verl.doctor.prompt_length import PromptLength
from omniq_verl.doctor.rows import check_row
from omniq_verl.doctor.sft import check_sft_row
from omniq_verl.evaluation.answers import read_reasoning
from omniq_verl.evaluation.heatmap import answer_ids, asked_messages, question_inputs
from omniq_verl.generation.chat_inputs import question_text
from omniq_verl.generation.request import Answer, Request
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.preparation.build import BuildOptions, Item, Source, prepare
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.scoring.scorer import Scorer
from omniq_verl.t2i.best_of_n import BestOfN
from omniq_verl.t2i.generator import GeneratorSpec
from omniq_verl.t2i.geneval import read_prompts
from omniq_verl.t2i.prompts import read_texts
from omniq_verl.t2i.rewriting import read_rewrite
from omniq_verl.tasks import ALIGNMENT, TECHNICAL


@cache
def model_folder() -> Path:
    return tiny_model(Path(mkdtemp()) / "model")


@cache
def processor() -> Any:
    return AutoProcessor.from_pretrained(model_folder())


@cache
def lengths() -> PromptLength:
    return PromptLength(processor())


@cache
def client() -> TestClient:
    return TestClient(app(), raise_server_exceptions=False)


def poisoned(record: dict[str, Any], text: str) -> dict[str, Any]:
    """A prepared row whose question somebody has changed."""
    turns = [{**turn, "content": turn["content"] + text} for turn in record["prompt"]]
    return {**record, "prompt": turns}


def sound_record(number: int = 0) -> dict[str, Any]:
    row = Row("made", f"made/{number}", "technical", "test", 3.0, 3.0, (1.0, 5.0))
    return row.record(number, png(64, 64))


def _lines(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


# What each says of a text: None if it takes it, else why not.


def _raised(call: Callable[[], Any]) -> str | None:
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


def _reject(text: str, folder: Path) -> str | None:
    (folder / "a.png").write_bytes(png(64, 64))
    items = [Item("a.png", "train", 3.0, text=text)]
    source = Source("made", "alignment", items, LabelMap(1.0, 5.0, "made"))
    prepare(source, FileIndex(folder), folder / "out", BuildOptions(), Console(quiet=True))
    lines = (folder / "out" / "rejects.jsonl").read_text("utf-8").split("\n")
    return json.loads(lines[0])["reason"] if lines[0] else None


def _score_of_several(text: str, _folder: Path) -> str | None:
    first, second, third = Scorer("", engine=RATER).score([grey(0), grey(99), grey(200)], "alignment", ["x", text, "y"])
    assert first.ok and third.ok
    return None if second.ok else f"{second.status}: {second.error}"


def _server(prompt: Any, images: int) -> Any:
    words = {"images": [base64_of(grey(9))] * images, "task": "alignment", "prompt": prompt}
    return client().post("/v1/score", json=words)


def _server_of_several(text: str, _folder: Path) -> str | None:
    first, second = (one["scores"]["alignment"] for one in _server(["x", text], 2).json()["results"])
    assert first["status"] == "ok"
    return None if second["status"] == "ok" else second["error"]


def _fault(faults: list[Any]) -> str | None:
    return str(faults[0]) if faults else None


def _sft(text: str, _folder: Path) -> str | None:
    turns = [*TECHNICAL.messages("a"), {"role": "assistant", "content": f"<think>{text}</think><answer>3</answer>"}]
    record = {"messages": turns, "images": [{"bytes": png(64, 64)}], "extra_info": {"id": "a"}}
    return _fault(check_sft_row(record, lengths(), 10_000)[0])


def _best_of_n(text: str, folder: Path) -> BestOfN:
    return BestOfN([{"prompt": text}], folder, GeneratorSpec(PAINTER), EngineSpec("", RATER))


def _geneval(read: Callable[[Path], Any]) -> Callable[[str, Path], str | None]:
    def entrance(text: str, folder: Path) -> str | None:
        line = json.dumps({"prompt": text, "tag": "colors", "include": [{"class": "cat"}]})
        return _raised(lambda: read(_lines(folder, "metadata.jsonl", line)))

    return entrance


def _status(status: str) -> str | None:
    return None if status == "ok" else status


ENTRANCES: dict[str, Callable[[str, Path], str | None]] = {
    "a data set's caption": _reject,
    "a row's text": lambda text, _: _raised(lambda: Row("d", "a", "technical", "test", 3.0, text=text)),
    "a task's question": lambda text, _: _raised(lambda: ALIGNMENT.messages("a", text)),
    "Scorer, one prompt": lambda text, _: _raised(lambda: Scorer("", engine=RATER).score(grey(9), "alignment", text)),
    "Scorer, a prompt each": _score_of_several,
    "server, one prompt": lambda text, _: _server(text, 1).json().get("detail"),
    "server, a prompt each": _server_of_several,
    "a request": lambda text, _: _raised(
        lambda: Request("a", [{"role": "user", "content": f"<image>{text}"}], (b"x",))
    ),
    "a role": lambda text, _: _raised(lambda: Request("a", [{"role": text, "content": "x"}])),
    "a prepared row, at the engine": lambda text, _: _raised(
        lambda: question_text(processor(), poisoned(sound_record(), text)["prompt"], 1)
    ),
    "a prepared row, at the doctor": lambda text, _: _fault(
        check_row(poisoned(sound_record(), text), lengths(), 10_000)[0]
    ),
    "the same without a tokenizer": lambda text, _: _fault(check_row(poisoned(sound_record(), text), None, 1)[0]),
    "a conversation, at the doctor": _sft,
    "prompts.txt": lambda text, folder: _raised(lambda: read_texts(_lines(folder, "p.txt", text))),
    "prompts.jsonl": lambda text, folder: _raised(
        lambda: read_texts(_lines(folder, "p.jsonl", json.dumps({"prompt": text})))
    ),
    "best of n": lambda text, folder: _raised(lambda: _best_of_n(text, folder)),
    "GenEval's prompts": _geneval(read_prompts),
    "data_prep/geneval.py": _geneval(geneval_script.read),
    "a prompt written anew": lambda text, _: _status(read_rewrite(Answer(f"<prompt>{text}</prompt>"), 1000).status),
    "reasoning of cot": lambda text, _: (
        judge_path(
            {"text": f"<think>so {text} it is</think><answer>good</answer>", "finish_reason": "stop"}, "good"
        ).fault
    ),
    "texts of RACT and RALI": lambda text, _: _status(
        read_reasoning(f"<think>so {text} it is</think><answer>3</answer>", "stop", TECHNICAL)[0]
    ),
    "heat map, a question": lambda text, _: _raised(
        lambda: question_inputs(processor(), asked_messages("technical", None, text), png(64, 64))
    ),
    "heat map, a prompt": lambda text, _: _raised(lambda: asked_messages("alignment", text, None)),
    "heat map, an answer": lambda text, _: _raised(lambda: answer_ids(processor(), f"{text} it is")),
}

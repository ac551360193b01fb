"""Texts: lists of prompts, GenEval's prompts, prompts of a scored image, and models' answers."""

import json
import math
from pathlib import Path
from random import Random

from evaluation_builders import RATER, grey
from fuzz.mutation import TEXTS, Files, encoded, mutated_json, mutated_text
from fuzz.rules import Wrong, check, one_line

from omniq_verl import Scorer
from omniq_verl.generation.request import Answer
from omniq_verl.rewards import Status, parse_response
from omniq_verl.scoring.comparison import read_choice
from omniq_verl.scoring.scorer import summarise
from omniq_verl.t2i.geneval import TAGS, read_prompts
from omniq_verl.t2i.prompts import read_texts
from omniq_verl.tasks import IMAGE_TASKS, Scale

_PROMPTS = ("a cat", "two red dogs on a bench", "a photo of a caf\u00e9, at night", "eine Katze", "一只猫", *TEXTS)
_ANSWERS = (
    "<think>sharp</think><answer>3.50</answer>",
    '<think>dark</think><answer>{"distortion_class": "noise", "severity": "slight"}</answer>',
    '<answer>{"rating": 4.2}</answer>',
    "<think>the first is sharper</think><answer>Image A</answer>",
    "<answer>Image B is better.</answer>",
    "<answer>5</answer>",
)
_SCALE = Scale(1, 5)
_scorer = Scorer("", RATER)
_IMAGE = grey(51)


def make(rng: Random) -> Files:
    kind = rng.choice(("list", "geneval", "prompt", "answer"))
    if kind == "answer":
        text = mutated_text(rng, rng.choice(_ANSWERS))
        return {"answer": text.encode("utf-8", "surrogatepass")}
    if kind == "prompt":
        return {"prompt": mutated_text(rng, rng.choice(_PROMPTS)).encode("utf-8", "surrogatepass")}
    texts = [rng.choice(_PROMPTS) for _ in range(rng.choice((1, 2, 3, 6)))]
    if kind == "geneval":
        lines = [
            {"tag": rng.choice([*TAGS, "x"]), "prompt": text, "include": [{"class": "cat", "count": 1}]}
            for text in texts
        ]
        return {"geneval.jsonl": _lines(rng, lines)}
    ending = rng.choice((".txt", ".jsonl", ".TXT", ".JSONL", ".json", ".csv", ".tsv"))
    lines = [{"prompt": text, "tag": "x"} for text in texts]
    data = _lines(rng, lines) if "json" in ending.lower() else encoded(rng, mutated_text(rng, "\n".join(texts)))
    return {f"prompts{ending}": data}


def _lines(rng: Random, objects: list[dict]) -> bytes:
    objects = [mutated_json(rng, one) if rng.random() < 0.3 else one for one in objects]
    text = "\n".join(json.dumps(one, ensure_ascii=rng.random() < 0.5) for one in objects)
    return encoded(rng, mutated_text(rng, text) if rng.random() < 0.4 else text)


def run(files: Files, folder: Path) -> str:
    """The outcome, once it is what such a text may come to."""
    ((name, data),) = files.items()
    if name == "answer":
        return _run_answer(data.decode("utf-8", "surrogatepass"))
    if name == "prompt":
        return _run_prompt(data.decode("utf-8", "surrogatepass"))
    path = folder / name
    path.write_bytes(data)
    read = read_prompts if name.startswith("geneval") else read_texts
    try:
        found = read(path)
    except ValueError as error:
        check(name in one_line(error), f"the file is not named: {error}")
        return "list rejected"
    check(
        0 < len(found) <= data.count(b"\n") + data.count(b"\r") + 1,
        f"{len(found)} prompts of {data.count(10) + 1} lines",
    )
    mark = "\ufeff".encode()
    if data.startswith(mark) and data.count(mark) == 1 and name.lower().endswith(".txt"):
        check("\ufeff" not in found[0]["prompt"], "a byte order mark became part of a prompt")
    for one in found:
        check(isinstance(one["prompt"], str) and bool(one["prompt"].strip()), f"prompt {one['prompt']!r}")
        check("\n" not in one["prompt"] or name.lower().endswith(".jsonl"), f"two lines in {one['prompt']!r}")
    return "list accepted"


def _run_prompt(text: str) -> str:
    """With a prompt an image is scored, or the prompt is rejected by name; it never costs the call."""
    try:
        score = _scorer.score(_IMAGE, task="alignment", prompt=text)
    except ValueError as error:
        one_line(error)
        return "prompt rejected"
    check(score.status in ("ok", "error", "bad_image", "bad_prompt"), f"status {score.status}")
    check(score.ok == (score.score is not None), f"{score}")
    check(not score.ok or abs(score.score - 1.8) < 0.01, f"the prompt moved the score to {score.score}")
    return f"prompt {score.status}"


def _run_answer(text: str) -> str:
    for form in ("number", "json", "choice"):
        parsed = parse_response(text, form, _SCALE if form == "number" else None)
        check(isinstance(parsed.status, Status), f"status {parsed.status}")
        if parsed.ok and form == "number":
            check(parsed.score is not None and 1 <= parsed.score <= 5, f"score {parsed.score}")
        if parsed.score is not None:
            check(math.isfinite(parsed.score), f"score {parsed.score}")
    check(read_choice(Answer(text)) in (None, "first", "second"), "a choice of neither")
    outcomes = set()
    for name, task in IMAGE_TASKS.items():
        score = summarise("x", task, [Answer(text)])
        if score.ok and task.scale and not task.scale.contains(score.score):
            raise Wrong(f"{name}: score {score.score}")
        outcomes.add(score.ok)
    return "answer read" if True in outcomes else "answer unreadable"

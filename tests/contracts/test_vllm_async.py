"""A real vLLM engine in its own process: rejected questions, answers, and what happens when the process is killed."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from generation_builders import png

from omniq_verl.families.family import read_strictly
from omniq_verl.generation.direct import score_texts
from omniq_verl.generation.request import Piece, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.transformers_model import TransformersModel
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

pytestmark = pytest.mark.slow

SCRIPT = """
import asyncio, json, sys, time
import psutil
from dataclasses import asdict, replace
from generation_builders import png
from omniq_verl.generation.direct import score_texts
from omniq_verl.generation.request import Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.vllm_async import AsyncModel
from omniq_verl.tasks import TECHNICAL

def question(text="", seed=0):
    return Request("a", [{"role": "user", "content": TECHNICAL.messages(None)[0]["content"] + text}], (png(seed, 80),))

async def error_of(awaited):
    try:
        await asyncio.wait_for(awaited, 60)
    except Exception as error:
        return [type(error).__name__, str(error)]

async def main():
    model = AsyncModel(EngineSpec(sys.argv[1], dtype="float32", max_model_len=192, memory=0.2))
    sampling = Sampling(max_tokens=12)
    asked = [model.answer(question(seed=seed), sampling) for seed in range(4)]
    rejected = error_of(model.answer(question(" word" * 4000), sampling))
    broken = error_of(model.answer(Request("b", question().messages, (b"no image",)), sampling))
    *answers, found_rejected, found_broken = await asyncio.gather(*asked, rejected, broken)
    found = {"answers": [[one.finish_reason, one.tokens] for (one,) in answers], "rejected": found_rejected}
    found |= {"broken": found_broken, "alive": await error_of(model.check())}
    told = []
    written = await model.write(question(), sampling, told.append)
    found["written"] = [written[0].text, written[0].tokens, (await model.answer(question(), sampling))[0].text]
    found["told"] = [[piece.text, piece.surprise, piece.entropy] for piece in told]
    direct = replace(question(), texts=score_texts(TECHNICAL))
    found["direct"] = [asdict(one) for one in await model.answer(direct, sampling)]
    left = asyncio.ensure_future(model.write(question(), Sampling(max_tokens=100), told.append))
    before = len(told)
    while len(told) == before:
        await asyncio.sleep(0.01)
    left.cancel()
    await asyncio.sleep(0.5)
    found["unfinished"] = model._engine.output_processor.get_num_unfinished_requests()
    # Far more than a fast machine answers before the engine is killed.
    long = asyncio.ensure_future(error_of(model.answer(question(), Sampling(n=1024, temperature=1.0, max_tokens=80))))
    await asyncio.sleep(0.2)
    assert not long.done()
    for child in psutil.Process().children():
        child.kill()
    found |= {"killed": await long, "next": await error_of(model.answer(question(), sampling))}
    found["dead"] = await error_of(model.check())
    print(json.dumps(found))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("async")
    save_tiny_model(folder / "model", list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    (folder / "script.py").write_text(SCRIPT)
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (tests / "builders", tests.parent)))
    environment = {**os.environ, "PYTHONPATH": path, "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [sys.executable, str(folder / "script.py"), str(folder / "model")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-3000:]
    return {**json.loads(lines[-1]), "model": str(folder / "model")}


def test_questions_are_answered_and_a_rejected_one_is_a_value_error(found):
    assert all(finish_reason in ("stop", "length") and tokens > 0 for finish_reason, tokens in found["answers"])
    assert found["rejected"][0] == "ValueError" and "192" in found["rejected"][1]
    assert found["broken"][0] == "ValueError" and "decode" in found["broken"][1]
    assert found["alive"] is None


def test_an_answer_that_is_shown_is_the_plain_one_and_its_figures_are_those_of_transformers(found):
    text, tokens, plain = found["written"]
    assert text == plain == "".join(part for part, _, _ in found["told"])
    assert all(entropy is None for _, _, entropy in found["told"])
    model = TransformersModel(EngineSpec(found["model"], "hf", dtype="float32", max_model_len=192))
    told: list[Piece] = []
    messages = [{"role": "user", "content": TECHNICAL.messages(None)[0]["content"]}]
    request, sampling = Request("a", messages, (png(0, 80),)), Sampling(max_tokens=12)
    assert model.write(request, sampling, told.append, threading.Event())[0].text == text
    ours = [surprise for _, surprises, _ in found["told"] for surprise in surprises]
    theirs = [surprise for piece in told for surprise in piece.surprise]
    assert 3 <= len(ours) <= tokens and ours == pytest.approx(theirs, abs=1e-3)
    (direct,) = found["direct"]
    (expected,) = model.answer([replace(request, texts=score_texts(TECHNICAL))], sampling)[0]
    mean, reference = (read_strictly(one, TECHNICAL).score for one in (direct["text"], expected.text))
    assert mean == pytest.approx(reference, abs=1e-3)
    assert direct["outside"] == pytest.approx(expected.outside, abs=1e-3)


def test_a_reader_who_leaves_ends_the_writing(found):
    assert found["unfinished"] == 0


def test_a_killed_engine_is_a_runtime_error_for_everybody(found):
    for who in ("killed", "next", "dead"):
        assert found[who][0] == "RuntimeError", found[who]

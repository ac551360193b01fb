"""The demo's page in a browser, and a server in one process."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from evaluation_builders import Rater
from fastapi import Request as HttpRequest
from fastapi.responses import HTMLResponse
from serving_builders import DirectRater, Greys, Writer, app, base64_of, free_port, grey, listening
from starlette.testclient import TestClient
from typer.testing import CliRunner

from omniq_verl.cli import app as omniq
from omniq_verl.generation.request import Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.serving.in_process import InThread, in_process_app
from omniq_verl.serving.settings import ServerSettings, key_digest

PHONE = 390
browser = pytest.mark.skipif(not shutil.which("chromium"), reason="there is no browser")
PROBE = """<iframe id=f src=/demo width=%d height=2400></iframe>
<!-- The picture keeps this page loading until it has sent what it found. --><img src=/wait><script>
const sent = %s, pause = () => new Promise(done => setTimeout(done, 50));
const bytes = text => Uint8Array.from(atob(text), one => one.charCodeAt(0));
f.onload = async () => {
  const page = f.contentDocument, moved = new f.contentWindow.DataTransfer();
  for (let n = 0; n < 200 && !page.getElementById("task").options.length && !page.querySelector(".fault"); n++)
    await pause();
  for (const [name, type, data] of sent.files) moved.items.add(new f.contentWindow.File([bytes(data)], name, {type}));
  page.getElementById("files").files = moved.files;
  page.getElementById("files").dispatchEvent(new f.contentWindow.Event("change"));
  if (sent.task) {
    page.getElementById("task").value = sent.task;
    page.getElementById("task").dispatchEvent(new f.contentWindow.Event("change"));
    page.getElementById("prompt").value = sent.prompt;
  }
  if (!page.getElementById("ask").disabled) {
    if (sent.way) page.getElementById("way").value = sent.way;
    page.getElementById("ask").click();
    for (let n = 0; n < 200 && !sent.stop && page.getElementById("ask").disabled; n++) await pause();
  }
  if (sent.stop) {
    for (let n = 0; n < 200 && page.getElementById("stop").hidden; n++) await pause();
    for (let n = 0; n < 200 && page.querySelectorAll(".text span").length < 3; n++) await pause();
    page.getElementById("stop").click();
    for (let n = 0; n < 200 && page.getElementById("ask").disabled; n++) await pause();
  }
  const past = [...page.body.querySelectorAll("*")].filter(one => one.getBoundingClientRect().right > %d + 1);
  await fetch("/found", {method: "POST", body: JSON.stringify({
    text: page.body.innerText, width: page.documentElement.scrollWidth,
    past: past.map(one => one.tagName), bold: page.querySelectorAll("b").length,
    locked: page.getElementById("locked").hidden, ways: page.getElementById("ways").hidden,
    tokens: [...page.querySelectorAll(".text span")].map(one => [one.textContent, one.style.backgroundColor, one.title])
  })});
};
</script>"""


def shown(files, asgi=None, picture="", **words) -> dict:
    """What the page shows after these files were chosen and the model was asked; ``picture`` gets a screenshot."""
    asgi, found, there = asgi or app(), [], asyncio.Event()
    sent = {"files": [(name, kind, base64_of(data)) for name, kind, data in files], **words}
    probe = PROBE % (PHONE, json.dumps(sent).replace("<", "\\u003c"), PHONE)
    asgi.get("/probe")(lambda: HTMLResponse(probe))

    @asgi.post("/found")
    async def take(request: HttpRequest) -> None:
        found.append(await request.json())
        there.set()

    @asgi.get("/wait")
    async def wait() -> None:
        await asyncio.wait_for(there.wait(), 60)

    after = f"--screenshot={picture}" if picture else "--dump-dom"  # once the page has loaded
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", after]
    with listening(asgi) as url:
        size = f"--window-size={PHONE + 30},2000"
        done = subprocess.run(
            [*command, size, f"{url}/probe"], capture_output=True, text=True, timeout=120, check=False
        )
    assert found, done.stderr[-2000:]
    return found[0]


@browser
def test_two_images_are_scored_and_compared_in_both_orders_on_a_phone():
    long = "a_name_without_a_blank_" * 6 + "<b>.png"
    found = shown([("dark.png", "image/png", grey(0)), (long, "image/png", grey(255))])
    assert "1.00" in found["text"] and "5.00" in found["text"] and "excellent, on a scale from 1 to 5" in found["text"]
    assert "its brightness is 1.00" in found["text"] and f"Better: {long}" in found["text"]
    assert f"Shown dark.png first, {long} second:" in found["text"]
    assert f"Shown {long} first, dark.png second:" in found["text"]
    assert found["width"] <= PHONE and found["past"] == [] and found["bold"] == 0


@browser
@pytest.mark.parametrize(
    ("files", "words", "said"),
    [
        ([("notes.txt", "text/plain", b"words")], {}, "notes.txt is not an image"),
        ([("a.png", "image/png", b"words")], {}, "This file cannot be read as an image"),
        ([("a.png", "image/png", grey(0))] * 3, {}, "Choose one or two images, not 3"),
        ([("a.png", "image/png", grey(0))], {"task": "alignment", "prompt": ""}, "Write the text"),
        ([("a.png", "image/png", grey(0))], {"task": "alignment", "prompt": "a <|im_end|>"}, "control token"),
        ([("a.png", "image/png", grey(0))], {"task": "alignment", "prompt": "a fox"}, "bad, on a scale from 1 to 5"),
        ([("a.png", "image/png", grey(0))], {"task": "degradation", "prompt": ""}, "Distortion: noise, slight"),
    ],
)
def test_faults_and_other_tasks_are_shown_in_words(files, words, said):
    assert said in shown(files, **words)["text"]


@browser
def test_an_answer_is_shaded_by_the_entropies_of_its_tokens_or_else_by_their_surprise():
    one = [("a.png", "image/png", grey(0))]
    found = shown(one, app(rater=Writer))
    words = ["<think>its ", "brightness ", "is ", "0.00</think><answer>1.00</answer>"]
    shades = [f"rgba(214, 110, 0, {share})" for share in ("0", "0.05", "0.1", "0.15")]
    titles = [f"entropy {nats} nats" for nats in ("0.00", "0.25", "0.50", "0.75")]
    assert found["tokens"] == [list(token) for token in zip(words, shades, titles, strict=True)]
    assert "Shading: the entropy of each token" in found["text"] and "1.00\n\nbad, on a scale" in found["text"]
    found = shown(one, app("surprise", rater=Writer))
    assert found["tokens"][-1][2] == "surprise 1.50 nats" and "entropy" not in found["text"]
    assert "minus the logarithm of its probability" in found["text"]


@browser
def test_the_stop_button_ends_the_writing_on_the_page_and_in_the_engine():
    asgi = app("endless", rater=Writer)
    found = shown([("a.png", "image/png", grey(0))], asgi, stop=True)
    assert "Stopped." in found["text"] and len(found["tokens"]) >= 3
    server = asgi.state.server
    assert server.models.scorer.engine.left.wait(60) and server.admission.taken == 0


@browser
@pytest.mark.parametrize(
    ("way", "said"),
    [
        (
            "both",
            "1.00\n\nbad, on a scale from 1 to 5\n\nWithout reasoning: 3.00 \u00b1 2.00; 12.5% outside of the scale",
        ),
        ("direct", "3.00\n\nfair, on a scale from 1 to 5\n\nWithout reasoning \u00b1 2.00; 12.5% outside of the scale"),
        ("rali", "1.00\n\non a scale from 1 to 5\n\nstatus: ok"),
    ],
)
def test_the_way_to_answer_can_be_chosen_where_there_are_several(way, said):
    found = shown([("a.png", "image/png", grey(0))], app(rater=DirectRater, rali=Greys()), way=way)
    assert said in found["text"] and not found["ways"] and found["past"] == []


@browser
def test_a_key_is_asked_for_and_a_dead_engine_is_named():
    image = [("a.png", "image/png", grey(0))]
    found = shown(image, app(keys=frozenset({key_digest("right")})))
    assert "API key" in found["text"] and not found["locked"]
    assert "The server rejected the request" in shown(image, app("dead"))["text"]


def test_the_page_needs_no_key_and_nothing_from_elsewhere():
    found = TestClient(app(keys=frozenset({key_digest("right")}))).get("/demo")
    assert found.status_code == 200 and "default-src 'none'" in found.headers["content-security-policy"]
    assert "http" not in found.text and "innerHTML" not in found.text


def test_a_model_in_this_process_answers_as_a_server_and_in_order():
    settings = ServerSettings(EngineSpec("", "evaluation_builders:Rater"), local=True)
    client = TestClient(in_process_app(settings), client=("127.0.0.1", 5))
    found = client.post("/v1/score", json={"images": [base64_of(grey(value)) for value in (0, 255)]}).json()["results"]
    assert [one["scores"]["technical"]["score"] for one in found] == [1.0, 5.0]
    assert client.get("/readyz").status_code == 200
    rejected = TestClient(in_process_app(settings), client=("203.0.113.9", 5)).get("/demo")
    assert rejected.status_code == 403


def test_other_work_goes_on_while_the_engine_answers():
    class Slow(Rater):
        def answer(self, requests, sampling):
            time.sleep(0.2)
            return super().answer(requests, sampling)

    async def both() -> int:
        request = Request("a", [{"role": "user", "content": "<image>"}], (grey(0),))
        asked, steps = asyncio.ensure_future(InThread(Slow(EngineSpec(""))).answer(request, Sampling())), 0
        while not asked.done():
            await asyncio.sleep(0.01)
            steps += 1
        assert "<answer>1.00</answer>" in asked.result()[0].text
        return steps

    assert asyncio.run(both()) > 3


class Sleeper:
    """An engine whose answer nobody lives to see."""

    def __init__(self, _spec):
        pass

    def answer(self, _requests, _sampling):
        print("asked", flush=True)
        time.sleep(60)


@pytest.mark.parametrize("ignored", [False, True], ids=["foreground", "background job of a script"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_in_the_middle_of_an_answer(number, ignored):
    port = free_port()
    code = (
        "from omniq_verl.generation.spec import EngineSpec; from omniq_verl.serving.in_process import *;"
        "settings = ServerSettings(EngineSpec('', 'serving.test_demo:Sleeper'));"
        f"run_app(in_process_app(settings), '127.0.0.1', {port}, lambda: print('ready', flush=True))"
    )
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests / "builders"), str(tests)])}
    words = [sys.executable, "-c", code]
    # A shell without a terminal starts its background jobs with SIGINT ignored.
    inherited = partial(signal.signal, signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=inherited) as process:
        assert process.stdout.readline() == "ready\n"
        sent = json.dumps({"images": [base64_of(grey(0))]}).encode()
        asked = socket.create_connection(("127.0.0.1", port))
        head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
        asked.sendall(head.encode() + b"\r\n\r\n" + sent)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        try:
            assert process.wait(20) == -number
        finally:
            process.kill()
            asked.close()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--model", "./none"), 1, "./none"),
        (("--model", "./none", "--engine", "openai"), 1, "use hf or vllm"),
        (("--model", "./none", "--memory", "0.5"), 2, "--memory has no effect"),
    ],
)
def test_a_demo_that_cannot_start_says_why(words, code, said):
    found = CliRunner().invoke(omniq, ["demo", *words], env={"COLUMNS": "200", "TERM": "dumb"})
    assert found.exit_code == code and said in found.output, found.output

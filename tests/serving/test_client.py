"""The server's client, and rewards by it: what it sends, and that it asks again."""

import asyncio
import inspect
import io
import time

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from serving_builders import app, free_port, grey, listening, server

from omniq_verl.scoring.comparison import Comparer
from omniq_verl.scoring.scorer import Scorer
from omniq_verl.serving.app import build_app
from omniq_verl.serving.client import Client, ServerError
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.reward_client import ServerReward, compute_score, lossless
from omniq_verl.serving.settings import key_digest
from omniq_verl.tasks import SCALES

RATER, CHOOSER = "evaluation_builders:Rater", "evaluation_builders:Chooser"


@pytest.fixture(scope="module")
def url():
    with listening(app()) as address:
        yield address


class Rejecting:
    """An application that answers some requests with a status before it lets them through."""

    def __init__(self, inner, statuses):
        self.inner, self.left, self.times = inner, list(statuses), []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["method"] == "POST":
            self.times.append(time.monotonic())
            if self.left:
                status = self.left.pop(0)
                head = [(b"retry-after", b"0"), (b"content-length", b"0")]
                await send({"type": "http.response.start", "status": status, "headers": head})
                await send({"type": "http.response.body", "body": b""})
                return
        await self.inner(scope, receive, send)


@pytest.mark.parametrize("task", ["technical", ["technical", "degradation"]])
@pytest.mark.parametrize("samples", [1, 3])
def test_it_says_what_the_scorer_says(url, tmp_path, task, samples):
    (path := tmp_path / "a.png").write_bytes(grey(30))
    pixels = np.full((16, 16, 3), 90, np.uint8)
    images = [path, grey(200), Image.fromarray(pixels), pixels, b"none", tmp_path / "missing.png"]
    expected = Scorer("", RATER).score(images, task, samples=samples)
    assert Client(url).score(images, task, samples=samples) == expected
    assert Client(url).score(images[1], task) == Scorer("", RATER).score(images[1], task)


def test_it_compares_as_the_comparer_does(url):
    pairs, references = [(grey(0), grey(9)), (grey(7), grey(7)), (grey(1), b"")], [grey(1), grey(2), grey(3)]
    assert Client(url).compare(pairs) == Comparer("", CHOOSER).compare(pairs)
    assert Client(url).compare(pairs, references) == Comparer("", CHOOSER).compare(pairs, references)
    with pytest.raises(ValueError, match="2 references for 3 pairs"):
        Client(url).compare(pairs, references[:2])


def test_a_prompt_for_each_image_is_its_own(url):
    assert [score.task for score in Client(url).score([grey(0)] * 2, "alignment", ["a", "b"])] == ["alignment"] * 2
    with pytest.raises(ValueError, match="1 prompts for 2 images"):
        Client(url).score([grey(0)] * 2, "alignment", ["a"])


@pytest.mark.parametrize("statuses", [[429, 503], [500], [502, 504]])
def test_what_passes_is_asked_again(statuses):
    with listening(rejecting := Rejecting(app(), statuses)) as url:
        assert Client(url).score(grey(255)).score == 5.0
    assert len(rejecting.times) == len(statuses) + 1


def test_patience_ends():
    with (
        listening(Rejecting(app(), [503] * 100)) as url,
        pytest.raises(ServerError, match=r"no answer in 1 s .*HTTP 503"),
    ):
        Client(url, patience=1).score(grey(0))
    with pytest.raises(ServerError, match="no answer in 0"):
        Client(url, patience=0.5).score(grey(0))  # nobody is there any more


def test_a_rejection_is_final_and_says_why(url):
    with pytest.raises(ServerError, match=r"422: .*unknown task 'beauty'"):
        Client(url).score(grey(0), "beauty")


def test_a_key_is_sent():
    with listening(app(keys=frozenset({key_digest("right")}))) as url:
        assert Client(url, key="right").score(grey(0)).ok
        assert Client(url, key="right\n").score(grey(0)).ok  # as it was read from a file
        with pytest.raises(ServerError, match="401"):
            Client(url, key="wrong").score(grey(0))
    with pytest.raises(ValueError, match="the API key has characters that no HTTP header can carry"):
        Client(url, key="schl\u00fcssel")


def test_a_key_is_sent_whatever_the_users_netrc_says_of_the_host(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with listening(app(keys=frozenset({key_digest("right")}))) as url:
        assert Client(url, key="right").score(grey(0)).ok


def test_a_proxy_is_not_asked_for_this_machine_and_named_for_others(url, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Client(url).score(grey(0)).ok
    with pytest.raises(ServerError, match=r"reached by a proxy .http_proxy.*set no_proxy=example\.com"):
        Client("http://example.com", patience=0.5).score(grey(0))


async def another_service(scope, receive, send):
    """Answers 200 to everything, as the page of a proxy or another program at the port does."""
    if scope["type"] == "http":
        json = scope["path"].startswith("/json")
        head = [(b"content-type", b"application/json" if json else b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"{}" if json else b"<html>welcome</html>"})


@pytest.mark.parametrize("path", ["", "/json"])
def test_an_answer_of_another_service_is_no_score(path):
    words = r"the answer is not that of omniq serve.*Fix: correct the address, http://HOST:PORT"
    with listening(another_service) as address:
        with pytest.raises(ServerError, match=words):
            Client(address + path).score(grey(0))
        with pytest.raises(ServerError, match=words):
            Client(address + path).compare([(grey(0), grey(9))])


@pytest.mark.parametrize(
    "wrong", ["localhost:8000", "127.0.0.1:8000", "http://", "http://[::1", "ftp://host", "http://a b"]
)
def test_what_is_no_address_is_said_before_anything_is_sent(wrong):
    with pytest.raises(ValueError, match=r"is no address of a server. Fix: write it as http://HOST:PORT"):
        Client(wrong)


def test_the_path_of_another_api_is_named(url):
    assert Client(f" {url}/ ").score(grey(0)).ok
    with pytest.raises(ServerError, match=r"404.*Fix: correct the address, http://HOST:PORT, without a path"):
        Client(f"{url}/v1").score(grey(0))


def test_a_prompt_that_cannot_be_sent_costs_its_own_image_alone(url):
    asked = ([grey(0), grey(255)], "alignment", ["half \ud800", "whole"])
    found = Client(url).score(*asked)
    assert [one.status for one in found] == ["error", "ok"] and "half a character" in found[0].error


def test_many_clients_at_a_server_with_little_room_lose_nothing():
    made = server("slow", Limits(images=2, waiting=2))
    values = [value % 256 for value in range(60)]
    with listening(build_app(made)) as url:
        found = Client(url, at_once=16).score([grey(value) for value in values])
    assert [score.score for score in found] == [round(1 + 4 * value / 255, 2) for value in values]
    assert made.admission.taken == 0


def test_rewards_are_shares_of_the_scale_and_unread_ones_as_told(url):
    prompts = ["a", "b", "c"]
    assert ServerReward(url)([grey(0), grey(255), b"none"], prompts) == [0.0, 1.0, 0.0]
    assert ServerReward(url, unread=0.25)(prompts=["a"], images=[b"none"], step=3) == [0.25]
    with pytest.raises(RuntimeError, match="image 0 has no score"):
        ServerReward(url, unread=None)([b"none"], ["a"])
    for unread in (float("nan"), float("inf"), -0.1):  # NaN would become every weight of the trained model
        with pytest.raises(ValueError, match=r"unread is .*Fix: use a number from 0, or None"):
            ServerReward(url, unread=unread)
    with pytest.raises(ValueError, match=r"gives no score\. Fix"):
        ServerReward(url, "degradation")


@pytest.mark.parametrize("shown", ["a text of a language model", [{"role": "assistant"}], {"seed": 1}, None])
def test_what_is_no_image_is_no_reward_of_zero(url, shown):
    with pytest.raises(TypeError, match=r"images\[1\] is .*, not a PIL image"):
        ServerReward(url)([grey(0), shown], ["a", "b"])


def test_a_server_on_another_scale_asks_and_answers_on_it():
    made = server("0-5", scale=SCALES["0-5"])
    with listening(build_app(made)) as url:
        known = {one["name"]: one for one in requests.get(f"{url}/v1/tasks").json()["tasks"]}
        assert (known["technical"]["low"], known["technical"]["high"], known["degradation"]["low"]) == (0.0, 5.0, None)
        client = Client(url)
        assert client.score(grey(0)).score == 0.0  # which would be out of range on 1-5
        assert ServerReward(url, "technical", scale=SCALES["0-5"])([grey(51), grey(255)]) == [pytest.approx(0.2), 1.0]
        image = torch.full((3, 16, 16), 51)
        found = asyncio.run(compute_score(image, "", server_url=url, task="technical", scale="0-5"))
        assert found == {"score": pytest.approx(0.2), "omniq_parsed": 1.0}
    with listening(build_app(server("0-5"))) as url:
        assert Client(url).score(grey(0)).status == "out_of_range"


def test_images_may_come_one_by_one(url):
    assert ServerReward(url, "technical")(grey(value) for value in (0, 255)) == [0.0, 1.0]


def test_verl_omnis_reward_sends_the_pixels_as_they_are(url):
    image = torch.full((3, 16, 16), 51, dtype=torch.uint8)
    found = asyncio.run(compute_score(image, "a cat", server_url=url, data_source="x", extra_info={}))
    assert found == {"score": pytest.approx(0.2), "omniq_parsed": 1.0}


def test_tensors_become_images_without_loss():
    pixels = torch.arange(3 * 20 * 30).remainder(256).to(torch.uint8).reshape(3, 20, 30)
    for tensor in (pixels, pixels[None], pixels / 255):
        assert np.array_equal(np.asarray(lossless(tensor)), pixels.permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    lossless(pixels).save(buffer, "PNG")
    assert lossless(buffer) is buffer


def test_an_address_where_nobody_has_ever_answered_is_given_up_soon_and_said_at_once(caplog):
    nobody = f"http://127.0.0.1:{free_port()}"
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"no answer in 1 s .last: Connection refused.*Fix: start the server"):
        Client(nobody, first_patience=1).score([grey(0)] * 8)
    assert time.monotonic() - start < 5
    assert [record.getMessage() for record in caplog.records] == [
        f"{nobody}: no answer yet (Connection refused); retrying for up to 1 s"
    ]
    assert inspect.signature(Client).parameters["first_patience"].default <= 20


def test_a_server_that_has_answered_is_waited_for_with_patience(caplog):
    with listening(app()) as address:
        client = Client(address, patience=3, first_patience=0.1)
        assert client.score(grey(0)).ok
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"no answer in 3 s .last: Connection refused.$"):
        client.score(grey(0))
    assert time.monotonic() - start > 0.5 and len(caplog.records) == 1


def test_a_server_that_is_full_is_waited_for_from_the_start():
    with listening(Rejecting(app(), [503] * 3)) as url:
        assert Client(url, patience=30, first_patience=0.1).score(grey(255)).ok

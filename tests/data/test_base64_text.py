"""Base64 as people and programs write it: each text stands for the exact bytes, or is rejected for its true reason."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as some
from image_builders import noise, saved
from serving_builders import app, listening
from starlette.testclient import TestClient

from omniq_verl.data.base64_text import BadBase64, decode_base64
from omniq_verl.serving.client import Client

DATA = saved(noise(40, 40), "PNG") + b"\0"  # behind its end, so that the base64 has padding
STANDARD, URL_SAFE = base64.b64encode(DATA).decode(), base64.urlsafe_b64encode(DATA).decode()
assert "+" in STANDARD and "/" in STANDARD and STANDARD.endswith("=")
LINES = base64.encodebytes(DATA).decode()

RIGHT = {
    "standard": STANDARD,
    "lines of 76": LINES,
    "lines of 76, CRLF": LINES.replace("\n", "\r\n"),
    "lines of 76, CR": LINES.replace("\n", "\r"),
    "lines of 64, blanks at their ends": "\n".join(
        f"  {STANDARD[at : at + 64]} \t" for at in range(0, len(STANDARD), 64)
    ),
    "white space around it": f"\t\r\n {STANDARD} \f\n\n",
    "URL-safe alphabet": URL_SAFE,
    "without padding": STANDARD.rstrip("="),
    "URL-safe, without padding": URL_SAFE.rstrip("="),
    "data URL": f"data:image/png;base64,{STANDARD}",
    "data URL in capitals": f"DATA:IMAGE/PNG;BASE64,{STANDARD}",
    "data URL with parameters": f"data:image/png;name=a.png;charset=utf-8;base64,{STANDARD}",
    "data URL without a type": f"data:;base64,{STANDARD}",
    "data URL of another type": f"data:text/html;base64,{STANDARD}",
    "data URL in lines": f"data:image/png;base64,\n{LINES}",
    "data URL with blanks": f" data:image/png; base64,{STANDARD}",
    "data URL, percent-encoded": "data:image/png;base64,"
    + STANDARD.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
    "data URL, URL-safe": f"data:image/png;base64,{URL_SAFE}",
}
WRONG = {
    "blank within a line": (STANDARD.replace("+", " "), "white space within a line"),
    "tab within a line": (f"{STANDARD[:40]}\t{STANDARD[40:]}", "white space within a line"),
    "a path": ("/etc/passwd", "path"),
    "an address": ("http://localhost/a.png", "':' is not a base64"),
    "both alphabets": (STANDARD.replace("+", "-"), "mixes both alphabets"),
    "a character lost": (STANDARD.rstrip("=")[:-1], "cut off"),
    "padding within": (f"{STANDARD[:40]}=={STANDARD[40:]}", "'=' is not a base64"),
    "too much padding": (f"{STANDARD.rstrip('=')}===", "padding"),
    "no comma": (f"data:image/png;base64{STANDARD}", "without a comma"),
    "not base64": ("data:image/svg+xml,%3Csvg%3E", "not base64"),
    "base64 before a parameter": (f"data:image/png;base64;x=1,{STANDARD}", "not base64"),
    "a letter of another script": (f"é{STANDARD[1:]}", r"'\xe9' is not a base64"),
    "half a surrogate": (f"\ud800{STANDARD[1:]}", r"'\ud800' is not a base64"),
    "zero": (f"\0{STANDARD[1:]}", r"'\x00' is not a base64"),
    "an unbreakable blank": (f"{STANDARD[:8]}\u00a0{STANDARD[8:]}", r"'\xa0' is not a base64"),
    "HTML": (f"<img src='{STANDARD}'>", "'<' is not a base64"),
}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(app())


@pytest.mark.parametrize("kind", RIGHT)
def test_the_bytes_are_exact(kind, client):
    assert decode_base64(RIGHT[kind]) == DATA
    found = client.post("/v1/score", json={"images": [RIGHT[kind], STANDARD]})
    first, second = (one["scores"]["technical"] for one in found.json()["results"])
    assert first == second and first["status"] == "ok"


@pytest.mark.parametrize("kind", WRONG)
def test_the_true_reason_is_named(kind, client):
    text, said = WRONG[kind]
    with pytest.raises(BadBase64) as caught:
        decode_base64(text)
    assert said in str(caught.value) and len(str(caught.value)) < 120
    if kind != "half a surrogate":  # which JSON cannot carry
        found = client.post("/v1/score", json={"images": [text]})
        assert found.status_code == 422 and said in found.json()["detail"]


def test_a_data_url_is_an_image_of_the_client_too():
    with listening(app()) as url:
        found = Client(url).score([RIGHT["data URL"], RIGHT["data URL in lines"], DATA, "data:image/png,x"])
    assert [one.status for one in found] == ["ok", "ok", "ok", "bad_image"]
    assert len({one.score for one in found[:3]}) == 1 and "not base64" in found[3].error


@given(some.binary(min_size=60, max_size=200), some.integers(1, 90), some.booleans(), some.sampled_from(["\n", "\r\n"]))
def test_any_bytes_come_back_from_lines_of_any_length(data, width, padded, end):
    text = base64.b64encode(data).decode()
    text = text if padded else text.rstrip("=")
    assert decode_base64(end.join(text[at : at + width] for at in range(0, len(text), width))) == data


@given(some.text(max_size=200))
def test_any_text_is_bytes_or_a_reason(text):
    try:
        decode_base64(text)
    except BadBase64 as error:
        assert str(error) and "\n" not in str(error)

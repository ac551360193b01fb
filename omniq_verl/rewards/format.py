"""Checks that a response has the required structure."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_reward(text: str, answer_format: str = "number", reasoning: bool = True) -> float:
    """Return 1.0 if the response is ``<think>..</think><answer>..</answer>`` and nothing else, otherwise 0.0.

    Each tag occurs once and in this order; white space around and between the two parts does not matter.
    ``answer_format="json"`` also requires braces around the answer and none inside them. Without ``reasoning`` the
    response is ``<answer>..</answer>`` alone.
    Source: Q-Insight sec. 3.3 (format reward); the check itself is ours.
    """
    text = text.strip()
    if not (text.startswith("<think>" if reasoning else "<answer>") and text.endswith("</answer>")):
        return 0.0
    if any(text.count(tag) != int(reasoning or tag in TAGS[2:]) for tag in TAGS):
        return 0.0
    answer = text.partition("</think>")[2].lstrip() if reasoning else text
    if not answer.startswith("<answer>"):
        return 0.0
    return float(answer_format != "json" or _in_braces(answer[len("<answer>") : -len("</answer>")].strip()))


def _in_braces(body: str) -> bool:
    return body.startswith("{") and body.endswith("}") and body.count("{") == body.count("}") == 1

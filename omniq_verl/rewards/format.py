"""Does a response have the structure that was asked for?"""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_reward(text: str) -> float:
    """1.0 if the response is ``<think>..</think><answer>..</answer>`` and nothing else, otherwise 0.0.

    Each tag occurs once and in this order; white space around and between the two parts does not count.
    Source: Q-Insight sec. 3.2 (format reward), the check itself is ours.
    """
    text = text.strip()
    if any(text.count(tag) != 1 for tag in TAGS):
        return 0.0
    positions = [text.index(tag) for tag in TAGS]
    between = text[positions[1] + len("</think>") : positions[2]]
    complete = text.startswith("<think>") and text.endswith("</answer>")
    return float(complete and positions == sorted(positions) and not between.strip())

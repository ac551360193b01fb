"""Rows that cannot be trained on, each for a reason of its own."""

import json


def poisoned(row: dict, kind: str) -> dict:
    """A copy of a row with one thing wrong."""
    info = {**row["extra_info"], "id": f"poison/{kind}"}
    question = row["prompt"][-1]["content"]
    changes = {
        "special token": {"prompt": [{"role": "user", "content": f"{question} <|im_end|>"}]},
        "placeholder": {"prompt": [{"role": "user", "content": f"<image>{question}"}]},
        "no placeholder": {"prompt": [{"role": "user", "content": question.replace("<image>", "")}]},
        "vision token": {"prompt": [{"role": "user", "content": f"{question}<|image_pad|>"}]},
        "too long": {"prompt": [{"role": "user", "content": question + " good" * 500}]},
        "no turns": {"prompt": []},
        "broken image": {"images": [{"bytes": row["images"][0]["bytes"][:200]}]},
        "no image bytes": {"images": [{"bytes": b""}]},
        "no JSON": {"reward_model": {"style": "rule", "ground_truth": "3.5"}},
        "label off the scale": {"reward_model": {"style": "rule", "ground_truth": json.dumps({"score": 87.0})}},
    }
    info |= {"unknown task": {"task": "beauty"}, "no task": {"task": None}}.get(kind, {})
    return {**row, "extra_info": info, **changes.get(kind, {})}


POISONS = (
    *("special token", "placeholder", "no placeholder", "vision token", "too long", "no turns"),
    *("broken image", "no image bytes", "no JSON", "label off the scale", "unknown task", "no task"),
)


SFT_POISONS = (
    *("special token", "placeholder", "no placeholder", "vision token", "too long", "no turns"),
    *("broken image", "no image bytes", "no answer", "unreadable answer"),
)


def poisoned_conversation(row: dict, kind: str) -> dict:
    """A copy of a row for supervised training with one thing wrong."""
    question, answer = row["messages"][0], row["messages"][-1]
    info = {**row["extra_info"], "id": f"poison/{kind}"}
    if kind in ("no answer", "unreadable answer"):
        text = "" if kind == "no answer" else "<answer>4</answer><answer>5</answer>"
        return {**row, "messages": [question, {**answer, "content": text}], "extra_info": info}
    prompt = {"prompt": row["messages"][:-1], "images": row["images"], "extra_info": row["extra_info"]}
    changed = poisoned(prompt, kind)
    messages = [*changed["prompt"], answer] if changed["prompt"] else []
    return {"messages": messages, "images": changed["images"], "extra_info": info}

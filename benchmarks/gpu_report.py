"""Format the results of ``gpu_step.py`` as a Markdown page."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_sleep import describe

_MISSING = "-"
FORWARD_TARGET, SYNC_TARGET = 1.3, 3.0
"""The project's targets: old log-probs within 1.3 times a bare forward pass, weight sync within 3 s."""


def number(value: float | None, digits: int = 1) -> str:
    """A number for a table; "-" if there is none."""
    return _MISSING if value is None else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.1%}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are right-aligned."""
    rule = ["---"] + ["--:"] * (len(heads) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows)]


def render(results: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        results: the JSON written by ``gpu_step.py``.
    """
    plan, parts = results["plan"], results["parts"]
    lines = [f"# Qwen2.5-VL, {plan['size']} sizes, random weights", "", *_facts(results), ""]
    sections = {"step": _step, "forward": _forward, "sleep": _sleep, "scorer": _scorer, "rali": _rali}
    for name, section in sections.items():
        if name not in parts:
            continue
        part = parts[name]
        if part.get("error"):
            first, _, log = part["error"].partition("\n")
            lines += [f"**{name}: {first}**", "", *(["```", log, "```", ""] if log else [])]
        if set(part) - {"error", "wall_seconds"}:
            lines += [*section(part, results), ""]
    return "\n".join(lines)


def _facts(results: Mapping[str, Any]) -> list[str]:
    machine = results["machine"]
    card = f"{machine['card']} ({machine['memory']}), driver {machine['driver']}"
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return [
        f"- {results['date']}, {card if machine['driver'] else machine['card']}",
        f"- {versions}",
        f"- `{results['command']}`; {results['wall_seconds']:.0f} s in all",
    ]


def _step(part: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    plan, found = results["plan"], part["summary"]
    steps = range(1, found["steps"] + 1)
    heads = ["phase", *(f"step {step}, s" for step in steps), "median, s", "MFU", "GPU load", "peak, GiB"]
    rows = [
        [
            row["phase"],
            *(number(value, 2) for value in row["seconds"]),
            number(row["typical"], 2),
            percent(row["mfu"]),
            _MISSING if row["mean_load"] is None else f"{row['mean_load']:.0f}%",
            number(row["peak_gib"]),
            number(row["estimate_gib"]),
        ]
        for row in part["rows"]
    ]
    batch = f"{plan['prompts']} prompts x {plan['answers']} answers"
    size = f"{found['prompt_tokens']:.0f} + {found['response_tokens']:.0f} tokens"
    image, peak = plan["grid"][0] * plan["grid"][1], number(found["allocated_gib"])
    return [
        f"Recipe `{part['recipe']}`, {batch}, {size} each ({image} of the image); the median excludes step 1.",
        "",
        *table([*heads, "doctor, GiB"], rows),
        "",
        f"- {number(found['tokens_per_second_per_gpu'], 0)} tokens/s/GPU (prompts and answers of all rollouts, as"
        " EasyR1 counts them)",
        f"- {found['forward_flops_per_answer'] / 1e12:.3g} TFLOP per forward pass of one answer; with each prompt and"
        f" image computed once per group it would be {found['flops_saved_by_sharing_prompts']:.2f} times less",
        f"- correlation of rollout and actor probabilities: {_each(found['rollout_actor_correlation'], 6)}",
        f"- share of tokens that pass the entropy gate: {_each(found['gate_share'], 4)}; groups kept by the filter:"
        f" {_each(found['groups_kept'], 0)} of {plan['prompts']}",
        *([f"- peak that PyTorch allocated in the training process: {peak} GiB"] if plan["on_gpu"] else []),
    ]


def _each(values: Sequence[float | None], digits: int) -> str:
    return ", ".join(number(value, digits) for value in values)


def _forward(part: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    line = f"Bare forward pass over the same batch: {part['seconds']:.2f} s"
    if not results["plan"]["on_gpu"]:
        return [line + "."]
    line, old = f"{line}, MFU {percent(part['mfu'])}", _typical(results, "old log-probs")
    if old is None:
        return [line + "."]
    ratio = old / part["seconds"]
    sync = _typical(results, "weight sync")
    return [
        f"{line}; old log-probs take {ratio:.2f} times as long (target: {FORWARD_TARGET}), weight sync {number(sync)} s"
        f" (target: {SYNC_TARGET:.0f} s)."
    ]


def _typical(results: Mapping[str, Any], phase: str) -> float | None:
    rows = results["parts"].get("step", {}).get("rows", [])
    return next((row["typical"] for row in rows if row["phase"] == phase), None)


def _sleep(part: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    names = {"again": "asked again", "reload": "weights loaded again"}
    names |= {"level_1": "sleep level 1", "level_2": "sleep level 2, weights loaded again"}
    lines = [f"{text}: {describe(part[name])}" for name, text in names.items() if name in part]
    if "level_1" not in part:
        lines.append("sleep: not available without a GPU")
    return [f"Rollout log-probabilities of {part['answers']} answers. " + "; ".join(lines) + "."]


def _scorer(part: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    plan = results["plan"]
    speeds = (
        f"{part[f'images_per_second_{tokens}']:.2f} images/s at {tokens} tokens"
        for tokens in (plan["score_tokens"], plan["few_tokens"])
    )
    return [f"`Scorer`, {part['images']} new photographs, files to scores: {', '.join(speeds)}."]


def _rali(part: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    model = "CLIP ViT-L/14-336, bf16" if results["plan"]["on_gpu"] else "a small CLIP, fp32"
    speed = f"{part['images_per_second']:.1f} images/s in batches of {part['batch']}"
    return [f"`RaliScorer` ({model}), {part['images']} photographs, files to scores: {speed}."]

"""Reflection: a reasoning model criticises an image, and a language model rewrites its prompt.

This follows Reflect-DiT (arXiv:2503.12271), as in OmniQuality-R's table 5, but with an unmodified pipeline: in
Reflect-DiT the transformer itself reads the feedback; here the feedback only changes the prompt. With ``n=20`` the
first round is a best of 20, followed by 20 rounds of reflection, as in the last row of that table.

All texts go through a round together: images are drawn and scored, and prompts rewritten, in batches.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

from rich.console import Console
from rich.progress import Progress

from omniq_verl.console import progress_bar
from omniq_verl.data.files import replace_text
from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.request import ERROR, Answer, Request, Sampling, answer_each
from omniq_verl.t2i.candidates import (
    Records,
    check_drawn,
    draw_missing,
    image_path,
    pick,
    score_missing,
    write_conditions,
)
from omniq_verl.t2i.contact_sheet import score_captions, write_sheet
from omniq_verl.t2i.generator import open_generator
from omniq_verl.t2i.image_scorers import BATCH, ImageScorers
from omniq_verl.t2i.rewriting import NO_FEEDBACK, Rewrite, read_rewrite
from omniq_verl.t2i.rounds import Reflection, ReflectionState
from omniq_verl.tasks import ForbiddenText, scale_of

Asker = Callable[[Sequence[Request], Sampling], list[list[Answer]]]


def reflect(run: Reflection, console: Console) -> list[dict[str, Any]]:
    """Draw, score and rewrite, round after round; returns the lines of ``picks.jsonl``.

    ``out`` gets the same files as from ``best_of_n``. The sheets show the prompt under each image, and picks also have
    ``round``, ``drawn_from`` and ``rewrites`` (number of rewrites by status). ``rounds.jsonl`` has a line per image:
    ``text``, ``round``, ``image``, ``seed``, ``drawn_from``, ``value`` (which it was ranked by), ``scores``,
    ``reasoning`` and ``rewrite``, the status of the answer its prompt was read from.

    Raises:
        ValueError: invalid settings, a model that cannot be loaded, or a folder started with other settings.
    """
    # Before hours of drawing.
    scorers = ImageScorers(run.tasks, run.scorer, max_tokens=run.max_tokens, scale=scale_of(run.scale))
    if run.writer is not None:
        run.writer.check()
    run.out.mkdir(parents=True, exist_ok=True)
    with (
        # Later images depend on scores and rewritten prompts: other settings of either need a new folder.
        Records(run.out / "scores", run.settings(), run.out) as scores,
        Records(run.out / "rewrites", run.settings(), run.out) as rewrites,
        progress_bar(console, "images") as bar,
    ):
        walks = [ReflectionState(run, number, scores.found, rewrites.found) for number in range(len(run.prompts))]
        check_drawn(run, (candidate for state in walks for candidate in state.first_images()))
        write_conditions(run)
        _run_rounds(run, walks, scores, rewrites, scorers, bar)
    picks = [_finish(run, state, scores) for state in walks]
    lines = {"picks.jsonl": picks, "rounds.jsonl": [line for state in walks for line in state.lines()]}
    for name, found in lines.items():
        replace_text(run.out / name, "".join(json.dumps(one) + "\n" for one in found))
    return picks


def _run_rounds(
    run: Reflection,
    walks: Sequence[ReflectionState],
    scores: Records,
    rewrites: Records,
    scorers: ImageScorers,
    bar: Progress,
) -> None:
    total = len(walks) * (run.n + run.rounds)
    drawn, scored = (partial(bar.advance, bar.add_task(title, total=total)) for title in ("drawing", "scoring"))
    generator, writer = cache(lambda: open_generator(run.generator)), cache(lambda: _open_writer(run, scorers))
    for number in range(run.rounds + 1):
        going = [state for state in walks if not state.stopped]
        for done in (drawn, scored):
            done(len(walks) - len(going))  # stopped texts count as done
        if number > 0:
            _rewrite_missing(run, going, rewrites, writer)
        new = [candidate for state in going for candidate in state.begin_round()]
        draw_missing(run, new, generator, drawn)
        score_missing(run, new, scores, scorers, scored)


def _open_writer(run: Reflection, scorers: ImageScorers) -> Asker:
    if run.writer in (None, run.scorer):
        return scorers.model.answer
    return partial(answer_each, open_engine(run.writer))


def _rewrite_missing(
    run: Reflection, walks: Sequence[ReflectionState], rewrites: Records, writer: Callable[[], Asker]
) -> None:
    """Write the missing prompts of the next round."""
    left = [state for state in walks if state.key not in rewrites.keys]
    for first in range(0, len(left), BATCH):
        rewrites.add(_rewrite(run, left[first : first + BATCH], writer))


def _rewrite(
    run: Reflection, walks: Sequence[ReflectionState], writer: Callable[[], Asker]
) -> Iterator[dict[str, Any]]:
    questions = {state.key: state.question() for state in walks}
    requests, answers = [], {}
    for key, messages in questions.items():
        try:
            requests += [Request(key, messages)] if messages else []
        except ForbiddenText as error:  # caused by the critic's text
            answers[key] = Answer(str(error), ERROR)
    answered = writer()(requests, Sampling(max_tokens=run.max_tokens)) if requests else []
    answers |= {request.key: found for request, (found,) in zip(requests, answered, strict=True)}
    for key in questions:
        answer = answers.get(key, Answer(""))
        found = read_rewrite(answer, run.longest) if key in answers else Rewrite(NO_FEEDBACK)
        yield {"key": key, "status": found.status, "prompt": found.prompt, "answer": answer.text}


def _finish(run: Reflection, state: ReflectionState, scores: Records) -> dict[str, Any]:
    """Pick the best image of a text and write its sheet."""
    drawings, rounds = state.drawings, state.round_numbers()
    choice, record = pick(run, drawings, scores.found)
    captions = [
        f"round {number}  {one}" for number, one in zip(rounds, score_captions(record["scores"], choice), strict=True)
    ]
    paths, texts = [image_path(run, candidate) for candidate in drawings], [candidate.text for candidate in drawings]
    write_sheet(run.out / "sheets" / f"{state.number:05d}.png", state.wanted, paths, captions, choice.best, texts)
    return {
        **record,
        "round": None if choice.best is None else rounds[choice.best],
        "drawn_from": None if choice.best is None else texts[choice.best],
        "rewrites": dict(Counter(state.statuses())),
    }

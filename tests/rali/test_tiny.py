"""What the example of table 4 stands on: pretraining of a tiny CLIP, and its stand-in for a reasoning model."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from rali_builders import SIZE, TEXTS, picture
from rich.console import Console

from data_prep.photo_distortions import Size, prepare
from omniq_verl.data.row_refs import list_rows
from omniq_verl.generation.request import Request, Sampling, seed_of
from omniq_verl.generation.runner import RunOptions
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.pipeline.made.critic import Critic
from omniq_verl.rali.encoder import open_model, save_whole
from omniq_verl.rali.pairs import PairsConfig, make_pairs
from omniq_verl.rali.preprocessing import Preprocessing
from omniq_verl.rewards import parse_response
from omniq_verl.tiny.clip import build_clip, build_tokenizer, pretrain_clip, whiten_patches


def test_pretraining_learns_pairs_and_is_the_same_again(tmp_path):
    make = Preprocessing(32, True, (0.5,) * 3, (0.5,) * 3)
    numbers = [n % 4 for n in range(64)]
    raw = np.stack([make(picture(5 * n)) for n in numbers]).transpose(0, 3, 1, 2)
    pixels, texts = (raw / 127.5 - 1).astype(np.float32), [TEXTS[4 * n] for n in numbers]
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        tokenizer = build_tokenizer(TEXTS, SIZE)
        model = build_clip(tokenizer, SIZE)
        whiten_patches(model, pixels[:8], seed=0)
        found.append(list(pretrain_clip(model, tokenizer, pixels, texts, epochs=6, batch=16)))
    assert found[0][-1] < found[0][0] - 0.2 and found[0] == found[1]
    save_whole(tmp_path / "clip", model, tokenizer)
    assert torch.equal(open_model(str(tmp_path / "clip")).logit_scale, model.logit_scale)


def test_whitened_filters_answer_alike_to_strong_and_weak_directions():
    model = build_clip(build_tokenizer(TEXTS, SIZE), SIZE)
    pixels = np.stack([np.outer(np.ones(32), np.linspace(-1, 1, 32))] * 3)[None].astype(np.float32)
    pixels = pixels + np.random.default_rng(0).normal(0, 0.3, (64, 3, 32, 32)).astype(np.float32)
    whiten_patches(model, pixels, seed=0)
    embedding = model.vision_model.embeddings.patch_embedding
    answers = embedding(torch.from_numpy(pixels)).detach()
    assert answers.std().item() == pytest.approx(1, abs=0.3)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    import argparse

    out = tmp_path_factory.mktemp("crops")
    prepare(argparse.Namespace(out=out, seed=0, crop=32), Size(train=12, sft=12, val=1, test=1))
    return out / "train.parquet"


def test_the_critic_words_what_it_knows_by_its_seed(crops):
    critic = Critic(EngineSpec(str(crops)))
    requests = [Request(ref.key, [], (), seed_of(ref.key)) for ref in list_rows([crops])]
    answers = critic.answer(requests, Sampling(5, 1.0))
    assert answers == critic.answer(requests, Sampling(5, 1.0))
    assert any(len({one.text for one in some}) > 1 for some in answers)
    off = [
        abs(parse_response(one.text).score - ref.info["score"])
        for ref, some in zip(list_rows([crops]), answers, strict=True)
        for one in some
    ]
    assert max(off) <= 0.4 + 0.8 + 0.05 and np.mean(np.array(off) <= 0.45) > 0.6


def test_pairs_of_the_critic_are_all_readable(crops, tmp_path):
    spec = EngineSpec(str(crops), "omniq_verl.pipeline.made.critic:Critic")
    config = PairsConfig([crops], tmp_path, spec, Sampling(5, 1.0), RunOptions("here"))
    assert make_pairs(config, Console(quiet=True))["answers"] == {"ok": 60}


def test_the_commands_help_needs_no_torch():
    code = "import sys, omniq_verl.rali, omniq_verl.rali.cli; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

"""Checks of chapter 13: published names, positions, the model, and a checkpoint that is read.

What is right is what a plain Marian model makes of the same tensors (`plain_marian`). None of them
needs `transformers` or a network.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer import pretrained
from transformer.checks.ch02_positional_encoding import wave_table
from transformer.checks.harness import Suspects, agree, call, check, expect, shaken, size, sizes
from transformer.checks.plain_marian import (
    BANNED,
    PlainMarian,
    checkpoint,
    exchanged,
    greedy,
    in_halves,
    marian_config,
    plain,
    random_tensors,
    spaced_as_fairseq,
    transposed,
)
from transformer.checks.refusals import refuses_what_does_not_fit
from transformer.inference import greedy_search
from transformer.pretrained import PublishedConfig, PublishedTransformer

LAYERS = {"encoder": 2, "decoder": 1}
"""The layers of the models that are checked."""


# --- positions ------------------------------------------------------------------------------------


@check("equal to the formula, sines before cosines")
def check_half_positions(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (n_positions, d_model) giving the table t d_model with sines first."""
    n, half = sizes(9, 4)
    d_model = 2 * half
    table = wave_table(n, d_model)
    want = in_halves(n, d_model)
    suspects = {
        "Sines and cosines alternate, as in chapter 2: here all sines come first.": lambda: table,
        "It takes features from the halves in turn: the way back. Take every second one.": (
            lambda: torch.stack([table[:, :half], table[:, half:]], -1).flatten(1)
        ),
        "The cosines come first.": lambda: torch.cat([want[:, half:], want[:, :half]], dim=1),
        "The frequencies are fairseq's, with d_model/2 - 1: Marian's are those of the paper.": (
            lambda: spaced_as_fairseq(n, d_model)
        ),
    }
    agree(call(fn, n, d_model), want, f"for {n} positions and width {d_model}", suspects)


# --- names ----------------------------------------------------------------------------------------


@check("every tensor once, shapes, equal to a plain Marian model")
def check_layer_names(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of a stack's name, "encoder" or "decoder".

    It gives the published name of each module of a layer, such as fc1 for feed_forward.w_1.
    """
    config = marian_config()
    tensors = random_tensors(config)
    model = PublishedTransformer(config).to(device).eval()
    around = {n: t for n, t in pretrained.published_names(model).items() if ".layers." not in n}
    found: dict[str, str] = {}
    for stack in ("encoder", "decoder"):
        table = call(fn, stack)
        expect(isinstance(table, Mapping), f"for {stack!r} it gives no table of names")
        for ours in model.state_dict():
            if ours.startswith(f"{stack}.layers."):
                found[ours] = in_file(stack, ours, table, tensors)
    takes_every_tensor(found, tensors)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    fits(found, model, tensors)
    read_by(model, tensors, around | found)
    right = plain(tensors, config)
    where = f"with the tensors of these names, on src {size(sources(config, device))}"
    agree_with(model, right, where, {cause: exchanged(right, *pair) for cause, pair in SWAPS})


SWAPS = (
    (
        "The three projections of attention are paired in their order in `transformers`, keys, "
        "values, queries: go by the names.",
        ({"q_proj": "k_proj", "k_proj": "v_proj", "v_proj": "q_proj"}, ""),
    ),
    (
        "The decoder's last two norms are exchanged: final_layer_norm is that of the *last* "
        "sublayer.",
        (
            {
                "final_layer_norm": "encoder_attn_layer_norm",
                "encoder_attn_layer_norm": "final_layer_norm",
            },
            "decoder",
        ),
    ),
    (
        "The decoder's two attentions are exchanged: encoder_attn reads the encoder's output.",
        ({"self_attn.": "encoder_attn.", "encoder_attn.": "self_attn."}, "decoder"),
    ),
    ("Queries and keys are exchanged.", ({"q_proj": "k_proj", "k_proj": "q_proj"}, "")),
    ("Keys and values are exchanged.", ({"k_proj": "v_proj", "v_proj": "k_proj"}, "")),
)


def in_file(stack: str, ours: str, table: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the name in the file of one of the model's tensors; expect the file to have it."""
    _, _, number, rest = ours.split(".", 3)
    module, leaf = rest.rsplit(".", 1)
    missing = f"the {stack}'s table has no {module}: it would keep its random first weights"
    expect(module in table, missing)
    leaf = leaf.replace("gain", "weight")
    name = f"model.{stack}.layers.{number}.{table.get(module)}.{leaf}"
    expect(name in tensors, f"{module} is named {table.get(module)!r}, but a file has no {name}")
    return name


def takes_every_tensor(found: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Expect each of the file's tensors of layers to be read once."""
    inside = [name for name in tensors if ".layers." in name]
    left = [name for name in inside if name not in found.values()]
    expect(not left, f"nothing reads {left[:1]}: which module is it?")
    twice = sorted({name for name in found.values() if list(found.values()).count(name) > 1})
    expect(not twice, f"two modules read {twice[:1]}: each tensor has one place")


def fits(found: Mapping[str, str], model: PublishedTransformer, tensors: Mapping) -> None:
    """Expect each tensor to have the shape of the one that it is read into."""
    for ours, tensor in model.state_dict().items():
        theirs = found.get(ours)
        if theirs in tensors:
            shape = tuple(tensors[theirs].shape)
            wrong = f"{theirs} is {shape}, but {ours} is {tuple(tensor.shape)}"
            expect(shape == tuple(tensor.shape), wrong)


def read_by(model: PublishedTransformer, tensors: Mapping, names: Mapping[str, str]) -> None:
    """Copy tensors into the model, by the names that are given to each."""
    with torch.no_grad():
        for ours, tensor in model.state_dict().items():
            if names.get(ours) in tensors:
                tensor.copy_(tensors[names[ours]].reshape(tensor.shape))


# --- the model ------------------------------------------------------------------------------------


def sources(config: PublishedConfig, device: torch.device | str) -> Tensor:
    """Return two sources, the second of which is padded."""
    pad_id = config.pad_id
    return torch.tensor([[5, 8, 3, 9, 4, 0], [6, 2, 5, 0, pad_id, pad_id]], device=device)


def targets(config: PublishedConfig, device: torch.device | str) -> Tensor:
    """Return two targets, which begin with padding, as Marian's do."""
    pad_id = config.pad_id
    return torch.tensor([[pad_id, 4, 6, 1, 3], [pad_id, 9, 3, pad_id, pad_id]], device=device)


def model_suspects(right: PlainMarian) -> dict[str, PlainMarian]:
    """Return the usual mistakes with published weights, each as a model that makes it."""
    d_model = right.table("decoder").shape[1]
    other = F.relu if right.activation is F.silu else F.silu
    name = {F.relu: "ReLU", F.silu: "SiLU"}[right.activation]
    root = "√d_model"
    unscaled = f"The embedding is not multiplied by {root}, but scale_embedding is True."
    needless = f"The embedding is multiplied by {root}, but scale_embedding is False."
    twice = f"The embedding is multiplied by {root} twice: a TokenEmbedding does it already."
    interleaved = "Sines and cosines of the positions alternate: this model has them in halves."
    spaced = "The positions have fairseq's frequencies: Marian's are those of the paper."
    return {
        needless if right.scale == 1.0 else unscaled: replace(
            right, scale=d_model**0.5 if right.scale == 1.0 else 1.0
        ),
        twice: replace(right, scale=right.scale * d_model**0.5),
        interleaved: replace(right, positions=wave_table),
        spaced: replace(right, positions=spaced_as_fairseq),
        f"The activation is not the config's, {name}.": replace(right, activation=other),
        f"It is GELU that is computed, not {name}.": replace(right, activation=F.gelu),
        "The encoder has as many heads as the decoder: its own number is encoder_heads.": replace(
            right, heads=(right.heads[1], right.heads[1])
        ),
        "The norms come before the sublayers: this model is post-norm.": replace(
            right, pre_norm=True
        ),
        "The bias of the logits, final_logits_bias, is left out.": replace(right, biased=False),
        "The first token is hidden: decoding starts with padding, so the decoder must not hide "
        "padding.": replace(right, hides_padding=True),
        "Square matrices are transposed: the file has them as nn.Linear does, out × in.": (
            transposed(right)
        ),
    }


def agree_with(
    model: Any, right: PlainMarian, where: str, wrong: Mapping[str, PlainMarian]
) -> None:
    """Expect memory and logits to be those of the plain model."""
    device = next(iter(right.tensors.values())).device
    src = sources(model.config, device)
    tgt = targets(model.config, device)

    def memory(other: PlainMarian) -> Tensor:
        return other.memory(src)

    def logits(other: PlainMarian) -> Tensor:
        return other.logits(tgt, src)

    with torch.no_grad():
        suspects: Suspects = {cause: partial(memory, other) for cause, other in wrong.items()}
        real = src != model.config.pad_id
        kept = {cause: (lambda give=give: give()[real]) for cause, give in suspects.items()}
        states = call(model.encode, src)
        agree(states[real], right.memory(src)[real], f"{where}: the encoder's states", kept)
        suspects = {cause: partial(logits, other) for cause, other in wrong.items()}
        got = call(model, src, tgt)
        agree(got, right.logits(tgt, src), f"{where}: the logits", suspects)


@check("equal to a plain Marian model in two configs, with and without a scale")
def check_published_model(cls: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a class made from a PublishedConfig, called with src b k and tgt b t."""
    larger = marian_config().vocab_size + 2
    two = dict(source_vocab_size=larger, tables="two", activation="relu", scale_embedding=False)
    for config in (marian_config(), marian_config(**two)):
        model = call(cls, config)
        shaken(model, device)
        names = pretrained.published_names(PublishedTransformer(config))
        tensors = {
            names.get(ours) or pretrained.published_name(ours): tensor
            for ours, tensor in model.state_dict().items()
        }
        right = plain(tensors, config)
        about = f"activation={config.activation!r}, scale_embedding={config.scale_embedding}"
        agree_with(model, right, f"with {about}", model_suspects(right))


# --- a checkpoint ---------------------------------------------------------------------------------


@check(
    "equal to a plain Marian model, start token, banned tokens, scale, and four files that do not "
    "fit are refused"
)
def check_read_model(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of a folder, which gives the model of the checkpoint in it, in eval mode."""
    with tempfile.TemporaryDirectory() as folder:
        for scale in (True, False):
            config = marian_config(scale_embedding=scale)
            tensors = random_tensors(config)
            place = checkpoint(Path(folder) / f"scale-{scale}", config, tensors)
            model = call(fn, place).to(device)
            moved = {name: tensor.to(device) for name, tensor in tensors.items()}
            right = plain(moved, config)
            expect(not model.training, "the model is in train mode: dropout changes what it writes")
            where = f"with scale_embedding={scale} in config.json"
            agree_with(model, right, where, model_suspects(right))
            writes_what_it_should(model, right, config)
        refuses_what_does_not_fit(fn, Path(folder), config, tensors)


def writes_what_it_should(model: Any, right: PlainMarian, config: PublishedConfig) -> None:
    """Expect decoding to start with padding, and never to write what is banned."""
    start = f"decoding starts with {model.config.bos_id}, but decoder_start_token_id is"
    cause = "Marian starts with padding"
    expect(model.config.bos_id == config.bos_id, f"{start} {config.bos_id}. {cause}")
    src = sources(config, next(iter(right.tensors.values())).device)
    ids = call(greedy_search, model, src, 6)
    for i, what in ((config.pad_id, "padding, the token that decoding starts with"), (BANNED, "7")):
        followed = (ids[:, :-1] == i) & (ids[:, 1:] != config.pad_id)
        written = bool((ids[:, 0] == i).any() or followed.any())
        expect(not written, f"it writes {what}, which bad_words_ids bans from every translation")
    want = greedy(right, src, config.bos_id, config.eos_id, [config.pad_id, BANNED], 6)
    agree(ids, want, f"greedy search on src {size(src)}")

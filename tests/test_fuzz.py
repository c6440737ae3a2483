"""Files from anywhere: a damaged or hostile one loads or gives a clear error.

It never crashes the process, runs code or takes all memory.
"""

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from transformer.data import train_tokenizer
from transformer.model import Config, Transformer, save_model
from transformer.training import Trainer, TrainingConfig, load_checkpoint, save_checkpoint
from transformer.translator import Translator

SIZES = dict(d_model=8, n_heads=2, n_layers=1, d_ff=8, max_len=32)
NUMBERS = [-1, 0, 1, 3, 10**9, 10**18, 1e308, -0.5, float("nan")]
VALUES = [*NUMBERS, True, None, "", "post", [], {}, "[" * 2000]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder with a translator and a checkpoint."""
    folder = tmp_path_factory.mktemp("good")
    tokenizer = train_tokenizer(["one two three", "uno due tre"], 60)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    model = Transformer(Config(tokenizer.get_vocab_size(), **SIZES))
    save_model(model, folder)
    trainer = Trainer(model, TrainingConfig())
    save_checkpoint(trainer, folder / "checkpoint-00000000.safetensors", {"seconds": 1.0})
    return folder


def flip_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change, cut, repeat or insert bytes, mostly near the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(data))
        if chance.random() < 0.5:
            at = min(int(chance.expovariate(4 / len(data))), len(data) - 1)
        what = chance.random()
        if what < 0.6:
            data[at] = chance.randrange(256)
        elif what < 0.75:
            del data[at : at + chance.randrange(1, 64)]
        elif what < 0.9:
            data[at:at] = data[at : at + chance.randrange(1, 64)]
        else:
            del data[max(at, 1) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def change_values(content: bytes, chance: random.Random) -> bytes:
    """Replace, remove or add a value somewhere in a JSON document."""
    document = json.loads(content)
    place = document
    while isinstance(place, (dict, list)) and place and chance.random() < 0.8:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = chance.choice(list(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or chance.random() < 0.3:
            if chance.random() < 0.2:
                del place[key]
            else:
                place[key] = chance.choice(VALUES)
            break
        place = place[key]
    return json.dumps(document).encode()


def answer(good: Path, folder: Path, name: str) -> str:
    """Load the mutated file as its user would: 'loaded', or the error's message."""
    try:
        if name.startswith("checkpoint"):
            config = Config(**json.loads((good / "config.json").read_text(encoding="utf-8")))
            load_checkpoint(Trainer(Transformer(config), TrainingConfig()), folder / name)
        else:
            Translator.load(folder).translate(["one two"], beam_size=1)
    except (ValueError, OSError) as error:
        return str(error)
    return "loaded"


@contextmanager
def little_memory(limit: int = 2 * 2**30) -> Iterator[None]:
    """Let the process take so many bytes more and no others; on Linux only."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_answered_by_a_clear_error_or_load(good, tmp_path, count):
    chance = random.Random(count)
    refused = 0
    names = sorted(path.name for path in good.iterdir())
    for name in names:
        (tmp_path / name).write_bytes((good / name).read_bytes())
    with little_memory(), torch.random.fork_rng(devices=[]):
        for i in range(count):
            name = names[i % len(names)]
            content = (good / name).read_bytes()
            as_json = name.endswith(".json") and chance.random() < 0.5
            mutate = change_values if as_json else flip_bytes
            (tmp_path / name).write_bytes(mutate(content, chance))
            said = answer(good, tmp_path, name)
            assert said == "loaded" or (20 < len(said) < 3000), f"{i}: {name}: {said!r}"
            refused += said != "loaded"
            (tmp_path / name).write_bytes(content)
    assert refused > count / 4

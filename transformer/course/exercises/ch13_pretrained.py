"""The exercises of chapter 13: published weights."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from transformer.course.exercise import (
    Bug,
    ByHand,
    Exercise,
    FindBug,
    Predict,
    WriteBlock,
    WriteTest,
)
from transformer.pretrained import (
    PublishedConfig,
    PublishedTransformer,
    read_model,
    save_pretrained,
)

# --- 13.2 -----------------------------------------------------------------------------------------

PIECES = {"<unk>": 0, "</s>": 2, "▁I": 9, "▁love": 31, "▁you": 12, "▁cat": 57, "s": 4, "▁ti": 310}
TOKENS = "</s> <unk> >>ita<< ▁you ▁I ▁ti ▁love ▁cat <pad>".split()
VOCABULARY: dict[str, int] = dict(
    zip(TOKENS, (0, 1, 6, 43, 88, 214, 907, 3120, 58100), strict=True)
)
SOURCES = (">>ita<< ▁I ▁love ▁you </s>".split(), ">>ita<< ▁I ▁love ▁cat s </s>".split())


def solution_13_2(start: str = "<pad>", ids: dict[str, int] = VOCABULARY) -> list[list[int]]:
    """Look up both sources and what the decoder has read; what has no id is unknown."""
    rows = (*SOURCES, [start, "▁ti"])
    return [[ids.get(token, ids["<unk>"]) for token in row] for row in rows]


def without(left_out: str) -> list[list[int]]:
    """Return the answer with a token left out of the sources."""
    first, second, target = solution_13_2()
    sources = zip(SOURCES, (first, second), strict=True)
    kept = [[i for t, i in zip(*pair, strict=True) if t != left_out] for pair in sources]
    return [*kept, target]


# --- 13.3 -----------------------------------------------------------------------------------------


def solution_13_3() -> list[bool]:
    sizes: dict[str, Any] = dict(d_model=16, n_heads=4, n_layers=2, d_ff=32)
    sizes |= dict(encoder_heads=4, encoder_layers=2, encoder_d_ff=32)
    sizes |= dict(vocab_size=50, source_vocab_size=50, pad_id=49, bos_id=49)
    refused = []
    with tempfile.TemporaryDirectory() as name:
        model = PublishedTransformer(PublishedConfig(**sizes))
        folder = save_pretrained(model, Path(name) / "model")
        tensors = load_file(folder / "model.safetensors")
        settings = json.loads((folder / "config.json").read_text())

        def exchanged(n):
            return n.replace("q_proj", "-").replace("k_proj", "q_proj").replace("-", "k_proj")

        def turned(part):
            return {n: x.T.contiguous() if n.endswith(part) else x for n, x in tensors.items()}

        for weights, change in (
            ({exchanged(n): x for n, x in tensors.items()}, {}),
            (turned("q_proj.weight"), {}),
            (turned("fc1.weight"), {}),
            (tensors, {"activation_function": "relu"}),
            (tensors, {"encoder_attention_heads": 2}),
            (tensors, {"decoder_layers": 1}),
        ):
            save_file(weights, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps(settings | change))
            try:
                read_model(folder)
                refused.append(False)
            except ValueError:
                refused.append(True)
    return refused


def all_but(item: int) -> list[bool]:
    """Return the truth about the six changes, with one item wrong."""
    truth = [False, False, True, False, False, True]
    return [right != (n == item) for n, right in enumerate(truth, start=1)]


# --- 13.5 -----------------------------------------------------------------------------------------


def test_13_5(implementation: Callable[[Path], PublishedTransformer]) -> None:
    sizes: dict[str, Any] = dict(d_model=16, n_heads=4, n_layers=1, d_ff=32)
    sizes |= dict(encoder_heads=2, encoder_layers=2, encoder_d_ff=24)
    sizes |= dict(vocab_size=30, source_vocab_size=30, pad_id=29, bos_id=29, eos_id=0)
    with tempfile.TemporaryDirectory() as name:
        for scale in (True, False):
            config = PublishedConfig(**sizes, logits_bias=True, scale_embedding=scale)
            model = PublishedTransformer(config).eval().requires_grad_(False)
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn(parameter.shape)  # no bias is 0, no gain is 1
            folder = save_pretrained(model, Path(name) / "model")

            found = implementation(folder)
            src = torch.randint(1, 29, (2, 7))
            tgt = torch.tensor([[29, 4, 6, 1], [29, 9, 3, 7]])
            torch.testing.assert_close(found(src, tgt), model(src, tgt))
            assert found.config.bos_id == 29, "decoding starts with another token"
            assert 29 in found.config.banned_ids, "padding may be written"

        tensors = load_file(folder / "model.safetensors")
        del tensors["model.decoder.layers.0.encoder_attn.q_proj.weight"]
        save_file(tensors, folder / "model.safetensors")
        try:
            implementation(folder)
        except ValueError:
            return
        raise AssertionError("a tensor is missing, and no error says so")


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="13.1",
        title="The table of names",
        minutes=15,
        difficulty=1,
        trains="reading what a checkpoint holds, module by module",
        target="layer_names",
        check="check_layer_names",
        task="""
Write `layer_names(stack)`, the table that you filled in above, now for both stacks.

- `stack` is `"encoder"` or `"decoder"`. The result is a dict. Its keys are the modules of *your*
  layer that have weights, such as `self_attention.w_q`; its values are the published names, such as
  `self_attn.q_proj`.
- Numbers of layers and endings such as `.weight` are not part of the names. `published_name` below
  puts them around.
- In `DecoderLayer`, `residuals` 0, 1 and 2 belong to self-attention, cross-attention and the
  feed-forward network.
- The file calls the decoder's cross-attention `encoder_attn`. Its three norms are
  `self_attn_layer_norm`, `encoder_attn_layer_norm` and `final_layer_norm`.
""",
        hints=(
            "Print the names of both: `EncoderLayer(16, 4, 32).state_dict()` of your chapters, and "
            "the file's, with `tensor_shapes(folder)`. Pair them by what a module *does*, never by "
            "the order in which they are listed.",
            "A text goes in, a dict of texts comes out: 8 pairs for the encoder, 13 for the "
            "decoder. Every matrix of attention is `d_model d_model`, so shapes only tell `fc1`, "
            "`d_ff d_model`, from `fc2`, `d_model d_ff`.",
        ),
        why="""
Two mistakes are usual. The `state_dict()` of `transformers` lists keys, values, queries, and a loop
that pairs it with yours in order exchanges all three, without an error. And `final_layer_norm` is
the *last* norm of a layer: the second in the encoder, the third in the decoder. Code that adds the
decoder's new norm at the end of the encoder's table has exchanged two of them.

All names must be used once. A module that is in no table keeps its random first weights, and
translations become nonsense, although everything was "loaded".
""",
    ),
    ByHand(
        id="13.2",
        title="The ids of a sentence",
        minutes=10,
        difficulty=1,
        trains="which of two numberings a model was trained with",
        form="three lists of numbers",
        tolerance=0.0,
        task="""
A Marian folder has two numberings. These are lines of both:

| token | in `source.spm` | in `vocab.json` |
|---|---|---|
| `<unk>` | 0 | 1 |
| `</s>` | 2 | 0 |
| `▁I` | 9 | 88 |
| `▁love` | 31 | 907 |
| `▁you` | 12 | 43 |
| `▁cat` | 57 | 3120 |
| `s` | 4 | |
| `▁ti` | 310 | 214 |
| `>>ita<<` | | 6 |
| `<pad>` | | 58100 |

Sentencepiece cuts *I love you* into `▁I ▁love ▁you` and *I love cats* into `▁I ▁love ▁cat s`. Both
are to be translated into Italian, so each source begins with the tag. Every source ends with
`</s>`.

1. Which ids does the encoder read for *I love you*?
2. And for *I love cats*?
3. The decoder has written `▁ti`. Which two ids does it read now?
""",
        solution=solution_13_2,
        mistakes={
            "These are sentencepiece's own ids. The model was trained with those of "
            "`vocab.json`.": solution_13_2(ids=PIECES),
            "A source ends with `</s>`, which has an id, too.": without("</s>"),
            "The tag is a token like any other: the source begins with it.": without(">>ita<<"),
            "`s` is a piece, but it has no line in `vocab.json`: it becomes `<unk>`, and is not "
            "left out.": without("s"),
            "Marian starts decoding with padding, not with `</s>`.": solution_13_2(start="</s>"),
        },
        hints=(
            "Pieces come from sentencepiece, ids from `vocab.json`, always. What `vocab.json` "
            "lacks is unknown. And the decoder reads everything written so far, after the token "
            "that decoding starts with.",
            "The sources have 5 and 6 ids, because tag and `</s>` count. The decoder reads 2: the "
            "start, and `▁ti`.",
        ),
        why="""
`vocab.json` has its own order and more lines, for tags and padding. With sentencepiece's ids
everything still runs: each id is below 58,101, so the table has a row for it. The model just reads
other words, and translates *those*, often into fluent Italian. Look for this first when output is
fluent and has nothing to do with the input.
""",
    ),
    Predict(
        id="13.3",
        title="Which mistakes raise an error?",
        minutes=10,
        difficulty=2,
        trains="knowing what shapes prove, and what they cannot",
        form="six truth values",
        given="import json\nimport tempfile\n\nfrom safetensors.torch import load_file, save_file",
        task="""
A checkpoint has `d_model` 16, 4 heads, `d_ff` 32, and 2 layers in each stack. It is changed in one
of six ways, and then read by `read_model`. Is it refused (`True`), or read without a word
(`False`)?

1. In every layer, the tensors of `q_proj` and `k_proj` are exchanged.
2. Every `q_proj.weight` is transposed.
3. Every `fc1.weight` is transposed.
4. The config says `"activation_function": "relu"` instead of `"swish"`.
5. The config says `"encoder_attention_heads": 2` instead of 4.
6. The config says `"decoder_layers": 1` instead of 2.

Write down your six answers first. Then run the cell below.
""",
        solution=solution_13_3,
        mistakes={
            "Item 1: both have the same shapes, and no name says what a tensor means.": all_but(1),
            "Item 2: `q_proj.weight` is 16×16, and so is its transpose.": all_but(2),
            "Item 3: `fc1.weight` is 32×16, and its transpose is not.": all_but(3),
            "Item 4: an activation has no weights, so no tensor contradicts the config.": all_but(
                4
            ),
            "Item 5: heads are a way of splitting 16 features. The matrices are 16×16 for any "
            "number of them.": all_but(5),
            "Item 6: the tensors of the second layer are in the file and have no place in the "
            "model. A reader that ignores what is left over would not notice.": all_but(6),
        },
        hints=(
            "`read_model` compares two things, and both before it reads a number: which names the "
            "file has, and which shapes. Ask of each change whether it touches one of them.",
            "With `d_model` 16 and `d_ff` 32: all matrices of attention are 16×16, for any number "
            "of heads. `fc1.weight` is 32×16, `fc2.weight` 16×32.",
        ),
        why="""
Names and shapes prove that a file *fits*, not that it *means* the same. Four of the six changes
fit, and each of them ruins the translation. The number of heads is the one most easily
overlooked: it is in no tensor, so only the config knows it.

What proves the meaning is a comparison of numbers with the model that was published, as in "Equal
to `transformers`". Do it once for each architecture, with random weights. A trained model hides
mistakes that are small.
""",
    ),
    FindBug(
        id="13.4",
        title="It loads, and writes nonsense",
        minutes=20,
        difficulty=2,
        trains="suspecting an option before suspecting the weights",
        target="PublishedTransformer",
        bugs=(
            Bug(
                "ch13_pretrained.published_hides_its_first_token",
                "The encoder's states are those of the published model, to six digits. The logits "
                "are not, from the first target position on.",
            ),
            Bug(
                "ch13_pretrained.published_scales_twice",
                "The encoder's states differ from the published model's at every position. With "
                "checkpoints whose config says `scale_embedding: false`, all is well.",
            ),
            Bug(
                "ch13_pretrained.published_uses_relu",
                "What goes into the first encoder layer is right, and so is its attention. What "
                "comes out of the layer is a little off, and after each further layer more so.",
            ),
            Bug(
                "ch13_pretrained.published_interleaves_positions",
                "What goes into the first encoder layer is already off. At position 0 as many "
                "features get a 0 and as many a 1 as in the published model, but not the same "
                "ones.",
            ),
            Bug(
                "ch13_pretrained.published_is_pre_norm",
                "No checkpoint of opus-mt can be read: it is said to lack "
                "`model.encoder.layer_norm.weight`. Without that comparison of names the model "
                "runs, and what comes out of the first encoder layer is already off.",
            ),
            Bug(
                "ch13_pretrained.published_forgets_its_bias",
                "The encoder's states are right, and so are the decoder's. The logits of every "
                "position are off by the same 58,101 numbers.",
            ),
        ),
        task="""
{symptom}

The class below changes the chapter's `PublishedTransformer` in one place. Find the mistake and
repair it. The result must pass `check_published_model`.
""",
        hints=(
            "Go along the model and ask at each station whether the numbers are still right: after "
            "the embedding, after the first layer, after the encoder, after the decoder, after the "
            "logits. The mistake is between the last right station and the first wrong one.",
            "`src` is `b k`, states are `b k d_model`, and logits are `b t vocab`. `target_mask` "
            "is `t t`, without an axis for the batch, because it is the same for every sentence.",
        ),
        why="""
Most such mistakes leave all shapes as they are, so no error is raised. Each comes from the paper or
from a habit: ReLU, sines and cosines in turn, a mask that hides padding. But weights only work in
the model that they were trained in.

Bisecting takes minutes, where reading all the code again takes hours. For that you need a reference
that shows its states, and not only its translations.
""",
    ),
    WriteTest(
        id="13.5",
        title="A test for a reader of checkpoints",
        minutes=25,
        difficulty=3,
        trains="making a checkpoint whose content you know",
        target="read_model",
        check="check_read_model",
        at_least=4,
        given="import tempfile\n\nfrom safetensors.torch import load_file, save_file",
        task="""
Write a test of `read_model`. It gets an implementation and calls it as `implementation(folder)`. It
raises an error if the model that comes back is not the one in the folder; `assert` is enough.

You need a checkpoint of which you know everything. Make a small `PublishedTransformer` yourself,
with random weights, and write it by `save_pretrained(model, folder)`. What is read must then give
the same logits. It must also start decoding with the right token, `config.bos_id`, and ban padding,
`config.banned_ids`. And a file that lacks a tensor must raise a `ValueError`.

Six readers that people have really written will be tried. Your test must accept what is right and
refuse **at least 4 of the 6**. Weights as they are initialised hide some of the mistakes: many are
0 or 1.
""",
        solution=test_13_5,
        hints=(
            "A round trip: make a model, write it, read it, compare. Move every parameter by a "
            "random number first, or a bias that is forgotten is 0 in both. Use more than one "
            "config, because a reader may ignore an option that you never switch off. At the end, "
            "take a tensor out of the file.",
            "`src` is `b k` and `tgt` `b t`, of ids below the vocabulary's size; the logits are "
            "`b t vocab`. The file is a dict of tensors by name: `load_file(path)`, and "
            "`save_file(tensors, path)`.",
        ),
        why="""
A round trip through your own writer finds everything that reader and writer do *differently*. It
cannot find what both do wrong: if both exchanged queries and keys, the test would pass. That is
what parity with the published model is for.

Random weights are better here than trained ones, since nothing in them is near 0, symmetric or
redundant. The last step is the most useful one: `load_state_dict(…, strict=False)` is how most
models with missing tensors came to be.
""",
    ),
]

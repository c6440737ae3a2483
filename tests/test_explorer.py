"""The explorer shows the numbers of the model, in one file that needs nothing else."""

import copy
import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from transformer.cli import main
from transformer.data import encode
from transformer.example import example_model, example_tokenizer
from transformer.explorer import Explorer, explore
from transformer.explorer.explorer import json_for_html
from transformer.explorer.translation import LEVELS, dequantised, record_translation
from transformer.inference import beam_search
from transformer.model import Config, Transformer
from transformer.multi_head import MultiHeadAttention, head_weights
from transformer.translator import Translator

SENTENCES = ["I love you very much", "there is a cat on the mat", "the girls are very tired"]
STEP = 0.5 / LEVELS + 1e-6
"""How far a stored weight may be from the model's."""
each_sentence = pytest.mark.parametrize("sentence", SENTENCES)


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(example_model(), example_tokenizer())


def recorded(translator: Translator, sentence: str, beam_size: int = 5, penalty: float = 1.0):
    model = translator.model
    return record_translation(model, translator.tokenizer, sentence, beam_size, penalty)


def teacher_forced(model: Transformer, found: dict) -> dict[str, torch.Tensor]:
    """Recompute all weights in one pass over the finished translation, with hooks."""
    src = torch.tensor([found["source"]["ids"]])
    tgt = torch.tensor([found["read"]["ids"]])
    calls: dict[str, list] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, MultiHeadAttention):

            def keep(module, args, name=name):
                calls[name] = head_weights(module, *args)[0]

            hooks.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(src, tgt)
    for hook in hooks:
        hook.remove()
    kinds = {"encoder": "encoder", "decoder": "decoder", "cross": "decoder"}
    ends = {"encoder": "self_attention", "decoder": "self_attention", "cross": "cross_attention"}
    return {
        kind: torch.stack(
            [calls[n] for n in calls if n.startswith(kinds[kind]) and ends[kind] in n]
        )
        for kind in kinds
    }


# --- equal to the model ---------------------------------------------------------------------------


@each_sentence
def test_the_weights_are_those_of_the_model(translator: Translator, sentence: str) -> None:
    found = recorded(translator, sentence)
    wanted = teacher_forced(translator.model, found)
    for kind, weights in wanted.items():
        shown = dequantised(found["attention"][kind])
        assert shown.shape == weights.shape
        assert (shown - weights).abs().max() < STEP, kind


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("training", [True, False])
def test_the_weights_are_right_for_either_norm_and_in_training_mode(norm, training) -> None:
    tokenizer = example_tokenizer()
    sizes = dict(d_model=24, n_heads=3, n_layers=3, d_ff=20, dropout=0.3, max_len=40)
    torch.manual_seed(3)
    model = Transformer(Config(588, **sizes, norm=norm)).train(training)
    found = record_translation(model, tokenizer, SENTENCES[0], 2)
    assert model.training is training
    for kind, weights in teacher_forced(model.eval(), found).items():
        assert (dequantised(found["attention"][kind]) - weights).abs().max() < STEP, kind


def test_a_wrong_weight_would_be_seen(translator: Translator) -> None:
    found = recorded(translator, SENTENCES[0])
    wanted = teacher_forced(translator.model, found)["cross"]
    shown = dequantised(found["attention"]["cross"])
    assert (shown.flip(1) - wanted).abs().max() > STEP, "heads in another order"
    assert (shown[:, :, 1:] - wanted[:, :, :-1]).abs().max() > STEP, "one step late"


@each_sentence
@pytest.mark.parametrize(("beam_size", "penalty"), [(1, 1.0), (2, 0.0), (5, 1.0)])
def test_the_translation_and_its_score_are_those_of_the_search(
    translator: Translator, sentence: str, beam_size: int, penalty: float
) -> None:
    found = recorded(translator, sentence, beam_size, penalty)
    src = torch.tensor(encode(translator.tokenizer, [sentence]))
    ids, log_probs = beam_search(translator.model, src, beam_size, penalty, 32)
    assert found["target"]["ids"] == ids[0].tolist()
    assert found["target"]["text"] == translator.translate([sentence], beam_size, penalty)[0]
    tree, path = found["beam"]["tree"], found["beam"]["path"]
    assert tree[len(path) - 1][path[-1]][3] == pytest.approx(log_probs.item(), abs=0.6e-3)
    assert [tree[t][i][1] for t, i in enumerate(path)] == found["target"]["ids"]


def hypothesis(tree: list, t: int, i: int) -> list[int]:
    """Return the ids of a node's hypothesis, by its parents."""
    ids = []
    while i >= 0:
        ids.append(tree[t][i][1])
        i = tree[t][i][2]
        t -= 1
    return ids[::-1]


def test_every_score_in_the_beam_is_the_models(translator: Translator) -> None:
    model = translator.model
    found = recorded(translator, SENTENCES[1])
    tree = found["beam"]["tree"]
    src = torch.tensor([found["source"]["ids"]])
    for t, nodes in enumerate(tree):
        for i, (_, _, _, score, _) in enumerate(nodes):
            ids = hypothesis(tree, t, i)
            assert len(ids) == t + 1
            with torch.no_grad():
                logits = model(src, torch.tensor([[1, *ids[:-1]]]))
            each = logits[0].log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])
            assert score == pytest.approx(each.sum().item(), abs=0.6e-3 if score > -1 else 0.6e-2)


@pytest.mark.parametrize("beam_size", [1, 3, 5])
def test_the_beam_keeps_and_prunes_as_the_search_does(
    translator: Translator, beam_size: int
) -> None:
    tree = recorded(translator, SENTENCES[1], beam_size)["beam"]["tree"]
    finished = 0
    for t, nodes in enumerate(tree):
        scores = [node[3] for node in nodes]
        assert scores == sorted(scores, reverse=True) and len(nodes) == 2 * beam_size
        for i, (_, token, _, _, state) in enumerate(nodes):
            assert (state == "finished") == (token == 2 and i < beam_size)
        finished += sum(node[4] == "finished" for node in nodes)
        if t == len(tree) - 1:
            assert finished >= beam_size and not any(node[4] == "kept" for node in nodes)
        else:
            going = [node for node in nodes if node[1] != 2]
            assert [node[4] for node in going[:beam_size]] == ["kept"] * beam_size
            assert not any(node[4] == "kept" for node in going[beam_size:])
            kept = [i for i, node in enumerate(nodes) if node[4] == "kept"]
            assert {node[2] for node in tree[t + 1]} <= set(kept)


def test_a_translation_that_never_ends_is_cut_off(translator: Translator) -> None:
    torch.manual_seed(0)
    model = Transformer(Config(588, d_model=8, n_heads=2, n_layers=1, d_ff=8, max_len=12)).eval()
    with torch.no_grad():
        model.bias[2] = -50.0
    found = record_translation(model, translator.tokenizer, SENTENCES[0], 2)
    assert len(found["steps"]) == 12 and 2 not in found["target"]["ids"]
    assert [node[4] for node in found["beam"]["tree"][-1]][:2] == ["finished", "finished"]


@each_sentence
def test_candidates_shapes_and_cache_are_those_of_each_step(translator, sentence) -> None:
    model = translator.model
    found = recorded(translator, sentence)
    src = torch.tensor([found["source"]["ids"]])
    with torch.no_grad():
        probabilities = model(src, torch.tensor([found["read"]["ids"]]))[0].softmax(-1)
    k = src.shape[1]
    config = model.config
    for t, step in enumerate(found["steps"]):
        best = probabilities[t].topk(8)
        assert [i for _, i, _ in step["candidates"]] == best.indices.tolist()
        shown = torch.tensor([p for _, _, p in step["candidates"]])
        assert (shown - best.values).abs().max() < 0.6e-4
        assert [translator.tokenizer.token_to_id(x) for x, _, _ in step["candidates"]] == [
            i for _, i, _ in step["candidates"]
        ]
        assert step["shapes"] == {
            "x": [1, 1, 24],
            "self": [[1, 4, 1, 6], [1, 4, t + 1, 6], [1, 4, 1, t + 1]],
            "cross": [[1, 4, 1, 6], [1, 4, k, 6], [1, 4, 1, k]],
            "hidden": [1, 1, 48],
            "logits": [1, 588],
        }
        row = 2 * config.n_layers * config.d_model
        assert step["cache"] == {"source": row * k, "target": row * t, "added": row}


@pytest.mark.parametrize("text", ["", "  ", "øøø", "cat " * 70])
def test_what_cannot_be_translated_is_refused(translator: Translator, text: str) -> None:
    with pytest.raises(ValueError, match="text 1"):
        explore(translator, text)


def test_a_beam_below_one_is_refused(translator: Translator) -> None:
    with pytest.raises(ValueError, match="beam_size must be at least 1, not 0"):
        explore(translator, SENTENCES[0], beam_size=0)


# --- the page -------------------------------------------------------------------------------------


class Outside(HTMLParser):
    """Lists what a page refers to."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        for name, value in attrs:
            if name in {"src", "href", "srcset", "data", "action", "poster"}:
                self.found.append(value)


def references(page: str) -> list[str]:
    """Return what a page refers to outside itself, in markup, style or script."""
    parser = Outside()
    parser.feed(page)
    found = [value for value in parser.found if not value.startswith(("data:", "#"))]
    found += re.findall(r"@import|url\((?!data:)|\bfetch\(|XMLHttpRequest|\bimport\s*\(", page)
    addresses = re.findall(r"https?://[^\s\"'`<)]+", page)
    return found + [a for a in addresses if a != "http://www.w3.org/2000/svg"]


def test_the_page_refers_to_nothing_outside(translator: Translator) -> None:
    assert references(explore(translator, SENTENCES[0]).html()) == []


def test_a_reference_is_seen() -> None:
    page = '<script src="x.js"></script><style>a {background: url(b.png)}</style>'
    assert references(page) == ["x.js", "url("]
    assert references("<script>fetch('https://a.b/c')</script>") == ["fetch(", "https://a.b/c"]


def test_the_page_has_the_same_bytes_again(translator: Translator) -> None:
    first, second = (explore(translator, SENTENCES[1]) for _ in range(2))
    assert first.html() == second.html()
    assert first._repr_html_() == second._repr_html_()


def large() -> Explorer:
    """Return a translation by 6 layers of 8 heads, with 20 tokens on either side."""
    torch.manual_seed(0)
    sizes = dict(d_model=64, n_heads=8, n_layers=6, d_ff=64, max_len=20)
    model = Transformer(Config(588, **sizes)).eval()
    with torch.no_grad():
        model.bias[2] = -50.0
    return explore(Translator(model, example_tokenizer()), "cat " * 19)


def test_a_large_page_is_below_300_kilobytes() -> None:
    explorer = large()
    shapes = [stored["shape"] for stored in explorer.translation["attention"].values()]
    assert shapes == [[6, 8, 20, 20]] * 3
    assert len(explorer.html().encode()) < 300_000


def test_text_cannot_end_the_script() -> None:
    text = json_for_html({"text": "</script><script>alert(1)</script><!--"})
    assert "<" not in text
    assert json.loads(text)["text"].startswith("</script>")


def test_what_is_typed_is_escaped(translator: Translator) -> None:
    explorer = explore(translator, 'the cat "is" <b>red</b> & </script>')
    page = explorer.html()
    assert page.count("</script>") == 2 and "<b>red" not in page
    assert "&lt;b&gt;red" in page
    assert explorer._repr_html_().count("<iframe") == 1


def test_the_notebook_shows_the_page_in_a_frame_over_a_picture(translator: Translator) -> None:
    explorer = explore(translator, SENTENCES[0])
    shown = explorer._repr_html_()
    assert unescape(re.search(r'srcdoc="([^"]*)"', shown)[1]) == explorer.html()
    assert "data:image/svg+xml;base64," in shown and "Cross-attention: I love you" in shown
    assert repr(explorer) == "Explorer('I love you very much' → 'ti amo molto')"
    assert "<noscript><svg" in explorer.html()


SHOWN = "I love you very much"
"""The sentence of chapter 12, whose output nbval compares."""


@pytest.mark.parametrize("seed", range(8))
def test_the_page_of_the_notebook_does_not_depend_on_the_last_digits(translator, seed) -> None:
    # Another machine adds up in another order, which changes numbers in their seventh digit.
    generator = torch.Generator().manual_seed(seed)
    wanted = explore(translator, SHOWN).html()
    model = copy.deepcopy(translator.model)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1 + 2e-7 * torch.randn(weight.shape, generator=generator)
    assert explore(Translator(model, translator.tokenizer), SHOWN).html() == wanted


# --- the command ----------------------------------------------------------------------------------

EXAMPLE = Path(__file__).resolve().parent.parent / "transformer" / "example"


def test_the_command_writes_the_page(translator: Translator, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "page.html"
    assert (
        main(["explore", SENTENCES[0], "--model", str(EXAMPLE), "--beam", "3", "-o", str(out)]) == 0
    )
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text(encoding="utf-8") == explore(translator, SENTENCES[0], 3).html()


def test_an_old_page_is_replaced_only_when_the_new_one_is_there(tmp_path: Path, capsys) -> None:
    out = tmp_path / "page.html"
    out.write_text("old", encoding="utf-8")
    assert main(["explore", "øøø", "--model", str(EXAMPLE), "-o", str(out)]) == 1
    assert "no character that the vocabulary knows" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "old"
    assert main(["explore", SENTENCES[0], "--model", str(EXAMPLE), "-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys) -> None:
    assert main(["explore", SENTENCES[0], "--model", str(EXAMPLE), "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: could not write {tmp_path}")
    assert main(["explore", "--model", str(EXAMPLE)]) == 1
    assert "explore needs a sentence" in capsys.readouterr().err


def test_scores_are_numbers(translator: Translator) -> None:
    tree = recorded(translator, SENTENCES[2])["beam"]["tree"]
    assert all(math.isfinite(node[3]) for nodes in tree for node in nodes)

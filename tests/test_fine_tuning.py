"""Fine-tuning published weights, and exports that `transformers` loads."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="an extra of the tests")
pytest.importorskip("sentencepiece", reason="an extra of the tests")

import published_models as made
from lively_models import TOKENIZER, lively

from transformer.cli import main
from transformer.corpora import Corpus
from transformer.data import encode, pad
from transformer.engines import export
from transformer.inference import beam_search
from transformer.model import load_model, save_model
from transformer.pretrained import load_pretrained, read_model
from transformer.recipes import fine_tune
from transformer.training import TrainingConfig
from transformer.translator import Translator

PAIRS = [
    ("there is a cat on the mat", "il cane vede un gatto"),
    ("I love you very much!", "ti amo molto"),
]
QUICK = TrainingConfig(steps=120, peak_lr=1e-2, warmup=5, ema_decay=0.5, validate_every=60)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("opus")
    size = made.write_marian_tokens(folder)
    made.marian(vocab_size=size, init_std=0.1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], Path]:
    out = tmp_path_factory.mktemp("runs") / "tuned"
    corpus = Corpus("two", PAIRS * 10, PAIRS)
    return fine_tune(corpus, out, published, QUICK, precision="fp32"), out


def test_fine_tuning_learns_and_translates(tuned: tuple[list[dict], Path]) -> None:
    history, out = tuned
    assert history[0]["step"] == 0
    assert history[-1]["val_loss"] < history[0]["val_loss"] / 2
    found = Translator.load(out).translate([src for src, _ in PAIRS])
    assert found == [tgt for _, tgt in PAIRS]


@torch.no_grad()
def test_transformers_loads_what_was_fine_tuned(tuned: tuple[list[dict], Path]) -> None:
    from transformers import MarianMTModel, MarianTokenizer

    _, out = tuned
    theirs = MarianMTModel.from_pretrained(out).eval()
    ours, tokenizer = load_pretrained(out)
    inputs = MarianTokenizer.from_pretrained(out)(
        [src for src, _ in PAIRS], return_tensors="pt", padding=True
    )
    assert (
        inputs.input_ids.tolist()
        == pad(tokenizer.encode([src for src, _ in PAIRS]), ours.config.pad_id).tolist()
    )
    tgt = torch.randint(2, 20, (2, 6))
    want = theirs(**inputs, decoder_input_ids=tgt, use_cache=False).logits
    got = ours(inputs.input_ids, tgt)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_the_command_fine_tunes(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for split in ("src", "tgt"):
        texts = [pair[split == "tgt"] for pair in PAIRS * 10]
        (tmp_path / split).write_text("\n".join(texts) + "\n", encoding="utf-8")
    files = ["--corpus", "files"]
    for split in ("--train", "--val"):
        files += [split, str(tmp_path / "src"), str(tmp_path / "tgt")]
    out = str(tmp_path / "out")
    command = ["train", *files, "--init", str(published), "--out", out, "--steps", "2"]
    assert main([*command, "--device", "cpu"]) == 0
    assert "before and" in capsys.readouterr().err
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--d-model", "32"]) == 1
    assert "--d-model cannot be used with --init" in capsys.readouterr().err
    for option in (["--simcut", "3"], ["--recipe", "multi30k-en-de"], ["--beam", "4"]):
        assert main([*command, "--overwrite", *option]) == 1
        assert f"{option[0]} cannot be used with --init" in capsys.readouterr().err
    assert main(["export", "--model", out, "--to", "transformers", "--out", f"{out}2"]) == 0
    one, two = (read_model(folder).state_dict() for folder in (out, f"{out}2"))
    assert all(two[name].equal(x) for name, x in one.items())
    assert main(["export", "--model", out, "--to", "onnx"]) == 1
    assert main(["translate", "--model", out, "--device", "cpu", "the cat"]) == 0


def test_what_cannot_be_fine_tuned_is_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pair of none's train split"):
        fine_tune(Corpus("none", [("ΩΩ", "x")], PAIRS), tmp_path / "out", published, QUICK)
    with pytest.raises(ValueError, match="where the weights come from"):
        fine_tune(Corpus("two", PAIRS, PAIRS), published, published, QUICK)
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def test_a_model_of_the_course_is_exported_to_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    save_model(lively(), tmp_path / "mine")
    model = load_model(tmp_path / "mine")
    TOKENIZER.save(str(tmp_path / "mine" / "tokenizer.json"))
    out = export(tmp_path / "mine", "transformers")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = ["the cat is on the mat", "a dog", "cat"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    src = pad(encode(TOKENIZER, texts))
    assert inputs.input_ids.equal(src)
    tgt = torch.randint(3, 20, (3, 6))
    want = theirs(**inputs, decoder_input_ids=tgt, use_cache=False).logits
    torch.testing.assert_close(model(src, tgt), want, atol=1e-5, rtol=1e-5)
    found = theirs.generate(**inputs, num_beams=5)[:, 1:]
    ours, _ = beam_search(model, src, max_len=model.config.max_len - 1)
    real = [[i for i in row if i] for row in ours.tolist()]
    # `generate` pads with </s> where the padding is 0.
    rows = [row[: row.index(2) + 1] if 2 in row else row for row in found.tolist()]
    assert rows == real


def test_pre_norm_is_not_exported_to_transformers(tmp_path: Path) -> None:
    save_model(lively("pre"), tmp_path)
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="pre-norm"):
        export(tmp_path, "transformers")

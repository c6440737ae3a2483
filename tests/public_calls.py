"""Calls of every public function and class, for the test that none of them changes anything.

A `World` is what a caller holds. Each function below calls the library with it, and is registered
under the names that it covers, with what it may change and whether it draws random numbers.
"""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from snapshots import everything
from tokenizers import Tokenizer
from torch import Tensor

from transformer import (
    alignment,
    corpora,
    data,
    distributed,
    engines,
    example,
    explorer,
    files,
    inference,
    metrics,
    pretrained,
    recipes,
    texts,
    training,
    zoo,
)
from transformer import fast_decoding as fd
from transformer import fast_training as ft
from transformer.attention import attention, attention_weights
from transformer.course import borrow
from transformer.decoder import Decoder, DecoderLayer, causal_mask, padding_mask
from transformer.embeddings import TokenEmbedding
from transformer.encoder import Encoder, EncoderLayer
from transformer.explorer.live import RUNTIME_FILES
from transformer.feed_forward import FeedForward
from transformer.model import (
    Config,
    Transformer,
    init_weights,
    load_model,
    read_config,
    save_model,
    shapes,
)
from transformer.multi_head import MultiHeadAttention, head_weights
from transformer.positional_encoding import PositionalEncoding, sinusoidal_positions
from transformer.residual_norm import LayerNorm, PostNorm, PreNorm, layer_norm
from transformer.sampling import sample_translations
from transformer.translator import (
    Translator,
    check_engine,
    exported_engine,
    groups_by_length,
    model_folder,
    published_place,
    read_search,
    round_up,
)

TEXTS = ["the cat is on the mat", "a dog", "il gatto è sul tappeto", "un cane"]
PAIRS = list(zip(TEXTS[:2], TEXTS[2:]))


@dataclass
class World:
    """What a caller holds when it calls the library. `folder` is for files, and is not watched."""

    model: Transformer
    tokenizer: Tokenizer
    folder: Path
    corpus: corpora.Corpus
    preset: recipes.Preset
    src: Tensor
    tgt: Tensor
    batch: data.Batch
    id_pairs: list
    trainer: training.Trainer
    texts: list = field(default_factory=lambda: list(TEXTS))
    config: training.TrainingConfig = field(
        default_factory=lambda: training.TrainingConfig(steps=2)
    )
    q: Tensor = field(default_factory=lambda: torch.randn(2, 2, 5, 8, requires_grad=True))
    k: Tensor = field(default_factory=lambda: torch.randn(2, 2, 7, 8, requires_grad=True))
    v: Tensor = field(default_factory=lambda: torch.randn(2, 2, 7, 8, requires_grad=True))
    mask: Tensor = field(default_factory=lambda: torch.rand(2, 1, 5, 7) > 0.3)
    x: Tensor = field(default_factory=lambda: torch.randn(2, 5, 16, requires_grad=True))
    memory: Tensor = field(default_factory=lambda: torch.randn(2, 7, 16, requires_grad=True))
    logits: Tensor = field(default_factory=lambda: torch.randn(2, 5, 9, requires_grad=True))
    scores: Tensor = field(default_factory=lambda: torch.randn(4, 640))

    def snapshot(self) -> dict[str, Any]:
        watched = {name: value for name, value in vars(self).items() if name != "folder"}
        return everything(**watched)


def make_world(folder: Path, mode: str) -> World:
    """Return a small world; in training mode one layer is in eval mode, as fine-tuning does."""
    tokenizer = data.train_tokenizer(TEXTS * 3, 40)
    v = tokenizer.get_vocab_size()
    sizes = dict(d_model=16, n_heads=2, n_layers=2, d_ff=24, max_len=48, dropout=0.2)
    model = Transformer(Config(v, **sizes)).train(mode == "training")
    model.encoder.layers[0].eval()
    id_pairs = data.encode_pairs(tokenizer, PAIRS)
    batch = data.collate(id_pairs)
    return World(
        model=model,
        tokenizer=tokenizer,
        folder=folder,
        corpus=corpora.Corpus("toy", PAIRS * 4, PAIRS, PAIRS),
        preset=recipes.Preset(40, training.TrainingConfig(steps=2, max_tokens=40), sizes),
        src=batch.src,
        tgt=batch.decoder_input,
        batch=batch,
        id_pairs=id_pairs,
        trainer=training.Trainer(model, training.TrainingConfig(steps=2)),
    )


TRAINING = ("training",)
BOTH = ("training", "eval")


@dataclass
class Case:
    """A call of the library, and what it has leave to do.

    `may_change` is a pattern of paths. `draws` are the modes of the model in which it draws random
    numbers, `modes` those in which it is tried. `needs` is an optional package, `threads` how many
    PyTorch has meanwhile.
    """

    run: Callable[[World], object]
    names: tuple[str, ...]
    may_change: str = "nothing"
    draws: tuple[str, ...] = ()
    modes: tuple[str, ...] = BOTH
    needs: str = "torch"
    threads: int = 1
    marks: tuple = ()


CASES: dict[str, Case] = {}


def calls(*names: str, **leave) -> Callable:
    """Register a function that calls the library, under the public names that it covers."""

    def register(run: Callable[[World], object]) -> Callable[[World], object]:
        CASES[run.__name__] = Case(run, names, **leave)
        return run

    return register


# --- chapters 1 to 8 ------------------------------------------------------------------------------


@calls("attention.attention", "attention.attention_weights")
def attend(w: World) -> None:
    for mask in (None, w.mask):
        attention(w.q, w.k, w.v, mask)
        attention_weights(w.q, w.k, mask)


@calls(
    "embeddings.TokenEmbedding",
    "positional_encoding.sinusoidal_positions",
    "positional_encoding.PositionalEncoding",
    draws=BOTH,
)
def embed(w: World) -> None:
    TokenEmbedding(50, 16)(w.src)
    sinusoidal_positions(5, 16)
    PositionalEncoding(16, 9)(w.x, 2)


@calls("multi_head.MultiHeadAttention", "multi_head.head_weights", draws=BOTH)
def attend_with_heads(w: World) -> None:
    module = MultiHeadAttention(16, 2)
    module(w.x, w.memory, w.mask)
    module.attend(w.x, *module.project_kv(w.memory), w.mask)
    head_weights(w.model.decoder.layers[0].self_attention, w.x, w.memory, w.mask)


@calls(
    "residual_norm.layer_norm",
    "residual_norm.LayerNorm",
    "residual_norm.PostNorm",
    "residual_norm.PreNorm",
    "feed_forward.FeedForward",
    draws=BOTH,
)
def wrap_sublayers(w: World) -> None:
    layer_norm(w.x, torch.ones(16), torch.zeros(16))
    LayerNorm(16)(w.x)
    for residual in (PostNorm, PreNorm):
        residual(16, 0.1)(w.x, FeedForward(16, 24))


@calls("encoder.EncoderLayer", "encoder.Encoder", draws=BOTH)
def run_the_encoder(w: World) -> None:
    mask = padding_mask(w.src, 0)
    x = torch.randn(*w.src.shape, 16)
    EncoderLayer(16, 2, 24, 0.1)(x, mask)
    Encoder(2, 16, 2, 24, 0.1, PreNorm)(x, mask)


@calls(
    "decoder.causal_mask",
    "decoder.padding_mask",
    "decoder.DecoderLayer",
    "decoder.Decoder",
    draws=BOTH,
)
def run_the_decoder(w: World) -> None:
    masks = (causal_mask(5), w.mask)
    DecoderLayer(16, 2, 24, 0.1)(w.x, w.memory, *masks)
    Decoder(2, 16, 2, 24, 0.1, PreNorm)(w.x, w.memory, *masks)


# --- chapters 9 and 10 ----------------------------------------------------------------------------


@calls("model.Transformer", draws=TRAINING)
def run_the_model(w: World) -> None:
    model = w.model
    memory = model.encode(w.src)
    model.decode(w.tgt, memory, w.src)
    model.logits(model.decoder_states(w.tgt, memory, w.src))
    model.embed(w.src, start=3)
    model.target_mask(w.tgt)
    torch.autograd.grad(model(w.src, w.tgt).sum(), tuple(model.parameters()))


@calls("model.Config", "model.init_weights", draws=BOTH)
def make_a_model(w: World) -> None:
    Config.base(n_layers=1)
    Config.big()
    new = Transformer(Config.tiny(19, d_model=8, d_ff=12, n_heads=2))
    new.apply(init_weights)


@calls("model.save_model", "model.load_model", "model.read_config", "model.shapes", draws=BOTH)
def save_and_load_the_model(w: World) -> None:
    save_model(w.model, w.folder)
    load_model(w.folder)
    read_config(w.folder / "config.json")
    shapes(w.model.state_dict())


@calls("data.train_tokenizer", "data.load_tokenizer", "data.encode", "data.decode")
def tokenize(w: World) -> None:
    data.train_tokenizer(w.texts, 30, lowercase=True)
    files.atomic_write(w.folder / "tokenizer.json", w.tokenizer.to_str().encode())
    data.load_tokenizer(w.folder / "tokenizer.json", w.tokenizer.get_vocab_size())
    data.decode(w.tokenizer, data.encode(w.tokenizer, w.texts))


@calls(
    "data.encode_pairs",
    "data.Batch",
    "data.pad",
    "data.collate",
    "data.batches_by_length",
    "data.epoch",
)
def make_batches(w: World) -> None:
    data.encode_pairs(w.tokenizer, w.corpus.train)
    data.pad([src for src, _ in w.id_pairs])
    data.collate(w.id_pairs)
    data.batches_by_length(w.id_pairs, 10)
    list(data.epoch(w.id_pairs, 10, seed=3))
    w.batch.to("cpu").labels.sum()
    assert w.batch.n_tokens > 0


# --- chapter 11 -----------------------------------------------------------------------------------


@calls(
    "training.label_smoothed_loss",
    "training.learning_rate",
    "training.TrainingConfig",
    "training.translation_loss",
    draws=TRAINING,
)
def compute_a_loss(w: World) -> None:
    labels = torch.arange(1, 11).reshape(2, 5) % 9
    torch.autograd.grad(training.label_smoothed_loss(w.logits, labels, 0), w.logits)
    training.learning_rate(3, 10, 0.1)
    replace(w.config, steps=3)
    training.translation_loss(w.model, w.batch, 0.1)


@calls("training.Trainer")
def make_a_trainer(w: World) -> None:
    trainer = training.Trainer(w.model, w.config)
    trainer.validate([w.batch])
    training.Trainer(ft.optimize_for_cpu(w.model), w.config, ft.chunked_loss)


TRAINED = r"model\.(.*\.)?(data|grad|training)|trainer\.(ema_model|optimizer|steps).*"
"""What a step is for: weights, gradients, the training flags, the average, Adam's moments."""


@calls(may_change=TRAINED, draws=BOTH)
def take_a_step(w: World) -> None:
    w.trainer.step(w.batch, w.batch)


@calls("training.train", "training.training_batches", may_change=TRAINED, draws=BOTH)
def train_a_little(w: World) -> None:
    next(training.training_batches(w.id_pairs, w.config))
    training.train(w.trainer, w.id_pairs, w.id_pairs)


@calls(
    "training.save_checkpoint",
    "training.checkpoint_tensors",
    "training.random_states",
    "training.read_about",
)
def save_a_checkpoint(w: World) -> None:
    training.save_checkpoint(w.trainer, w.folder / "checkpoint", {"note": 1})
    training.checkpoint_tensors(w.trainer)
    training.random_states()
    training.read_about(w.folder / "checkpoint")


@calls(
    "training.load_checkpoint",
    "training.optimizer_state",
    "training.restore_random_states",
    may_change=r"trainer\.(ema_model|optimizer|steps).*|model\..*\.data",  # what is loaded
    draws=BOTH,
)
def load_a_checkpoint(w: World) -> None:
    other = training.Trainer(Transformer(w.model.config), w.config)
    other.step(w.batch)
    training.save_checkpoint(other, w.folder / "checkpoint")
    training.load_checkpoint(w.trainer, w.folder / "checkpoint")


# --- chapter 14 -----------------------------------------------------------------------------------


@calls("distributed.my_share", "distributed.shard", "distributed.shards", "distributed.Shard")
def take_shards(w: World) -> None:
    distributed.my_share(5, 1, 2)
    distributed.shard(w.batch, 1, 2).to("cpu")
    list(distributed.shards([(w.batch, w.batch)], 0, 2))
    distributed.Shard(w.src, w.tgt, 0.5, 7)


@calls("distributed.LossModule", draws=BOTH)
def lose_as_a_module(w: World) -> None:
    distributed.LossModule(w.model, training.translation_loss)(w.batch, 0.1)


# --- chapter 12 -----------------------------------------------------------------------------------


@calls(
    "inference.greedy_search",
    "inference.beam_search",
    "inference.generate",
    "model.inference_context",
    "inference.beam_hypotheses",
    "inference.best_of",
    "inference.collect",
)
def search(w: World) -> None:
    for decoder in (inference.IncrementalDecoder, inference.RecomputingDecoder):
        inference.greedy_search(w.model, w.src, 6, decoder)
        inference.beam_search(w.model, w.src, 3, 1.0, 6, decoder)
    with inference.inference_context(w.model):
        w.model(w.src, w.tgt)
    with contextlib.suppress(ZeroDivisionError), inference.inference_context(w.model):
        raise ZeroDivisionError


@calls("inference.sample")
def sample_with_a_generator(w: World) -> None:
    inference.sample(w.model, w.src, 0.5, 3, 6, torch.Generator().manual_seed(0))


@calls(draws=BOTH)
def sample_without_a_generator(w: World) -> None:
    inference.sample(w.model, w.src, max_len=6)


@calls(
    "inference.TokenDecoder",
    "inference.IncrementalDecoder",
    "inference.RecomputingDecoder",
    "inference.KVCache",
    "inference.decode_position",
    "fast_decoding.PackedDecoder",
    "fast_decoding.StaticDecoder",
    draws=TRAINING,
)
def decode_token_by_token(w: World) -> None:
    packed = fd.PackedDecoder(w.model, warmup_calls=0)
    with torch.no_grad():
        for make in (inference.IncrementalDecoder, inference.RecomputingDecoder, packed):
            use_decoder(make(w.model, w.src))


def use_decoder(decoder: inference.TokenDecoder) -> None:
    """Call every method of a decoder of two sentences."""
    ids = torch.ones(2, dtype=torch.int64)
    decoder.step(ids)
    decoder.reorder(torch.tensor([[0, 0], [1, 1]]))
    logits = decoder.step(torch.tensor([4, 5, 6, 7]))
    decoder.argmax(logits)
    decoder.best_extensions(logits, torch.zeros(2, 2), 3)
    decoder.reorder(torch.tensor([[3]]))
    decoder.step(ids[:1])


@calls("inference.mask_special_tokens", may_change=r"scores\.data")  # in place, it says
def mask_tokens(w: World) -> None:
    inference.mask_special_tokens(w.scores, w.model.config)


# --- chapter 13 -----------------------------------------------------------------------------------


@calls(
    "pretrained.PublishedConfig",
    "pretrained.PublishedTransformer",
    "pretrained.fairseq_positions",
    "pretrained.half_positions",
    "pretrained.layer_names",
    "pretrained.published_name",
    "pretrained.published_names",
    "pretrained.published_weights",
    "translator.published_place",
    "pretrained.read_model",
    "pretrained.save_pretrained",
    draws=BOTH,
)
def read_and_write_published_weights(w: World) -> None:
    sizes = dict(d_model=8, n_heads=2, n_layers=1, d_ff=8, max_len=9, pad_id=5, bos_id=5)
    encoder = dict(source_vocab_size=6, encoder_layers=1, encoder_heads=2, encoder_d_ff=8)
    model = pretrained.PublishedTransformer(pretrained.PublishedConfig(6, **sizes, **encoder))
    pretrained.published_names(model)
    pretrained.published_weights(model)
    pretrained.read_model(pretrained.save_pretrained(model, w.folder / "published"))
    published_place(w.folder)
    pretrained.half_positions(3, 4)
    pretrained.layer_names("decoder")
    pretrained.fairseq_positions(3, 4)
    pretrained.published_name("encoder.layers.0.feed_forward.w_1.weight")


# --- chapters 15 and 16 ---------------------------------------------------------------------------


@calls(
    "fast_training.chunked_loss",
    "fast_training.in_bfloat16",
    "fast_training.optimize_for_cpu",
    draws=TRAINING,
)
def compute_the_fast_loss(w: World) -> None:
    fast = ft.optimize_for_cpu(w.model)
    for loss in (ft.chunked_loss, ft.in_bfloat16(ft.chunked_loss)):
        value = loss(fast, w.batch, 0.1)
        torch.autograd.grad(value, tuple(fast.parameters()))
        with torch.no_grad():
            loss(fast, w.batch, 0.1)


@calls(
    "fast_training.chunked_cross_entropy",
    "fast_training.ChunkedCrossEntropy",
    "fast_training.loss_and_gradients",
    "fast_training.softmax_term",
)
def compute_a_loss_in_chunks(w: World) -> None:
    x = w.x.flatten(0, 1)
    table = w.model.embedding.weight
    labels = torch.arange(10)
    inputs = (x, table, w.model.bias, labels)
    torch.autograd.grad(ft.chunked_cross_entropy(*inputs, 0, 0.1, 3), (w.x, table, w.model.bias))
    with torch.no_grad():
        ft.loss_and_gradients(*inputs, 0, 0.1, 3)
        ft.softmax_term(*inputs, 3)


@calls(
    "fast_training.short_attention",
    "fast_training.causal_attention",
    "fast_training.fill_register",
    "fast_training.CheapDropout",
    draws=BOTH,
)
def attend_fast(w: World) -> None:
    ft.short_attention(w.q, w.k, w.v, w.mask)
    ft.fill_register(w.k, w.v, w.mask)
    ft.CheapDropout(0.2)(w.x)
    q, k, v = torch.randn(3, 2, 2, 40, 8)
    ft.causal_attention(q, k, v, causal_mask(40) & torch.ones(2, 1, 1, 40, dtype=torch.bool))


@calls(draws=TRAINING)
def search_fast(w: World) -> None:
    for warmup_calls in (0, 1000):
        packed = fd.PackedDecoder(w.model, warmup_calls)
        inference.greedy_search(w.model, w.src, 6, packed)
        inference.beam_search(w.model, w.src, 3, 1.0, 6, packed)


# --- metrics, files, corpora ----------------------------------------------------------------------


@calls(
    "metrics.bleu",
    "metrics.chrf",
    "metrics.exact_match",
    "metrics.scores",
    "metrics.bleu_metric",
    "metrics.check_aligned",
    "metrics.paired_bootstrap",
    "metrics.mean_and_spread",
    "metrics.minimum_risk",
    "metrics.sentence_chrf",
)
def score(w: World) -> None:
    metrics.paired_bootstrap(w.texts, w.texts[::-1], w.texts, samples=10)
    metrics.mean_and_spread([1.0, 2.0])
    metrics.minimum_risk(w.texts)
    metrics.sentence_chrf(*w.texts[:2])
    metrics.check_aligned(w.texts, w.texts)
    metrics.bleu_metric("13a")
    for metric in (metrics.bleu, metrics.chrf, metrics.exact_match, metrics.scores):
        metric(w.texts, w.texts[::-1])


@calls("metrics.moses_tokens", needs="sacremoses")
def split_into_moses_tokens(w: World) -> None:
    metrics.moses_tokens(w.texts, "en")


@calls(
    "files.atomic_write",
    "files.atomic_folder",
    "files.check_writable",
    "files.files_together",
    "files.move_ready",
    "files.folder_lock",
    "files.read_tensors",
    "files.remove_drafts",
    "files.cache_dir",
    "files.downloader",
)
def write_files(w: World) -> None:
    files.atomic_write(w.folder / "a" / "b", b"text")
    with files.folder_lock(w.folder / "out"), files.atomic_folder(w.folder / "out", ["x"]) as out:
        (out / "x").write_text("1")
    files.check_writable(w.folder / "a" / "c")
    with files.files_together(w.folder / "a") as draft:
        (draft / "b").write_text("x")
    files.move_ready(w.folder / "a")
    files.remove_drafts(w.folder)
    save_model(w.model, w.folder)
    files.read_tensors(w.folder / "model.safetensors")
    files.cache_dir()
    files.downloader()


@calls(
    "corpora.Corpus",
    "corpora.english_italian",
    "corpora.multi30k",
    "corpora.read_pairs",
    "corpora.text_files",
    modes=TRAINING,
    marks=(pytest.mark.translator,),  # it takes seconds
)
def read_corpora(w: World) -> None:
    list(w.corpus.texts())
    corpora.english_italian(train=100, held_out=10)
    (w.folder / "raw").mkdir()
    for name in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de"):
            (w.folder / "raw" / f"{name}.{language}").write_text("a dog\na cat\n" * 30)
    paths = [w.folder / "raw" / f"train.{language}" for language in ("en", "de")]
    corpora.read_pairs(*paths)
    corpora.text_files(paths)
    with contextlib.suppress(FileNotFoundError):
        corpora.multi30k(folder=w.folder)


# --- recipes, engines, translator -----------------------------------------------------------------


@calls(
    "recipes.fit",
    "recipes.Preset",
    "recipes.Decoding",
    "recipes.Recipe",
    "recipes.Techniques",
    "recipes.read_recipe",
    "recipes.recipe_names",
    "recipes.settings_of",
    "recipes.SavedRun",
    "recipes.checkpoints",
    "recipes.corpus_hash",
    "recipes.fast_trainer",
    "recipes.holds_run",
    "recipes.is_same_run",
    "recipes.only_run",
    "recipes.read_run",
    modes=TRAINING,
)
def fit_a_corpus(w: World) -> None:
    recipes.fit(w.corpus, w.folder, w.preset)
    for name in recipes.recipe_names():
        recipes.settings_of(recipes.read_recipe(name).preset)
    recipes.Techniques(simcut=1.0).loss()
    newest = recipes.checkpoints(w.folder)[-1]
    recipes.fit(w.corpus, w.folder, replace(w.preset), resume=newest)
    saved = recipes.read_run(newest)
    saved.load_tokenizer()
    assert recipes.is_same_run(saved, w.preset, "auto", recipes.corpus_hash(w.corpus))
    with recipes.only_run(w.folder):
        recipes.holds_run(w.folder)
    for precision in ("fp32", "bf16"):
        recipes.fast_trainer(w.model, w.config, precision).validate([w.batch])


def save_translator(w: World) -> Path:
    """Write the world's model and tokenizer as a translator's folder."""
    folder = w.folder / "translator"
    save_model(w.model, folder)
    files.atomic_write(folder / "tokenizer.json", w.tokenizer.to_str().encode())
    return folder


@calls(
    "translator.Translator",
    "translator.check_engine",
    "translator.exported_engine",
    "translator.groups_by_length",
    "translator.model_folder",
    "translator.read_search",
    "sampling.sample_translations",
    "translator.round_up",
    "reader.warn_about",
    "reader.read_texts",
    "reader.clean_lines",
    "data.problem_of",
    "engines.PyTorchEngine",
    threads=2,  # so that groups are searched by two workers
    marks=(pytest.mark.translator,),  # it takes seconds
)
def translate(w: World) -> None:
    translator = Translator(w.model, w.tokenizer)
    for beam_size in (1, 3):
        translator.translate(w.texts * 9, beam_size, max_tokens=60)
    Translator(w.model, w.tokenizer, engines.PyTorchEngine(w.model)).translate(w.texts[:1])
    rows = data.encode(w.tokenizer, w.texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        translator.n_best([*w.texts, "", "øøø"], engines.Search(n_best=2))
    data.problem_of(w.tokenizer, "the cat", rows[0])
    check_engine("pytorch", "fp32", "cpu")
    exported_engine("pytorch", w.folder, w.model, w.tokenizer, "cpu", "fp32")
    groups_by_length(rows, round_up(20, 16))
    read_search(model_folder(save_translator(w)))
    sample_translations(translator, w.texts, 2)


@calls(
    "alignment.attention_rows",
    "alignment.cross_attention_weights",
    "alignment.readable",
    "alignment.rounded",
)
def look_at_attention(w: World) -> None:
    alignment.cross_attention_weights(w.model, w.src, w.tgt)
    list(alignment.attention_rows(w.model, w.tokenizer, PAIRS))
    alignment.readable(w.tokenizer, PAIRS[0], 64)
    alignment.rounded(w.x[0])


@calls(draws=BOTH)
def load_a_translator(w: World) -> None:
    folder = save_translator(w)
    for precision in ("fp32", "bf16"):
        Translator.load(folder, precision=precision).translate(w.texts)


@calls(
    "engines.CTranslate2Engine",
    "engines.export_ctranslate2",
    "engines.export",
    draws=BOTH,
    modes=TRAINING,
    needs="ctranslate2",
)
def use_ctranslate2(w: World) -> None:
    folder = engines.export_ctranslate2(w.model, w.tokenizer, w.folder / "out")
    engine = engines.CTranslate2Engine(folder, w.model.config)
    list(engine.search_all([(data.encode(w.tokenizer, w.texts), 9)]))
    engines.export(save_translator(w), "ctranslate2")


@calls(
    "engines.OnnxEngine",
    "engines.export_onnx",
    modes=TRAINING,
    needs="onnxruntime",
    marks=(pytest.mark.slow,),
)
def use_onnx(w: World) -> None:
    folder = engines.export_onnx(w.model, w.folder / "out")
    engine = engines.OnnxEngine(folder, w.model.config)
    list(engine.search_all([(data.encode(w.tokenizer, w.texts), 9)], engines.Search(2)))


# --- explorer -------------------------------------------------------------------------------------


@calls("explorer.explore", "explorer.Explorer", modes=BOTH)
def explore_a_translation(w: World) -> None:
    found = explorer.explore(Translator(w.model, w.tokenizer), w.texts[0], 2)
    found.save(w.folder / "page.html")
    explorer.Explorer(found.translation)._repr_html_()


@calls("explorer.write_live", modes=TRAINING, needs="onnxruntime", marks=(pytest.mark.slow,))
def write_the_live_page(w: World) -> None:
    for name in RUNTIME_FILES:
        (w.folder / name).write_text(name)
    explorer.write_live(Translator(w.model, w.tokenizer), w.folder / "live", "a dog", w.folder)


# --- texts ----------------------------------------------------------------------------------------


@calls(
    "texts.clean",
    "texts.decode_line",
    "texts.lines_of",
    "texts.most_characters",
    "texts.read_lines",
    "texts.skip_line",
)
def read_texts_of_all_kinds(w: World) -> None:
    path = w.folder / "text"
    path.write_text("\n".join(w.texts), encoding="utf-8")
    assert [*map(texts.clean, w.texts)] == texts.read_lines(path)
    with path.open("rb") as stream:
        assert len(list(texts.lines_of(stream, "text", 90))) == len(w.texts)
        texts.skip_line(stream)
    texts.decode_line(b"the cat", 1, "text")
    texts.most_characters(w.texts, 9)


# --- the running example --------------------------------------------------------------------------


@calls(
    "example.after",
    "example.example_batch",
    "example.example_model",
    "example.example_tokenizer",
    "example.head_projections",
    "example.tokens",
    "example.weights",
)
def follow_the_example(w: World) -> None:
    for chapter in range(13):
        example.after(chapter)
    example.example_tokenizer()
    example.example_model()(example.example_batch().src, w.tgt)
    example.head_projections(3)
    example.tokens(w.src)
    example.weights("encoder")


# --- the course and the zoo -----------------------------------------------------------------------


@calls("course.borrow", "zoo.Member", "zoo.member", "zoo.members", "zoo.names")
def borrow_a_block_and_visit_the_zoo(w: World) -> None:
    def forward():
        return w.x

    assert borrow(forward)() is w.x
    first = zoo.names()[0]
    assert zoo.member(first).name == next(zoo.members(zoo.member(first).check)).name

"""Checks that find the mistakes people really make.

Each takes an implementation with the signature of its chapter, prints one line when it is right, and raises a
CheckError when it is wrong: what was observed, on which input, and what usually causes it.

    >>> from transformer.checks import check_attention
    >>> check_attention(attention)
    attention: right (equal to PyTorch, masks, empty rows, float16 to float64)
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from sacrebleu.metrics import BLEU, CHRF
from tokenizers import Tokenizer
from torch import Tensor, nn

from transformer.data import Batch
from transformer.embeddings import TokenEmbedding
from transformer.model import NORMS, Config, Transformer

Suspects = dict[str, Callable[[], Tensor]]


class CheckError(AssertionError):
    """What a check found wrong."""


# --- how a check works -----------------------------------------------------------------------------------------------


def expect(condition: bool | Tensor, message: str) -> None:
    """Raise a CheckError with `message` unless the condition holds."""
    if not condition:
        raise CheckError(message)


def check(right: str) -> Callable:
    """Turn a function into a check that says `right` in one line, and leaves the caller's random numbers alone."""

    def decorate(function: Callable) -> Callable:
        name = function.__name__.removeprefix("check_").replace("_", " ")

        @functools.wraps(function)
        def run(implementation, *args, **options) -> None:
            device = torch.device(options.get("device", "cpu"))
            gpus = [torch.cuda.current_device()] if device.type == "cuda" else []
            with torch.random.fork_rng(devices=gpus), torch.enable_grad():
                torch.default_generator.manual_seed(0)
                try:
                    function(implementation, *args, **options)
                except CheckError as error:
                    raise CheckError(f"{name}: {error}") from error.__cause__
                except Exception as error:
                    raise CheckError(f"{name}: {type(error).__name__}: {first_line(error)}") from error
            print(f"{name}: right ({right})")

        return run

    return decorate


def first_line(error: Exception) -> str:
    """Return what an exception says, at most a line of it."""
    return str(error).strip().partition("\n")[0][:200]


def size(value: object) -> str:
    """Describe an input: a tensor by its shape and dtype, anything short by itself."""
    if isinstance(value, Tensor):
        return f"{'×'.join(map(str, value.shape)) or 'one number'} {str(value.dtype).removeprefix('torch.')}"
    text = repr(value)
    return text if len(text) < 40 else type(value).__name__


def call(fn: Callable, *args, hint: str = "", **options):
    """Call an implementation; what it raises becomes a CheckError that says on which input."""
    try:
        return fn(*args, **options)
    except CheckError:
        raise
    except Exception as error:
        inputs = [size(value) for value in args] + [f"{name}={size(value)}" for name, value in options.items()]
        message = f"it raised {type(error).__name__} on ({', '.join(inputs)}): {first_line(error)}"
        raise CheckError(f"{message.rstrip('.')}. {hint}".strip()) from error


def refuses(fn: Callable, *args, what: str, **options) -> None:
    """Expect a ValueError: a wrong input is met at the door."""
    try:
        fn(*args, **options)
    except ValueError:
        return
    except Exception as error:
        raise CheckError(f"{what} must be refused with a ValueError, not {type(error).__name__}") from error
    raise CheckError(f"{what} was accepted; refuse it with a ValueError that says what was wanted")


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference; infinite when shapes differ or a number is not finite."""
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return math.inf
    return (a.double() - b.double()).abs().max().item() if a.numel() else 0.0


TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def agree(got: Tensor, want: Tensor, where: str, suspects: Suspects | None = None, tolerance: float | None = None):
    """Expect two tensors to be equal; otherwise name the suspect that explains what was got."""
    expect(isinstance(got, Tensor), f"{where}: the result is a {type(got).__name__}, not a tensor")
    expect(got.shape == want.shape, f"{where}: the result is {size(got)}, wanted {size(want)}")
    largest = want.abs().max().item() if want.numel() else 0.0
    tolerance = (tolerance or TOLERANCE.get(got.dtype, 0.0)) * max(1.0, largest)
    if distance(got, want) <= tolerance:
        return
    for cause, wrong in (suspects or {}).items():
        if same(got, wrong, tolerance):
            raise CheckError(f"{where}: off by up to {distance(got, want):.2g}. {cause}")
    found = "has NaN or infinity" if not got.isfinite().all() else f"is off by up to {distance(got, want):.2g}"
    raise CheckError(f"{where}: the result {found}")


def same(got: Tensor, wrong: Callable[[], Tensor], tolerance: float) -> bool:
    """Return whether a suspect makes this result; a suspect that can't be computed doesn't."""
    try:
        wrong = wrong()
    except Exception:
        return False
    return got.shape == wrong.shape and torch.allclose(got.double(), wrong.double(), 0, tolerance, equal_nan=True)


def keeps_dtype(got: Tensor, dtype: torch.dtype, device: torch.device | str) -> None:
    """Expect the dtype and the device of the input."""
    expect(got.dtype == dtype, f"from {dtype} input came {got.dtype}: the dtype must be kept")
    expect(got.device.type == torch.device(device).type, f"from input on {device} came a result on {got.device}")


def shaken(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Return the module in eval mode with every parameter moved at random: zeros and ones would hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.to(device).eval()


def reaches_every_parameter(module: nn.Module, output: Tensor) -> None:
    """Expect a gradient in every parameter; only a key's bias, which the softmax cancels, may have none."""
    module.zero_grad()
    (output * torch.randn(output.shape).to(output)).sum().backward()
    for name, parameter in module.named_parameters():
        reached = parameter.grad is not None and (parameter.grad.any() or name.endswith("w_k.bias"))
        expect(reached, f"no gradient reaches {name}: it is made, but the output does not depend on it")


def drops_in_training_only(module: nn.Module, *args) -> None:
    """Expect dropout to change the output in train mode, and nothing to change it in eval mode."""
    module.train()
    expect(distance(module(*args), module(*args)) > 0, "two calls in train mode agree: dropout is never applied")
    module.eval()
    expect(distance(module(*args), module(*args)) == 0, "two calls in eval mode differ: dropout must stop there")


# --- PyTorch's own layers with our weights ---------------------------------------------------------------------------


def copy_linear(target: nn.Linear, source: nn.Linear) -> None:
    """Copy weight and bias."""
    target.weight.data, target.bias.data = source.weight.data.clone(), source.bias.data.clone()


def copy_norm(target: nn.LayerNorm, source: nn.Module) -> None:
    """Copy gain, bias and eps: PyTorch calls the gain weight."""
    target.weight.data, target.bias.data, target.eps = source.gain.data.clone(), source.bias.data.clone(), source.eps


def copy_attention(target: nn.MultiheadAttention, source: nn.Module) -> None:
    """Copy the four projections: PyTorch keeps those of query, key and value in one matrix."""
    parts = (source.w_q, source.w_k, source.w_v)
    target.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
    target.in_proj_bias.data = torch.cat([part.bias.data for part in parts])
    copy_linear(target.out_proj, source.w_o)


def torch_attention(module: nn.Module) -> nn.MultiheadAttention:
    """Return PyTorch's multi-head attention with the weights of ours, in eval mode.

    Its boolean masks say the opposite: True hides.
    """
    twin = nn.MultiheadAttention(module.w_q.in_features, module.n_heads, batch_first=True)
    copy_attention(twin, module)
    return twin.eval()


def torch_encoder_layer(layer: nn.Module, norm_first: bool = False) -> nn.TransformerEncoderLayer:
    """Return PyTorch's encoder layer with the weights of ours, in eval mode. Its boolean masks say the opposite."""
    attention, feed_forward = layer.self_attention, layer.feed_forward
    sizes = (attention.w_q.in_features, attention.n_heads, feed_forward.w_1.out_features)
    twin = nn.TransformerEncoderLayer(*sizes, dropout=0.0, batch_first=True, norm_first=norm_first)
    copy_attention(twin.self_attn, attention)
    copy_linear(twin.linear1, feed_forward.w_1)
    copy_linear(twin.linear2, feed_forward.w_2)
    for norm, residual in zip((twin.norm1, twin.norm2), layer.residuals, strict=True):
        copy_norm(norm, residual.norm)
    return twin.eval()


def torch_decoder_layer(layer: nn.Module, norm_first: bool = False) -> nn.TransformerDecoderLayer:
    """Return PyTorch's decoder layer with the weights of ours, in eval mode. Its boolean masks say the opposite."""
    attention, feed_forward = layer.self_attention, layer.feed_forward
    sizes = (attention.w_q.in_features, attention.n_heads, feed_forward.w_1.out_features)
    twin = nn.TransformerDecoderLayer(*sizes, dropout=0.0, batch_first=True, norm_first=norm_first)
    copy_attention(twin.self_attn, attention)
    copy_attention(twin.multihead_attn, layer.cross_attention)
    copy_linear(twin.linear1, feed_forward.w_1)
    copy_linear(twin.linear2, feed_forward.w_2)
    for norm, residual in zip((twin.norm1, twin.norm2, twin.norm3), layer.residuals, strict=True):
        copy_norm(norm, residual.norm)
    return twin.eval()


def torch_final_norm(stack: nn.Module, norm_first: bool) -> nn.LayerNorm | None:
    """Return the norm at the end of a stack: pre-norm has one, post-norm has none."""
    if not norm_first:
        return None
    norm = nn.LayerNorm(len(stack.norm.gain))
    copy_norm(norm, stack.norm)
    return norm


def torch_encoder(encoder: nn.Module, norm_first: bool = False) -> nn.TransformerEncoder:
    """Return PyTorch's encoder with the weights of ours, in eval mode."""
    layers = [torch_encoder_layer(layer, norm_first) for layer in encoder.layers]
    norm = torch_final_norm(encoder, norm_first)
    twin = nn.TransformerEncoder(layers[0], len(layers), norm, enable_nested_tensor=False)
    twin.layers = nn.ModuleList(layers)
    return twin.eval()


def torch_decoder(decoder: nn.Module, norm_first: bool = False) -> nn.TransformerDecoder:
    """Return PyTorch's decoder with the weights of ours, in eval mode."""
    layers = [torch_decoder_layer(layer, norm_first) for layer in decoder.layers]
    twin = nn.TransformerDecoder(layers[0], len(layers), torch_final_norm(decoder, norm_first))
    twin.layers = nn.ModuleList(layers)
    return twin.eval()


def torch_transformer(model: Transformer) -> nn.Transformer:
    """Return torch.nn.Transformer with the weights of ours, in eval mode. It takes vectors, not ids: see torch_logits."""
    norm_first, config = model.config.norm == "pre", model.config
    stacks = dict(custom_encoder=nn.Identity(), custom_decoder=nn.Identity())  # it would draw their weights anew
    twin = nn.Transformer(config.d_model, config.n_heads, **stacks, batch_first=True)
    twin.encoder, twin.decoder = torch_encoder(model.encoder, norm_first), torch_decoder(model.decoder, norm_first)
    return twin.eval()


def torch_logits(model: Transformer, src: Tensor, tgt: Tensor, hide_source: bool = True) -> Tensor:
    """Return the logits as torch.nn.Transformer makes them from our embeddings and weights."""
    hidden = {"src_key_padding_mask": src == model.config.pad_id, "tgt_key_padding_mask": tgt == model.config.pad_id}
    if hide_source:
        hidden["memory_key_padding_mask"] = src == model.config.pad_id
    future = ~torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool, device=tgt.device).tril()
    states = torch_transformer(model)(embedded(model, src), embedded(model, tgt), tgt_mask=future, **hidden)
    return F.linear(states, model.embedding.weight, model.bias)


def embedded(model: Transformer, ids: Tensor) -> Tensor:
    """Return word plus position from the model's own table."""
    d_model = model.config.d_model
    return model.embedding.weight[ids] * math.sqrt(d_model) + wave_table(ids.shape[1], d_model).to(model.bias)


# --- 1, 2: what goes in ----------------------------------------------------------------------------------------------


@check("the table's rows times √d_model, unit variance, gradient, dtype")
def check_embedding(cls: type = TokenEmbedding, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(vocab_size, d_model) with the table `weight`, called with ids b t, giving b t d."""
    embedding = call(cls, 1000, 64).to(device)
    ids = torch.randint(1000, (2, 5)).to(device)
    rows, where = embedding.weight[ids], "on ids 2×5 with d_model 64"
    suspects = {
        "The rows come as they are: multiply them by √d_model (section 3.4).": lambda: rows,
        "The rows are divided by √d_model: multiply.": lambda: rows / 8,
        "The rows are multiplied by d_model: the factor is its square root.": lambda: rows * 64,
    }
    out = call(embedding, ids)
    agree(out, rows * 8, where, suspects)
    spread = (embedding.weight * 8).std().item()
    cause = (
        "Rows from N(0, 1) times √d_model drown the positions (rms 0.71), and Xavier's rows are drowned by them: "
        "draw the rows with standard deviation 1/√d_model"
    )
    expect(0.9 < spread < 1.1, f"the vectors have standard deviation {spread:.2g}, wanted 1. {cause}")
    keeps_dtype(call(embedding.double(), ids), torch.float64, device)
    reaches_every_parameter(embedding, call(embedding, ids))


def wave(position: int, feature: int, d_model: int) -> float:
    """Return one number of the paper's table, as section 3.5 writes it."""
    angle = position / 10_000 ** (2 * (feature // 2) / d_model)
    return math.cos(angle) if feature % 2 else math.sin(angle)


def wave_table(n_positions: int, d_model: int, formula: Callable = wave, first: int = 0) -> Tensor:
    """Return a table of waves, number by number."""
    rows = [[formula(t, i, d_model) for i in range(d_model)] for t in range(first, first + n_positions)]
    return torch.tensor(rows)


@check("equal to the formula, odd widths, far positions")
def check_positions(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (n_positions, d_model) that gives the sinusoidal table t d."""

    def frequency_of_i(t: int, i: int, d: int) -> float:
        return (math.cos if i % 2 else math.sin)(t / 10_000 ** (i / d))

    sines, cosines = wave_table(9, 6)[:, 0::2], wave_table(9, 6)[:, 1::2]
    suspects = {
        "Sines fill the first half and cosines the second: the paper lets them take turns.": lambda: torch.cat(
            [sines, cosines], dim=1
        ),
        "Cosine stands at the even features: sine comes first.": lambda: torch.stack([cosines, sines], -1).flatten(1),
        "A cosine has another frequency than its sine: the exponent is 2i/d_model for the pair i, and the odd "
        "feature 2i + 1 shares it.": lambda: wave_table(9, 6, frequency_of_i),
        "The positions begin with 1: the first is 0.": lambda: wave_table(9, 6, first=1),
        "The exponent lacks its factor 2: the pair i has the exponent 2i/d_model.": lambda: wave_table(
            9, 6, lambda t, i, d: (math.cos if i % 2 else math.sin)(t / 10_000 ** (i // 2 / d))
        ),
    }
    agree(call(fn, 9, 6), wave_table(9, 6), "for 9 positions and width 6", suspects)
    for width in (7, 1):
        odd = call(fn, 9, width, hint="An odd width has one sine more than cosines.")
        agree(odd, wave_table(9, width), f"for the odd width {width}")
    agree(call(fn, 5000, 8)[-1:], wave_table(1, 8, first=4999), "for position 4999", tolerance=2e-3)


@check("adds the position, from any start, moves with the model, refuses what is too long")
def check_positional_encoding(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, max_len), called with x b t d and start, giving x plus positions."""
    module, x, table = call(cls, 8, 20).to(device).eval(), torch.randn(2, 5, 8).to(device), wave_table(20, 8).to(device)
    suspects = {
        "The table was read along the batch: positions are the axis t of b t d, not the first one.": lambda: (
            x + table[:2].unsqueeze(1)
        ),
        "The position replaces the word: add them.": lambda: table[:5].expand(2, 5, 8),
    }
    agree(call(module, x), x + table[:5], f"on x {size(x)}", suspects)
    suspects = {
        "`start` is ignored: a token that is decoded alone, as the fourth, would get position 0.": lambda: x + table[:5]
    }
    agree(call(module, x, start=3), x + table[3:8], f"on x {size(x)} with start=3", suspects)
    refuses(module, x, start=16, what="positions 16 … 20 of a table of 20")
    expect(not list(module.parameters()), "the table is a parameter and would be trained: positions are fixed waves")
    stayed = [name for name, value in vars(module.to("meta")).items() if isinstance(value, Tensor)]
    cause = "A plain attribute is left behind by .to(device): use register_buffer"
    expect(not stayed, f"after .to('meta') `{', '.join(stayed)}` is still on {device}. {cause}")


# --- 3, 4: attention -------------------------------------------------------------------------------------------------


def true_weights(q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None, dim: int = -1) -> Tensor:
    """Return the attention weights in double precision, and variations of them for the suspects."""
    scores = q.double() @ k.double().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return scores.softmax(dim)
    return scores.masked_fill(~mask, -math.inf).softmax(dim)


def mask_with_empty_row(q: int, k: int, device: torch.device | str) -> Tensor:
    """Return a random mask in which every query may attend to something, except query 2, which may to nothing."""
    mask = torch.rand(q, k) < 0.5
    mask[:, 0], mask[:, 1] = False, True
    mask[2] = False
    return mask.to(device)


def scale_suspects(q: Tensor, k: Tensor, finish: Callable[[Tensor], Tensor]) -> Suspects:
    """Return the usual mistakes of attention without a mask; `finish` makes the result from the weights."""
    d = q.shape[-1]
    return {
        "The scores are not scaled: divide by √d.": lambda: finish(true_weights(q, k, scale=1.0)),
        "The scores are divided by d: the divisor is √d.": lambda: finish(true_weights(q, k, scale=1 / d)),
        "The scores are multiplied by √d: divide.": lambda: finish(true_weights(q, k, scale=d**0.5)),
        "The softmax runs over the queries: each row belongs to one query and must sum to 1, so it runs over the "
        "keys, the last axis.": lambda: finish(true_weights(q, k, dim=-2)),
    }


def mask_suspects(q: Tensor, k: Tensor, mask: Tensor, finish: Callable[[Tensor], Tensor]) -> Suspects:
    """Return the usual mistakes of attention with a mask."""

    def shifted(weight: float) -> Tensor:
        return (q.double() @ k.double().mT / q.shape[-1] ** 0.5 + weight * mask).softmax(-1)

    return {
        "The mask is inverted: True means may attend, so fill where it is False.": lambda: finish(
            true_weights(q, k, ~mask)
        ),
        "The mask is ignored.": lambda: finish(true_weights(q, k)),
        "The weights are set to 0 after the softmax, so a row no longer sums to 1: set the scores to -∞ before "
        "it.": lambda: finish(true_weights(q, k) * mask),
        "The mask is added to the scores as 0 and 1: False must become -∞.": lambda: finish(shifted(1.0)),
    }


EMPTY_ROW = "Query 2 may attend to no key and must get zeros. "


def empty_suspects(q: Tensor, k: Tensor, mask: Tensor, finish: Callable[[Tensor], Tensor]) -> Suspects:
    """Return the usual mistakes with a query that may attend to nothing."""
    uniform = (~mask.any(-1, keepdim=True)) / mask.shape[-1]
    return {
        EMPTY_ROW + "A softmax over nothing but -∞ is NaN: replace such rows.": lambda: finish(
            true_weights(q, k, mask)
        ),
        EMPTY_ROW + "With -1e9 in place of -∞ all keys come out equal: a hidden sentence would leak in.": lambda: (
            finish(true_weights(q, k, mask).nan_to_num() + uniform)
        ),
    }


def try_attention(run: Callable, finish: Callable, kept: torch.dtype, device: torch.device | str) -> None:
    """Try attention (or its weights) in one dtype: `run` is the implementation, `finish` turns true weights into its result."""
    q, k = (torch.randn(2, 3, t, 4).to(device, kept) for t in (5, 7))
    where = f"on q {size(q)} and k {size(k)}"
    hint = "-1e9 does not fit into float16, whose largest number is 65,504: use -math.inf." * (kept == torch.float16)
    out = call(run, q, k, None)
    keeps_dtype(out, kept, device)
    agree(out.double(), finish(true_weights(q, k)), f"{where}, no mask", scale_suspects(q, k, finish), TOLERANCE[kept])
    empty = mask_with_empty_row(5, 7, device)
    full = empty | (torch.arange(7, device=device) == 1)
    padding = (torch.arange(7) < torch.tensor([7, 4]).reshape(2, 1, 1, 1)).to(device)
    for name, mask in {"a mask q k": full, "a padding mask b 1 1 k": padding}.items():
        got = call(run, q, k, mask, hint=hint)
        causes = mask_suspects(q, k, mask, finish)
        agree(got.double(), finish(true_weights(q, k, mask)), f"{where}, {name}", causes, TOLERANCE[kept])
    got, want = call(run, q, k, empty, hint=hint), finish(true_weights(q, k, empty).nan_to_num())
    agree(got.double(), want, f"{where}, a mask", empty_suspects(q, k, empty, finish), TOLERANCE[kept])


def try_corners(run: Callable, finish: Callable, device: torch.device | str) -> None:
    """Try tensors of two axes, very large scores, and the gradient past an empty row."""
    q, k = torch.randn(5, 4).to(device), torch.randn(7, 4).to(device)
    agree(call(run, q, k, None).double(), finish(true_weights(q, k)), f"on q {size(q)}, k {size(k)}", None, 1e-5)
    large = call(run, 300 * q, k, None)
    expect(large.isfinite().all(), "on scores of some hundreds the result is not finite: exp overflows, use softmax")
    q.requires_grad_()
    call(run, q, k, mask_with_empty_row(5, 7, device)).sum().backward()
    expect(
        q.grad.isfinite().all(), "with an empty row in the mask the gradient of q is not finite: training would stop"
    )


@check("rows sum to 1, equal to the formula, masks, empty rows, float16 to float64")
def check_attention_weights(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (q: … q d, k: … k d, mask: … q k or None) that gives the weights … q k."""
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        try_attention(fn, lambda weights: weights, dtype, device)
    try_corners(fn, lambda weights: weights, device)


@check("equal to PyTorch, masks, empty rows, float16 to float64")
def check_attention(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (q: … q d, k: … k d, v: … k d_v, mask: … q k or None) that gives … q d_v."""
    q, k, v = (torch.randn(2, t, d).to(device) for t, d in ((5, 4), (7, 4), (7, 4)))
    suspects = {
        "The keys are mixed: mix the values.": lambda: true_weights(q, k).float() @ k,
        **scale_suspects(q, k, lambda weights: weights.float() @ v),
    }
    agree(call(fn, q, k, v), F.scaled_dot_product_attention(q, k, v), f"on q {size(q)} and k, v {size(k)}", suspects)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4], device=device)
    shuffled = call(fn, q, k[:, order], v[:, order])
    agree(shuffled, call(fn, q, k, v), "with keys and values in another order: attention sees a set, not a sequence")
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        values = torch.randn(2, 3, 7, 6).to(device, dtype)
        with_values = functools.partial(mix_in, fn, values)
        try_attention(with_values, lambda weights, v=values: weights @ v.double(), dtype, device)
    values = torch.randn(7, 6).to(device)
    try_corners(functools.partial(mix_in, fn, values), lambda weights: weights @ values.double(), device)


def mix_in(fn: Callable, values: Tensor, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Call an attention with fixed values."""
    return fn(q, k, values, mask)


def heads_by_hand(module: nn.Module, x: Tensor, memory: Tensor, split: str, merge: str, scale: float | None = None):
    """Return multi-head attention with another split, merge or scale: what the usual mistakes compute."""
    h = module.n_heads

    def cut(y: Tensor) -> Tensor:
        return y.reshape(len(y), h, y.shape[1], -1) if split == "view" else rearrange(y, split, h=h)

    q, k, v = cut(module.w_q(x)), cut(module.w_k(memory)), cut(module.w_v(memory))
    heads = true_weights(q, k, scale=scale).to(v) @ v
    return module.w_o(heads.reshape(x.shape) if merge == "view" else rearrange(heads, merge))


def head_suspects(module: nn.Module, x: Tensor, memory: Tensor) -> Suspects:
    """Return the usual mistakes with heads."""
    split, merge = "b t (h d) -> b h t d", "b h t d -> b t (h d)"
    viewed = "by view or reshape, which keeps the order of the numbers: right shape, wrong content. "
    run = functools.partial(heads_by_hand, module, x)
    return {
        f"The heads are split {viewed}Move the axis: rearrange 'b t (h d) -> b h t d'.": lambda: run(
            memory, "view", merge
        ),
        f"The heads are merged {viewed}Move the axis back: rearrange 'b h t d -> b t (h d)'.": lambda: run(
            memory, split, "view"
        ),
        f"The heads are split and merged {viewed}Use rearrange.": lambda: run(memory, "view", "view"),
        "The features of a head are every n_heads-th: it is (h d), not (d h).": lambda: run(
            memory, "b t (d h) -> b h t d", "b h t d -> b t (d h)"
        ),
        "The scores are divided by √d_model: a head has d_model / n_heads features, divide by their root.": lambda: run(
            memory, split, merge, module.w_q.in_features**-0.5
        ),
        "Keys and values come from x: they come from memory.": lambda: run(x, split, merge),
    }


@check("equal to PyTorch, lengths q and k, masks, gradient, refuses heads that don't fit")
def check_multi_head(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, n_heads) with w_q, w_k, w_v, w_o, called with x b q d, memory b k d, mask."""
    module = shaken(call(cls, 12, 3), device)
    x, memory = torch.randn(2, 5, 12).to(device), torch.randn(2, 7, 12).to(device)
    twin, where = torch_attention(module), f"on x {size(x)} and memory {size(memory)} with 3 heads"
    for other in (x, memory):
        causes = head_suspects(module, x, other)
        causes["The result is not passed through w_o."] = functools.partial(without_output, module, x, other)
        agree(call(module, x, other), twin(x, other, other)[0], where, causes)
    padding = (torch.arange(7) < torch.tensor([7, 4]).unsqueeze(-1)).to(device)
    causal = torch.ones(5, 5, dtype=torch.bool, device=device).tril()
    ignored = "The mask is not handed on to attention."
    inverted = "The mask is inverted: True means may attend."
    hidden, swapped = twin(x, memory, memory, ~padding)[0], lambda: twin(x, memory, memory, padding)[0]
    suspects = {ignored: lambda: module(x, memory), inverted: swapped}
    agree(call(module, x, memory, rearrange(padding, "b k -> b 1 1 k")), hidden, f"{where}, padding", suspects)
    past, suspects = twin(x, x, x, attn_mask=~causal)[0], {ignored: lambda: module(x, x)}
    agree(call(module, x, x, causal), past, f"{where}, causal mask", suspects)
    reaches_every_parameter(module, call(module, x, memory))
    refuses(cls, 12, 5, what="d_model=12 with n_heads=5")


def without_output(module: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    """Return the merged heads before the last projection."""
    twin = torch_attention(module)
    nn.init.eye_(twin.out_proj.weight)
    nn.init.zeros_(twin.out_proj.bias)
    return twin(x, memory, memory)[0]


@check("the weights that the model uses, mask included")
def check_head_weights(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (module, x: b q d, memory: b k d, mask) that gives each head's weights b h q k."""
    from transformer.multi_head import MultiHeadAttention

    module = shaken(MultiHeadAttention(12, 3), device)
    x, memory = torch.randn(2, 5, 12).to(device), torch.randn(2, 7, 12).to(device)
    real = (torch.arange(7) < torch.tensor([7, 4]).unsqueeze(-1)).to(device)
    weights = functools.partial(torch_attention(module), x, memory, memory, average_attn_weights=False)
    agree(call(fn, module, x, memory), weights()[1], f"on x {size(x)} and memory {size(memory)}")
    suspects = {"The picture forgets the mask that the model used: hidden words light up.": lambda: weights()[1]}
    mask = rearrange(real, "b k -> b 1 1 k")
    agree(call(fn, module, x, memory, mask), weights(~real)[1], "with the end of the second sentence hidden", suspects)


# --- 5, 6: norm and feed-forward -------------------------------------------------------------------------------------


def norm_suspects(x: Tensor, gain: Tensor, bias: Tensor) -> Suspects:
    """Return the usual mistakes of a layer norm."""
    mean, std, variance = x.mean(-1, keepdim=True), x.std(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return {
        "The standard deviation divides by d - 1, as torch.std does by default: divide by d (correction=0).": lambda: (
            (x - mean) / std * gain + bias
        ),
        "Mean and variance are taken over the whole tensor: each vector has its own.": lambda: (
            F.layer_norm(x, x.shape) * gain + bias
        ),
        "Mean and variance are taken over positions: take them over features, the last axis.": lambda: (
            F.layer_norm(x.mT, x.shape[1:2]).mT * gain + bias
        ),
        "Gain and bias are not applied.": lambda: (x - mean) / variance.sqrt(),
        "It divides by the variance: divide by its root.": lambda: (x - mean) / variance * gain + bias,
    }


@check("equal to PyTorch, small variances, constant vectors, dtype")
def check_layer_norm(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (x: … d, gain: d, bias: d, eps) that gives … d."""
    x, gain, bias = (torch.randn(*shape).to(device) for shape in ((2, 5, 4), (4,), (4,)))
    x = 3 * x + 1
    want = F.layer_norm(x, (4,), gain, bias, 1e-5)
    agree(call(fn, x, gain, bias, 1e-5), want, f"on x {size(x)}", norm_suspects(x, gain, bias), 1e-3)
    small = 1e-3 * x
    outside = (small - small.mean(-1, keepdim=True)) / (small.std(-1, correction=0, keepdim=True) + 1e-5) * gain + bias
    suspects = {"eps is added to the standard deviation: it stands inside the root.": lambda: outside}
    want = F.layer_norm(small, (4,), gain, bias, 1e-5)
    agree(call(fn, small, gain, bias, 1e-5), want, f"on x {size(x)} of some thousandths", suspects, 1e-4)
    agree(call(fn, torch.ones_like(x), gain, bias), bias.expand_as(x), "on a constant vector, eps left to its default")
    inputs = [y.double() for y in (x, gain, bias)]
    keeps_dtype(call(fn, *inputs), torch.float64, device)
    agree(call(fn, *inputs, 1e-5), F.layer_norm(inputs[0], (4,), *inputs[1:], 1e-5), "in double precision")


@check("norm and sum in their places, dropout on the sublayer only, the stack's final norm")
def check_residual(cls: type, placement: str = "post", *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, dropout) with `norm` and `final`, called with x b t d and a sublayer.

    `placement` is "post" for norm(x + f(x)) or "pre" for x + f(norm(x)).
    """
    module, x, matrix = shaken(call(cls, 6, 0.0), device), torch.randn(2, 5, 6).to(device), torch.randn(6, 6).to(device)
    norm = functools.partial(F.layer_norm, normalized_shape=(6,), weight=module.norm.gain, bias=module.norm.bias)
    ways = {
        "This is pre-norm, x + f(norm(x)): post-norm is norm(x + f(x)).": lambda f: x + f(norm(x)),
        "This is post-norm, norm(x + f(x)): pre-norm is x + f(norm(x)).": lambda f: norm(x + f(x)),
        "x is not added: without the sum there is no residual.": lambda f: (
            norm(f(x)) if placement == "post" else f(norm(x))
        ),
        "The norm is on the sublayer's output alone: x must pass through it too.": lambda f: x + norm(f(x)),
        "The norm is missing.": lambda f: x + f(x),
        "The normed x is added: the sum must take x as it came.": lambda f: norm(x) + f(norm(x)),
    }
    right = list(ways.values())[placement == "post"]
    suspects = {cause: functools.partial(way, lambda y: y @ matrix) for cause, way in ways.items() if way is not right}
    agree(call(module, x, lambda y: y @ matrix), right(lambda y: y @ matrix), f"on x {size(x)}", suspects)
    module.dropout.p = 1 - 1e-7
    module.train()
    cause = "Dropout belongs on the sublayer's output, before the sum: x itself must come through"
    got, want = call(module, x, lambda y: y @ matrix), right(lambda y: 0 * y)
    expect(distance(got, want) < 1e-4, f"with dropout near 1 in train mode, more than x is left or less. {cause}")
    ends_well(cls, placement, 3 * x + 1)


def ends_well(cls: type, placement: str, x: Tensor) -> None:
    """Expect `final`, made for the end of a stack, to be a norm for pre-norm and nothing for post-norm."""
    final = call(cls.final, x.shape[-1]).to(x.device)(x)
    want, end = (x, "nothing more") if placement == "post" else (F.layer_norm(x, x.shape[-1:]), "one more norm")
    expect(distance(final, want) < 1e-3, f"`final` is wrong: a stack of {placement}-norm layers ends with {end}")


@check("equal to its equation, each position alone, gradient")
def check_feed_forward(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, d_ff) with w_1 and w_2, called with x b t d."""
    module, x = shaken(call(cls, 6, 14), device), torch.randn(2, 5, 6).to(device)
    w_1, w_2 = module.w_1, module.w_2
    suspects = {
        "There is no activation: two matrices in a row are only one matrix.": lambda: w_2(w_1(x)),
        "The activation comes last: it stands between the two matrices.": lambda: F.relu(w_2(w_1(x))),
        "An activation follows the second matrix too: the output may be negative.": lambda: F.relu(w_2(F.relu(w_1(x)))),
        "The activation is GELU: the paper's is ReLU.": lambda: w_2(F.gelu(w_1(x))),
        "x is added inside: the residual is another block's work.": lambda: x + w_2(F.relu(w_1(x))),
    }
    expect(w_1.out_features == 14, f"w_1 widens to {w_1.out_features} features, wanted d_ff=14")
    out = call(module, x)
    moved = call(module, torch.cat([x[:, :4], x[:, 4:] + 1], dim=1))
    cause = "The block must treat every position alone"
    expect(distance(out[:, :4], moved[:, :4]) < 1e-5, f"changing position 4 of x 2×5×6 moved others. {cause}")
    agree(out, w_2(F.relu(w_1(x))), f"on x {size(x)}", suspects)
    reaches_every_parameter(module, call(module, x))


# --- 7, 8: encoder and decoder ---------------------------------------------------------------------------------------

SIZES = dict(d_model=12, n_heads=3, d_ff=20)


def padded_pair(t: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return vectors b t d and which of their places are real: the second sentence ends two places early."""
    real = torch.arange(t) < torch.tensor([t, t - 2]).unsqueeze(-1)
    return torch.randn(2, t, SIZES["d_model"]).to(device), real.to(device)


def keys(real: Tensor) -> Tensor:
    """Return the mask b 1 1 k that hides what is not real."""
    return rearrange(real, "b k -> b 1 1 k")


def placement_suspects(twin: Callable, layer: nn.Module, norm_first: bool, run: Callable) -> Suspects:
    """Return the usual mistakes of a layer or stack: `twin` makes PyTorch's, `run` feeds it."""
    said, done = ("pre", "post") if norm_first else ("post", "pre")
    last = layer.residuals[-1].norm if hasattr(layer, "residuals") else None

    def one_norm() -> Tensor:
        other = twin(layer, norm_first)
        for name in ("norm1", "norm2", "norm3"):
            if hasattr(other, name):
                copy_norm(getattr(other, name), last if name == "norm1" else layer.residuals[0].norm)
        return run(other)

    return {
        f"The norms stand as in {done}-norm, but {said}-norm was asked for.": lambda: run(twin(layer, not norm_first)),
        "The norms changed places: each sublayer has its own residual, in order.": one_norm,
    }


def try_stack(make: Callable, twin: Callable, feed: Callable, torch_feed: Callable, causes: Callable, device) -> None:
    """Compare a layer or stack with PyTorch's in both norm placements, then try gradient and dropout."""
    for norm, residual in NORMS.items():
        module = shaken(call(make, **SIZES, dropout=0.0, residual=residual), device)
        norm_first, where = norm == "pre", f"in {norm}-norm, on 2 sentences, the second padded"
        reaches_every_parameter(module, call(feed, module))
        suspects = causes(module, norm_first) | placement_suspects(twin, module, norm_first, torch_feed)
        agree(call(feed, module), torch_feed(twin(module, norm_first)), where, suspects)
    drops_in_training_only(call(make, **SIZES, dropout=0.5, residual=NORMS["post"]).to(device), *feed.inputs)


class Feed:
    """Call a module with fixed inputs, and say what they were when it raises."""

    def __init__(self, *inputs: Tensor):
        self.inputs = inputs

    def __call__(self, module: nn.Module) -> Tensor:
        return call(module, *self.inputs)


@check("equal to PyTorch in both norm placements, padding, order of words, gradient, dropout")
def check_encoder_layer(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, n_heads, d_ff, dropout, residual), called with x b t d and a mask."""
    x, real = padded_pair(5, device)

    def causes(layer: nn.Module, norm_first: bool) -> Suspects:
        twin, thinking = torch_encoder_layer(layer, norm_first), layer.residuals[1].norm
        attended = layer.residuals[0](x, lambda y: layer.self_attention(y, y, keys(real)))
        return {
            "The mask is not handed on to attention: padding is looked at.": lambda: twin(x),
            "The mask is inverted: True means may attend.": lambda: twin(x, src_key_padding_mask=real),
            "The feed-forward block has no residual.": lambda: thinking(layer.feed_forward(attended)),
            "The feed-forward block is left out.": lambda: attended,
        }

    feed = Feed(x, keys(real))
    try_stack(cls, torch_encoder_layer, feed, lambda twin: twin(x, src_key_padding_mask=~real), causes, device)
    layer, order = shaken(cls(**SIZES), device), torch.tensor([3, 0, 4, 1, 2], device=device)
    cause = "without positions, words in another order must give the same vectors in that order"
    agree(call(layer, x[:, order]), call(layer, x)[:, order], f"on x {size(x)} without a mask: {cause}")


def separate_layers(stack: nn.Module, n: int) -> None:
    """Expect n layers with parameters of their own."""
    expect(len(stack.layers) == n, f"n_layers={n} made {len(stack.layers)} layers")
    owned = {id(parameter) for layer in stack.layers for parameter in layer.parameters()}
    cause = "[layer] * n_layers repeats one layer: build a new one each time"
    expect(len(owned) == n * len(list(stack.layers[0].parameters())), f"the layers share their parameters. {cause}")


@check("equal to PyTorch in both norm placements, padding makes no difference, layers of its own, gradient")
def check_encoder(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(n_layers, d_model, n_heads, d_ff, dropout, residual), called with x b t d and a mask."""
    make, (x, real) = functools.partial(cls, 2), padded_pair(5, device)
    separate_layers(call(make, **SIZES), 2)

    def causes(encoder: nn.Module, norm_first: bool) -> Suspects:
        first, second = (torch_encoder_layer(layer, norm_first) for layer in encoder.layers)
        half, end = first(x, src_key_padding_mask=~real), encoder.norm
        whole = second(half, src_key_padding_mask=~real)
        return {
            "Only the first layer gets the mask: hand it to all.": lambda: end(second(half)),
            "No layer gets the mask.": lambda: end(second(first(x))),
            "Only the first layer is run.": lambda: end(half),
            "Only the last layer is run: each must read what the one before wrote.": lambda: end(
                second(x, src_key_padding_mask=~real)
            ),
            "The final norm is missing: a pre-norm stack ends with one.": lambda: whole,
            "A norm is added at the end: post-norm ends with one already.": lambda: F.layer_norm(whole, x.shape[-1:]),
        }

    feed = Feed(x, keys(real))
    try_stack(make, torch_encoder, feed, lambda twin: twin(x, src_key_padding_mask=~real), causes, device)
    encoder = shaken(make(**SIZES), device)
    alone = call(encoder, x[1:, :3])
    agree(call(encoder, x, keys(real))[1:, :3], alone, "a sentence of 3 tokens, padded to 5, changes")


@check("itself and the past, boolean, every length")
def check_causal_mask(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (t, device) that gives the boolean mask q k, True where a query may look."""
    for t in (5, 1):
        mask = call(fn, t, device=torch.device(device))
        want = torch.tensor([[k <= q for k in range(t)] for q in range(t)], device=device)
        expect(mask.shape == want.shape, f"for t={t} the mask is {size(mask)}, wanted {t}×{t}")
        expect(mask.dtype == torch.bool, f"the mask is {mask.dtype}: it must be boolean, True = may attend")
        expect(not mask.equal(want.T) or t == 1, "it shows the future and hides the past: triu where tril is wanted")
        expect(not mask.equal(~want), "it is inverted: True must mean may attend, so it is True where k ≤ q")
        cause = "position q must see itself: with the diagonal hidden the first position sees nothing"
        expect(mask.diagonal().all(), f"for t={t} the diagonal is hidden: {cause}")
        expect(mask.equal(want), f"for t={t} it is {mask.int().tolist()}, wanted 1 where k ≤ q")
        expect(mask.device == want.device, f"the mask is on {mask.device}, wanted {want.device}")


@check("hides padding as keys, b 1 1 t, any padding id")
def check_padding_mask(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (ids: b t, pad_id) that gives the boolean mask b 1 1 t, True where a key is real."""
    ids = torch.tensor([[5, 0, 6, 2, 8], [7, 6, 2, 9, 9]], device=device)
    mask, where = call(fn, ids, 9), "on ids 2×5 with pad_id 9"
    cause = "it hides queries, whose rows become empty; hide keys, the last axis"
    expect(mask.shape != (2, 1, 5, 1), f"{where} the mask is 2×1×5×1: {cause}")
    expect(mask.shape != (2, 1, 5, 5), f"{where} the mask is 2×1×5×5: if it hides rows too, {cause}")
    expect(mask.shape == (2, 1, 1, 5), f"{where} the mask is {size(mask)}, wanted 2×1×1×5, to broadcast over b h q k")
    expect(mask.dtype == torch.bool, f"the mask is {mask.dtype}: it must be boolean, True = may attend")
    expect(not mask.equal(keys(ids == 9)), f"{where} it is inverted: True must mean a real token")
    expect(not mask.equal(keys(ids != 0)), f"{where} it hides id 0: use the pad_id that was given")
    expect(mask.equal(keys(ids != 9)), f"{where} it is {mask.int().tolist()}, wanted 0 where the id is 9")


def sees_no_future(run: Callable[[Tensor], Tensor], x: Tensor, change: Callable[[Tensor], Tensor], where: str) -> None:
    """Expect that changing position t of x moves no output before t, whatever t is."""
    before = run(x)
    for t in range(1, x.shape[1]):
        other = x.clone()
        other[:, t] = change(other[:, t])
        moved = distance(run(other)[:, :t], before[:, :t])
        cause = "The future leaks in: the causal mask is missing, inverted or not handed on"
        expect(
            moved < 1e-5, f"changing position {t} of the target {where} moved an earlier output by {moved:.2g}. {cause}"
        )


@check("equal to PyTorch in both norm placements, sees no future, source padding, gradient, dropout")
def check_decoder_layer(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, n_heads, d_ff, dropout, residual), called with x, memory, tgt_mask, src_mask."""
    (memory, real), x = padded_pair(7, device), torch.randn(2, 5, SIZES["d_model"]).to(device)
    past = only_past(5, device)

    def causes(layer: nn.Module, norm_first: bool) -> Suspects:
        twin, (look, ask, think) = torch_decoder_layer(layer, norm_first), layer.residuals
        heard = look(x, lambda y: layer.self_attention(y, y, past))

        asked = ask(x, lambda y: layer.cross_attention(y, memory, keys(real)))
        return {
            "src_mask is not used: the padding of the source is asked too.": lambda: twin(x, memory, ~past[0, 0]),
            "The source is asked before looking back: self-attention comes first.": lambda: think(
                look(asked, lambda y: layer.self_attention(y, y, past)), layer.feed_forward
            ),
            "Cross-attention asks the target itself: its keys and values come from memory.": lambda: think(
                ask(heard, lambda y: layer.cross_attention(y, y, past)), layer.feed_forward
            ),
            "Cross-attention is left out: the source is never asked.": lambda: think(heard, layer.feed_forward),
        }

    def torch_feed(twin: nn.Module) -> Tensor:
        return twin(x, memory, ~past[0, 0], memory_key_padding_mask=~real)

    decoder_is_causal(cls, x, memory, past, keys(real), device)
    try_stack(cls, torch_decoder_layer, Feed(x, memory, past, keys(real)), torch_feed, causes, device)


def only_past(t: int, device: torch.device | str) -> Tensor:
    """Return the causal mask 1 1 t t."""
    return torch.ones(1, 1, t, t, dtype=torch.bool, device=device).tril()


def decoder_is_causal(make: Callable, x: Tensor, memory: Tensor, past: Tensor, src_mask: Tensor, device) -> None:
    """Expect a decoder or a layer of it to see no future, in train and in eval mode."""
    decoder = shaken(call(make, **SIZES), device)
    for mode in (True, False):
        decoder.train(mode)
        sees_no_future(
            lambda y: call(decoder, y, memory, past, src_mask),
            x,
            lambda vectors: vectors + torch.randn(vectors.shape).to(vectors),
            f"{size(x)} in {'train' if mode else 'eval'}()",
        )


@check("equal to PyTorch in both norm placements, sees no future, layers of its own, gradient")
def check_decoder(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(n_layers, d_model, n_heads, d_ff, dropout, residual), called with x, memory, masks."""
    make, (memory, real) = functools.partial(cls, 2), padded_pair(7, device)
    x, past = torch.randn(2, 5, SIZES["d_model"]).to(device), only_past(5, device)
    separate_layers(call(make, **SIZES), 2)

    def causes(decoder: nn.Module, norm_first: bool) -> Suspects:
        first, second = (torch_decoder_layer(layer, norm_first) for layer in decoder.layers)
        half = first(x, memory, ~past[0, 0], memory_key_padding_mask=~real)
        whole = second(half, memory, ~past[0, 0], memory_key_padding_mask=~real)
        return {
            "Only the first layer gets src_mask: hand it to all.": lambda: decoder.norm(
                second(half, memory, ~past[0, 0])
            ),
            "No layer gets src_mask.": lambda: decoder.norm(second(first(x, memory, ~past[0, 0]), memory, ~past[0, 0])),
            "Only the first layer is run.": lambda: decoder.norm(half),
            "The final norm is missing: a pre-norm stack ends with one.": lambda: whole,
            "A norm is added at the end: post-norm ends with one already.": lambda: F.layer_norm(whole, x.shape[-1:]),
        }

    def torch_feed(twin: nn.Module) -> Tensor:
        return twin(x, memory, ~past[0, 0], memory_key_padding_mask=~real)

    decoder_is_causal(make, x, memory, past, keys(real), device)
    try_stack(make, torch_decoder, Feed(x, memory, past, keys(real)), torch_feed, causes, device)


# --- 9: the model ----------------------------------------------------------------------------------------------------


def small_model(cls: type = Transformer, device: torch.device | str = "cpu", **changes) -> Transformer:
    """Return a model of a few hundred parameters whose guesses are far from uniform."""
    sizes = dict(d_model=12, n_heads=3, n_layers=2, d_ff=20, dropout=0.0, max_len=16) | changes
    return shaken(call(cls, Config(**dict(vocab_size=11) | sizes)), device)


SRC, TGT = [[5, 7, 3, 9, 4, 2], [6, 8, 5, 2, 0, 0]], [[1, 4, 10, 6, 7], [1, 9, 3, 0, 0]]


def logits_suspects(model: Transformer, src: Tensor, tgt: Tensor) -> Suspects:
    """Return the usual mistakes of a whole model."""
    want = torch_logits(model, src, tgt)
    d_model = model.config.d_model

    def from_vectors(source: Tensor, target: Tensor) -> Tensor:
        mask = keys(src != model.config.pad_id)
        mine = only_past(tgt.shape[1], tgt.device) & keys(tgt != model.config.pad_id)
        return model.logits(model.decoder(target, model.encoder(source, mask), mine, mask))

    plain_src, plain_tgt = (model.embedding.weight[ids] * math.sqrt(d_model) for ids in (src, tgt))
    return {
        "The decoder asks the padding of the source too: cross-attention needs the source's padding mask.": lambda: (
            torch_logits(model, src, tgt, hide_source=False)
        ),
        "The logits are divided by √d_model.": lambda: want / math.sqrt(d_model),
        "It gives probabilities: it must give the logits, before any softmax.": lambda: want.softmax(-1),
        "It gives log-probabilities: it must give the logits, before any softmax.": lambda: want.log_softmax(-1),
        "The source gets no positions.": lambda: from_vectors(plain_src, embedded(model, tgt)),
        "The target gets no positions.": lambda: from_vectors(embedded(model, src), plain_tgt),
        "There are no positions: the model sees bags of words.": lambda: from_vectors(plain_src, plain_tgt),
    }


@check("equal to PyTorch in both norm placements, sees no future, padding, batch, tied table, gradient, refusals")
def check_model(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made from a Config, called with src b k and tgt b t, giving logits b t v."""
    src, tgt = torch.tensor(SRC, device=device), torch.tensor(TGT, device=device)
    for norm in NORMS:
        model = small_model(cls, device, norm=norm)
        for mode in (True, False):
            model.train(mode)
            where, change = f"2×5 in {'train' if mode else 'eval'}()", lambda ids: (ids + 3) % 11
            sees_no_future(lambda ids, model=model: call(model, src, ids), tgt.clamp(min=1), change, where)
        x = torch.randn(2, 5, 12).to(device)
        tied = F.linear(x, model.embedding.weight, model.bias)
        suspects = {
            "They are divided by √d_model.": lambda tied=tied: tied / math.sqrt(12),
            "They went through a softmax.": lambda tied=tied: tied.softmax(-1),
            "They went through a log-softmax.": lambda tied=tied: tied.log_softmax(-1),
        }
        tying = "logits(x) must be x Eᵀ + b with E the embedding's table, tied"
        agree(call(model.logits, x), tied, tying, suspects)
        where = f"in {norm}-norm, on src {size(src)} and tgt {size(tgt)}, both padded"
        agree(call(model, src, tgt), torch_logits(model, src, tgt), where, logits_suspects(model, src, tgt), 2e-5)
        reaches_every_parameter(model, call(model, src, tgt))
    model_keeps_sentences_apart(model, src, tgt)
    model_refuses(cls, model, src, tgt)


def model_keeps_sentences_apart(model: Transformer, src: Tensor, tgt: Tensor) -> None:
    """Expect a sentence to get the same logits alone as padded, in a batch, and the dropout of the config."""
    alone = call(model, src[1:, :4], tgt[1:, :3])
    agree(call(model, src, tgt)[1:, :3], alone, "a sentence alone and padded in a batch of 2 gets different logits")
    noisy = small_model(type(model), src.device, dropout=0.5)
    drops_in_training_only(noisy, src, tgt)


def model_refuses(cls: type, model: Transformer, src: Tensor, tgt: Tensor) -> None:
    """Expect a ValueError for ids outside the vocabulary and for sentences over max_len."""
    refuses(model, src + 8, tgt, what="a source with id 17 in a vocabulary of 11")
    refuses(model, src, tgt - 2, what="a target with id -2")
    long = torch.full((1, 17), 5, device=src.device)
    refuses(model, long, tgt[:1], what="a source of 17 tokens with max_len=16")


# --- 10: data --------------------------------------------------------------------------------------------------------


@check("a rectangle of ids, padding at the end, any padding id, the rows left as they were")
def check_pad(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (rows of ids, pad_id) that gives the tensor b t."""
    rows = [[4, 5, 6, 7, 8], [9], [3, 3, 2]]
    out, where = call(fn, rows, 1), "on rows of 5, 1 and 3 ids with pad_id 1"
    want = torch.tensor([[4, 5, 6, 7, 8], [9, 1, 1, 1, 1], [3, 3, 2, 1, 1]])
    expect(rows == [[4, 5, 6, 7, 8], [9], [3, 3, 2]], f"{where}: the caller's rows were changed; copy them")
    left = torch.tensor([[4, 5, 6, 7, 8], [1, 1, 1, 1, 9], [1, 1, 3, 3, 2]])
    expect(isinstance(out, Tensor) and out.dtype == torch.int64, f"{where}: wanted a tensor of int64 ids")
    expect(out.shape == (3, 5), f"{where}: the result is {size(out)}, wanted 3×5, the longest row")
    expect(not out.equal(left), f"{where}: padding stands on the left, so every position is shifted; put it at the end")
    expect(not out.equal(want.masked_fill(want == 1, 0)), f"{where}: filled with 0; use the pad_id that was given")
    expect(out.equal(want), f"{where}: it is {out.tolist()}, wanted {want.tolist()}")
    expect(call(fn, [[7, 2]]).tolist() == [[7, 2]], "on one row alone: nothing is to be padded")


def draw_pairs(count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Return pairs of rows of 1 … 20 ids, each pair different."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 21, (count, 2), generator=generator).tolist()
    return [([i + 4] * a, [i + 4] * b) for i, (a, b) in enumerate(lengths)]


def places(group: Sequence) -> int:
    """Return how many places a batch has on its larger side, padding counted."""
    return len(group) * max(len(row) for pair in group for row in pair)


@check("every pair once, within the budget, lengths alike, batches full")
def check_batches(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (pairs, max_tokens) that gives lists of pairs with at most max_tokens places a side."""
    pairs, budget = draw_pairs(200, 0), 100
    groups, where = call(fn, list(pairs), budget), "on 200 pairs of 1 to 20 ids with max_tokens=100"
    flat = sorted((tuple(src), tuple(tgt)) for group in groups for src, tgt in group)
    want = sorted((tuple(src), tuple(tgt)) for src, tgt in pairs)
    mixed = sum(src[0] != tgt[0] for src, tgt in flat)
    expect(not mixed, f"{where}: {mixed} sources came with another's target: sort pairs, not sides")
    lost = len(set(want)) - len(set(flat))
    expect(lost == 0, f"{where}: {lost} pairs are lost; the last group belongs to the batches too")
    expect(flat == want, f"{where}: {len(flat)} pairs came out: some twice")
    expect(all(groups), f"{where}: there is an empty batch")
    largest = max(map(places, groups))
    cause = "Count places, padding included: sentences × longest, on the larger side"
    expect(largest <= budget, f"{where}: a batch has {largest} places. {cause}")
    real = sum(max(len(src), len(tgt)) for src, tgt in pairs)
    share = 1 - real / sum(map(places, groups))
    expect(share < 0.2, f"{where}: {share:.0%} of the places are padding: put pairs of like length together")
    expect(len(groups) <= 1.4 * real / budget + 2, f"{where}: {len(groups)} batches, many of them nearly empty")
    long = [([4] * 3, [4] * 30), ([5] * 2, [5] * 2), ([6] * 2, [6] * 3)]
    sizes = sorted(len(group) for group in call(fn, long, 10))
    expect(sizes == [1, 2], f"a pair of 30 ids with max_tokens=10: batches of {sizes} pairs, wanted it alone in one")


@check("special ids, round trip, spaces, one spelling for composed letters, unknown characters")
def check_tokenizer(tokenizer: Tokenizer, train: Sequence[str] = (), *, device: torch.device | str = "cpu") -> None:
    """Check a trained tokenizer; with `train`, also that it learned from these texts and no others."""
    special = [tokenizer.id_to_token(i) for i in range(4)]
    expect(special == ["<pad>", "<s>", "</s>", "<unk>"], f"ids 0 to 3 are {special}, wanted <pad> <s> </s> <unk>")
    words = sorted(
        token.strip("▁") for token, i in tokenizer.get_vocab().items() if i > 3 and token.strip("▁").isalpha()
    )
    expect(len(words) > 5, "it has learned hardly any subwords: was it trained?")
    text = f"{words[0]} {words[-1]} {words[len(words) // 2]}"
    ids = tokenizer.encode(text).ids
    added = [tokenizer.id_to_token(i) for i in ids if i < 3]
    expect(
        not added, f"encoding {text!r} adds {added}: <s> and </s> are put where they are needed, not by the tokenizer"
    )
    again = tokenizer.decode(ids)
    expect(again.count(" ") == 2, f"{text!r} comes back as {again!r}: the spaces are lost, words must be marked with ▁")
    expect(again == text, f"{text!r} comes back as {again!r}")
    composed, apart = (tokenizer.encode(f"caff{e} {words[0]}").ids for e in ("\u00e8", "e\u0300"))
    cause = "The two look alike on paper: normalise to NFC"
    expect(composed == apart, f"è as one character and as e + accent gets different ids. {cause}")
    cause = "A character that is dropped changes the meaning in silence: it must become <unk>"
    expect(3 in tokenizer.encode(f"{words[0]} 𓀀").ids, f"the unknown character 𓀀 leaves no trace. {cause}")
    if train:
        learned_from(tokenizer, train)


def learned_from(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Expect every subword to occur in the texts."""
    used = {i for encoding in tokenizer.encode_batch(list(texts)) for i in encoding.ids}
    seen = "▁" + "▁".join("▁".join(tokenizer.normalizer.normalize_str(text).split()) for text in texts)
    vocabulary = {token: i for token, i in tokenizer.get_vocab().items() if i > 3}
    strange = sorted(token for token, i in vocabulary.items() if i not in used and token not in seen)
    cause = "Validation and test must stay unseen: learn the vocabulary from the training split alone"
    expect(not strange, f"the subwords {strange[:3]} do not occur in the training texts. {cause}")


# --- 11: training ----------------------------------------------------------------------------------------------------


def smoothed(labels: Tensor, v: int, smoothing: float, pad_id: int | None) -> Tensor:
    """Return the target distributions: 1 - smoothing on the label, the rest shared (not with pad_id)."""
    share = torch.full((v,), smoothing / (v - (pad_id is not None)), dtype=torch.float64, device=labels.device)
    if pad_id is not None:
        share[pad_id] = 0.0
    return share + (1 - smoothing) * F.one_hot(labels, v)


def loss_suspects(logits: Tensor, labels: Tensor, pad_id: int, smoothing: float) -> Suspects:
    """Return the usual mistakes of a loss; labels hold padding."""
    flat, wanted, real = logits.double().flatten(0, 1), labels.flatten(), (labels != pad_id).flatten()
    targets = smoothed(wanted, logits.shape[-1], smoothing, pad_id)
    each = -(targets * flat.log_softmax(-1)).sum(-1)
    kl = F.kl_div(flat.log_softmax(-1), targets, reduction="none").sum(-1)
    on_padding = -(smoothed(wanted, logits.shape[-1], smoothing, None) * flat.log_softmax(-1)).sum(-1)
    divided = (
        "The sum is divided by all places, padding too: the more padding, the better it looks. Divide by real tokens."
    )
    return {
        divided: lambda: (each * real).sum() / len(each),
        f"KL divergence, and {divided}": lambda: (kl * real).sum() / len(each),
        "This is the KL divergence: smaller by the entropy of the smoothed labels, so its exponential is no "
        "perplexity. Use the cross-entropy.": lambda: kl[real].mean(),
        "Smoothing puts mass on padding, which is never right: share it among the others.": lambda: on_padding[
            real
        ].mean(),
        "Padding counts as a word to be learned.": lambda: each.mean(),
        "Smoothing is not applied.": lambda: F.cross_entropy(flat[real], wanted[real]),
        "It is the sum: divide by the real tokens.": lambda: each[real].sum(),
        "Id 0 is ignored instead of pad_id: the padding of the labels counts.": lambda: each[wanted != 0].mean(),
        "A softmax was applied before the loss, which has its own.": lambda: (
            -(targets * flat.softmax(-1).log_softmax(-1)).sum(-1)[real].mean()
        ),
    }


@check("equal to PyTorch's cross-entropy, padding counts for nothing, smoothing avoids it, gradient, float16")
def check_loss(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (logits: … v, labels: …, pad_id, smoothing) that gives the mean loss in nats a token."""
    logits, labels = (
        2 * torch.randn(2, 5, 9).to(device),
        torch.tensor([[4, 8, 1, 2, 0], [6, 2, 3, 3, 3]], device=device),
    )
    real, where = labels != 3, "on logits 2×5×9 with 3 of 10 labels padding (pad_id 3)"
    for smoothing in (0.0, 0.1, 0.4):
        targets = smoothed(labels[real], 9, smoothing, 3)
        want = F.cross_entropy(logits[real].double(), targets)
        got = call(fn, logits, labels, 3, smoothing)
        expect(got.shape == (), f"{where}: the loss is {size(got)}, wanted one number")
        causes = loss_suspects(logits, labels, 3, smoothing)
        agree(got.double(), want, f"{where}, smoothing {smoothing}", causes, 1e-5)
    logits.requires_grad_()
    call(fn, logits, labels, 3, 0.1).backward()
    expect(not logits.grad[~real].any(), f"{where}: a gradient flows from places of padding")
    want = (logits.detach()[real].softmax(-1).double() - smoothed(labels[real], 9, 0.1, 3)) / real.sum()
    agree(logits.grad[real].double(), want, f"{where}: the gradient must be softmax minus label", None, 1e-5)
    large = call(fn, (80 * logits.detach()).half(), labels, 3, 0.1)
    expect(large.isfinite(), "on float16 logits of some hundreds the loss is not finite: compute it in float32")


@check("linear to the peak, then the inverse square root, no warm-up allowed")
def check_schedule(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (step, warmup, peak) that gives the learning rate; steps count from 1."""
    rates = {step: call(fn, step, 100, 0.01) for step in (1, 50, 100, 400, 10_000)}
    where = "with warmup=100 and peak=0.01"

    def near(step: int, want: float, cause: str) -> None:
        expect(
            math.isclose(rates[step], want, rel_tol=1e-6),
            f"{where}, step {step} has the rate {rates[step]:.3g}, wanted {want:.3g}. {cause}",
        )

    near(1, 0.0001, "Steps count from 1: the first is one part in warmup of the peak, never 0 and never the peak")
    near(50, 0.005, "Warm-up is linear")
    near(100, 0.01, "The peak is reached at step warmup")
    near(400, 0.005, "After warm-up the rate falls with the inverse square root: four times the steps, half the rate")
    near(10_000, 0.001, "It falls with the inverse square root, not exponentially or linearly, and never ends")
    hint = "0 ** -1.5 is not a number: without warm-up the first step has the peak."
    first, fourth = (call(fn, step, 0, 0.01, hint=hint) for step in (1, 4))
    expect(
        math.isclose(first, 0.01) and math.isclose(fourth, 0.005), f"with warmup=0, steps 1 and 4: {first}, {fourth}"
    )


@check("one step is one step of Adam, no gradient is carried over, validation is in eval mode, NaN stops")
def check_trainer(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(model, recipe) with step(batch), validate(batches), steps and average."""
    from transformer.training import Recipe

    recipe = Recipe(steps=9, peak_rate=1e-2, warmup=4, precision="fp32")
    model, by_hand = (small_model(device=device, dropout=0.0) for _ in range(2))
    by_hand.load_state_dict(model.state_dict())
    trainer = call(cls, model, recipe)
    batch = Batch(torch.tensor(SRC), torch.tensor([[1, 4, 10, 6, 2], [1, 9, 2, 0, 0]])).to(device)
    optimizer = torch.optim.Adam(by_hand.parameters(), betas=(0.9, 0.98), eps=1e-9)
    for step in (1, 2, 3):
        want = step_by_hand(by_hand, optimizer, batch, rate=1e-2 * step / 4, smoothing=recipe.smoothing)
        got = call(trainer.step, batch)
        cause = "Are gradients set to zero, is the rate set before the step, is padding left out of the loss?"
        expect(abs(got - want) < 1e-4, f"step {step} has the loss {got:.4f}, by hand it is {want:.4f}. {cause}")
    expect(trainer.steps == 3, f"after three steps trainer.steps is {trainer.steps}")
    trainer_validates(trainer, batch, device)
    with torch.no_grad():
        model.bias.fill_(math.nan)
    stops_at(4, trainer, batch)


def stops_at(step: int, trainer, batch: Batch) -> None:
    """Expect a FloatingPointError that names the step."""
    try:
        trainer.step(batch)
    except FloatingPointError as error:
        expect(
            str(step) in str(error), f"a loss of NaN stops training, but the message lacks the step, {step}: {error}"
        )
    else:
        raise CheckError("a loss of NaN was trained on: stop with a FloatingPointError that names the step")


def step_by_hand(model: Transformer, optimizer: torch.optim.Optimizer, batch: Batch, rate: float, smoothing: float):
    """Do what a trainer does in one step, the long way, and return the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = loss_by_hand(model, batch, smoothing)
    loss.backward()
    optimizer.step()
    return loss.item()


def loss_by_hand(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
    """Return the loss of a batch from PyTorch's cross-entropy."""
    logits, real = model(batch.src, batch.tgt[:, :-1]), batch.tgt[:, 1:] != model.config.pad_id
    labels = smoothed(batch.tgt[:, 1:][real], model.config.vocab_size, smoothing, model.config.pad_id)
    return F.cross_entropy(logits[real], labels.float())


def trainer_validates(trainer, batch: Batch, device: torch.device | str) -> None:
    """Expect the loss of validation: of the averaged weights, a mean over tokens, smoothed as in training, no dropout."""
    smoothing = trainer.recipe.smoothing
    short = Batch(torch.tensor([[6, 2]]), torch.tensor([[1, 5, 2]])).to(device)
    counts = [(b.tgt[:, 1:] != 0).sum().item() for b in (batch, short)]
    with torch.no_grad():
        losses = [loss_by_hand(trainer.average, b, smoothing).item() for b in (batch, short)]
    want = sum(n * loss for n, loss in zip(counts, losses, strict=True)) / sum(counts)
    got = call(trainer.validate, [batch, short])
    cause = "It is the loss of `average`, a mean over all tokens, in eval mode"
    expect(abs(got - want) < 1e-4, f"the validation loss of two batches is {got:.4f}, by hand {want:.4f}. {cause}")
    expect(not trainer.average.training, "validation runs in train mode: dropout spoils the loss")


# --- 12: inference ---------------------------------------------------------------------------------------------------


LIVELY, TREES = (0, 30), (34, 4)  # seeds whose models say various things of various lengths


def decoding_model(
    device: torch.device | str, vocab_size: int = 9, seed: int = LIVELY[0], norm: str = "post"
) -> Transformer:
    """Return a model for search that says various things of various lengths, and has dropout to be switched off."""
    torch.default_generator.manual_seed(seed)
    model = small_model(vocab_size=vocab_size, dropout=0.5, max_len=24, norm=norm)
    last, some = model.decoder.layers[-1], torch.randint(3, vocab_size, (2, 50, 6))
    with torch.no_grad():
        model.positions.table.mul_(2)
        last.feed_forward.w_2.weight.mul_(8)
        (last.residuals[-1].norm if norm == "post" else model.decoder.norm).gain.normal_(std=2)
        model.bias.sub_(model(*some).mean((0, 1)))
        model.bias[model.config.eos_id] += 0.3
    return model.to(device)


def sources(vocab_size: int, device: torch.device | str) -> Tensor:
    """Return four source sentences of different lengths, padded."""
    ids = torch.randint(3, vocab_size, (4, 6))
    for row, length in enumerate((6, 4, 3, 1)):
        ids[row, length - 1], ids[row, length:] = 2, 0
    return ids.to(device)


def greedy_by_hand(model: Transformer, src: Tensor, max_len: int) -> Tensor:
    """Return greedy translations, the whole model run again for each token."""
    tgt = src.new_full((len(src), 1), model.config.bos_id)
    done = torch.zeros_like(tgt[:, 0], dtype=torch.bool)
    with torch.no_grad():
        while tgt.shape[1] <= max_len and not done.all():
            logits = model.eval()(src, tgt)[:, -1]
            logits[:, [model.config.pad_id, model.config.bos_id]] = -math.inf
            ids = logits.argmax(-1).masked_fill(done, model.config.pad_id)
            tgt, done = torch.cat([tgt, ids.unsqueeze(-1)], dim=1), done | (ids == model.config.eos_id)
    return tgt[:, 1:]


def well_formed(ids: Tensor, model: Transformer, where: str) -> None:
    """Expect translations without <s>, and with nothing but padding after </s>."""
    config = model.config
    expect(ids.ndim == 2 and ids.dtype == torch.int64, f"{where}: wanted ids b t of int64, got {size(ids)}")
    expect(not (ids[:, 0] == config.bos_id).all(), f"{where}: the translations begin with <s>: leave it out")
    ended = (ids == config.eos_id).cumsum(-1) - (ids == config.eos_id).int() > 0
    cause = "A translation that never stops at </s> is cut off by luck"
    expect(not (ended & (ids != config.pad_id)).any(), f"{where}: tokens follow </s>, wanted padding. {cause}")
    early = (ids == config.pad_id) & ~ended
    expect(not early.any(), f"{where}: padding was written as a word, before </s>: rule out <pad> and <s>")


def keeps_the_model(fn: Callable, model: Transformer, *args, **options):
    """Call a search with the model in train mode, and expect it to be back in train mode afterwards."""
    model.train()
    result = call(fn, model, *args, **options)
    expect(model.training, "the model was left in eval mode: put it back as it was")
    model.eval()
    return result


@check("equal to the slow way, stops at </s>, without dropout, model left as it was, max_len")
def check_greedy(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (model, src: b k, max_len) that gives ids b t without <s>, with </s>, padded."""
    for seed in LIVELY:
        model, src = decoding_model(device, seed=seed), sources(9, device)
        ids, where = keeps_the_model(fn, model, src, max_len=12), f"on src {size(src)} with max_len=12"
        want = greedy_by_hand(model, src, 12)
        well_formed(ids, model, where)
        expect(ids.shape[1] <= 12, f"{where}: {ids.shape[1]} tokens were written")
        steps = min(ids.shape[1], want.shape[1])
        wrong = (ids[:, :steps] != want[:, :steps]).any(0).nonzero()
        cause = "Is dropout off (model.eval()), is it the last position's logits, is each token read back in?"
        if len(wrong):
            at = wrong[0].item()
            raise CheckError(
                f"{where}: token {at} is {ids[:, at].tolist()}, likeliest is {want[:, at].tolist()}. {cause}"
            )
        expect(
            ids.shape == want.shape,
            f"{where}: {ids.shape[1]} columns, wanted {want.shape[1]}: stop when all have ended",
        )
    cut = call(fn, model, src, max_len=2)
    expect(cut.shape[1] <= 2, f"with max_len=2 it wrote {cut.shape[1]} tokens")


def log_probs_of(model: Transformer, src: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probability of every translation, and the sum of its logits."""
    read = torch.cat([torch.full_like(ids[:, :1], model.config.bos_id), ids], dim=1)[:, :-1]
    with torch.no_grad():
        logits = model.eval()(src, read)
    real, at = ids != model.config.pad_id, ids.unsqueeze(-1)
    found = [
        scores.gather(-1, at).squeeze(-1).masked_fill(~real, 0.0).sum(-1) for scores in (logits.log_softmax(-1), logits)
    ]
    return found[0], found[1]


def every_sequence(words: Sequence[int], eos: int, max_len: int) -> list[list[int]]:
    """Return all translations of at most max_len tokens: those that end in </s>, and those cut off."""
    found = [[*body, eos] for n in range(max_len) for body in itertools.product(words, repeat=n)]
    return found + [list(body) for body in itertools.product(words, repeat=max_len)]


def best_of_all(model: Transformer, src: Tensor, max_len: int, penalty: float) -> list[list[int]]:
    """Return the best translation of each sentence, by trying all."""
    config = model.config
    words = [i for i in range(config.vocab_size) if i not in (config.pad_id, config.bos_id, config.eos_id)]
    rows = every_sequence(words, config.eos_id, max_len)
    ids = torch.tensor([row + [config.pad_id] * (max_len - len(row)) for row in rows], device=src.device)
    lengths = (ids != config.pad_id).sum(-1)
    best = []
    for sentence in src:
        log_probs, _ = log_probs_of(model, repeat(sentence, "k -> n k", n=len(ids)), ids)
        best.append(rows[int((log_probs / lengths**penalty).argmax())])
    return best


def sure(model: Transformer, src: Tensor, ids: Tensor, log_probs: Tensor, where: str) -> None:
    """Expect the log-probabilities to be the true ones of their sequences."""
    true, raw = log_probs_of(model, src, ids)
    lengths = (ids != model.config.pad_id).sum(-1)
    suspects = {
        "Raw logits are added as if they were log-probabilities: take log_softmax first.": lambda: raw,
        "They are divided by a length: return the log-probability itself.": lambda: true / lengths,
    }
    try:
        agree(log_probs, true, f"{where}: the scores are not the log-probabilities of their sequences", suspects, 1e-4)
    except CheckError as error:
        cause = "When hypotheses change places, what the decoder remembers must change with them"
        explained = any(text in str(error) for text in suspects)
        raise error if explained else CheckError(f"{error}. {cause}") from None


@check(
    "true log-probabilities, width 1 is greedy, the widest finds the best of all, stops at </s>, model left as it was"
)
def check_beam_search(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (model, src, beam_size, length_penalty, max_len) that gives ids b t and log-probabilities b."""
    for seed, tree in zip(LIVELY, TREES, strict=True):
        model, src = decoding_model(device, seed=seed), sources(9, device)
        for width in (3, 1):
            where = f"on src {size(src)} with beam_size={width}"
            ids, log_probs = keeps_the_model(fn, model, src, beam_size=width, length_penalty=1.0, max_len=10)
            well_formed(ids, model, where)
            sure(model, src, ids, log_probs, where)
        beam_finds_the_best(fn, tree, device)
        expect(ids.equal(greedy_by_hand(model, src, 10)), f"{where} it finds other translations than greedy search")
    refuses(fn, model, src, beam_size=0, what="beam_size=0")


def beam_finds_the_best(fn: Callable, seed: int, device: torch.device | str) -> None:
    """Expect a beam as wide as the tree of two words and four steps to find the best of all sequences."""
    model = decoding_model(device, vocab_size=5, seed=seed)
    src = sources(5, device)
    for penalty in (0.0, 1.0):
        ids, _ = call(fn, model, src, beam_size=32, length_penalty=penalty, max_len=4)
        copies = ids.equal(greedy_by_hand(model, src, 4))
        for row, want in zip(ids.tolist(), best_of_all(model, src, 4, penalty), strict=True):
            got = [i for i in row if i != model.config.pad_id]
            where = f"with 2 words, max_len=4, beam_size=32 and length_penalty={penalty} it found {got}, best is {want}"
            expect(
                got == want or not copies, f"{where}. That is greedy search: did all hypotheses start as the same one?"
            )
            cause = "Are hypotheses that ended early kept and compared with the later ones?"
            expect(len(got) <= len(want), f"{where}. {cause}")
            cause = "Is the score divided by length ** length_penalty, and does search go on after the first </s>?"
            expect(len(got) >= len(want), f"{where}. {cause}")
            expect(got == want, where)


@check("seeded, by probability, temperature, top_k, model left as it was")
def check_sample(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (model, src, temperature, top_k, max_len, generator) that gives ids b t."""
    model, src = decoding_model(device), sources(9, device)
    run = functools.partial(keeps_the_model, fn, model)

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(seed)

    state = torch.get_rng_state()
    first, second = (run(src, max_len=8, generator=seeded(3)) for _ in range(2))
    well_formed(first, model, f"on src {size(src)}")
    cause = "Draw from the generator that was given"
    expect(first.equal(second), f"two samples with the same seed differ: is dropout off? {cause}")
    expect(torch.get_rng_state().equal(state), f"the global random state was changed. {cause}")
    many = repeat(src[:1], "1 k -> n k", n=4000)
    with torch.no_grad():
        logits = model.eval()(src[:1], src.new_tensor([[1]]))[0, -1].index_fill(0, src.new_tensor([0, 1]), -math.inf)
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, None), (1.0, 2)):
        drawn = run(many, temperature=temperature, top_k=top_k, max_len=1, generator=seeded(4))[:, 0]
        frequencies = drawn.bincount(minlength=9) / len(drawn)
        draws_by_probability(frequencies, logits, temperature, top_k)
    greedy = greedy_by_hand(model, src, 8)
    for options in (dict(top_k=1), dict(temperature=1e-4)):
        sampled = run(src, max_len=8, generator=seeded(5), **options)
        expect(sampled.equal(greedy), f"with {options} the sample must be the greedy translation")
    refuses(fn, model, src, temperature=0.0, what="temperature=0")


def draws_by_probability(frequencies: Tensor, logits: Tensor, temperature: float, top_k: int | None) -> None:
    """Expect tokens to be drawn as often as they are probable."""
    kept = logits if top_k is None else logits.masked_fill(logits < logits.topk(top_k).values[-1], -math.inf)
    suspects = {
        "The logits are multiplied by the temperature: divide.": lambda: (kept * temperature).softmax(-1),
        "The temperature is ignored.": lambda: kept.softmax(-1),
        "top_k is ignored.": lambda: (logits / temperature).softmax(-1),
        "All tokens that are left are equally likely: weigh them by softmax.": lambda: (
            kept.isfinite() / kept.isfinite().sum()
        ),
    }
    where = f"with temperature={temperature} and top_k={top_k}, frequencies of 4,000 first tokens"
    agree(frequencies, (kept / temperature).softmax(-1), where, suspects, tolerance=0.04)


@check("equal to the whole model at every step, hypotheses change places, sentences leave, nothing computed twice")
def check_incremental(decoder_class: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(model, src) with step(ids: rows) giving logits, select(rows) and keep(sentences)."""
    model = small_model(device=device, norm="pre")
    src, tgt = torch.tensor(SRC, device=device), torch.randint(3, 11, (2, 6)).to(device)
    with torch.no_grad():
        decoder, want = call(decoder_class, model, src), model(src, tgt)
        for t in range(tgt.shape[1]):
            got = call(decoder.step, tgt[:, t])
            agree(got, want[:, t], f"step {t} of 6, logits", position_suspects(model, src, tgt[:, : t + 1]), 2e-5)
        hypotheses_change_places(decoder_class, model, src)
        nothing_twice(decoder_class, model, src, tgt)
        for stay in (0, 1):
            sentences_leave(decoder_class, model, src, stay)


def position_suspects(model: Transformer, src: Tensor, tgt: Tensor) -> Suspects:
    """Return the usual mistakes of decoding token by token; tgt ends with the token of this step."""
    mask, past = keys(src != 0), only_past(tgt.shape[1], tgt.device)

    def run(x: Tensor, past: Tensor, mask: Tensor | None = mask) -> Tensor:
        return model.logits(model.decoder(x, model.encode(src), past, mask))[:, -1]

    x = embedded(model, tgt)
    alone = torch.eye(tgt.shape[1], dtype=torch.bool, device=tgt.device).expand_as(past)
    return {
        "Every token got position 0: hand the number of the step to the positional encoding.": lambda: run(
            model.embedding(tgt) + embedded(model, tgt)[:, :1] - model.embedding(tgt)[:, :1], past
        ),
        "The tokens before are forgotten: keep their keys and values.": lambda: run(x, alone),
        "The padding of the source is asked too: hand its mask on.": lambda: run(x, past, None),
    }


def hypotheses_change_places(decoder_class: Callable, model: Transformer, src: Tensor) -> None:
    """Expect select to take what was remembered along, with three hypotheses for each sentence."""
    decoder, rows = call(decoder_class, model, src), torch.tensor([2, 0, 0, 4, 3, 4], device=src.device)
    tgt = torch.tensor([[1, 3], [1, 4], [1, 5], [1, 6], [1, 7], [1, 8]], device=src.device)
    for t in range(2):
        call(decoder.step, tgt[:, t])
    call(decoder.select, rows)
    new = torch.tensor([9, 4, 6, 3, 10, 5], device=src.device)
    want = model(repeat(src, "b k -> (b n) k", n=3), torch.cat([tgt[rows], new.unsqueeze(-1)], dim=1))[:, -1]
    stayed = torch.cat([tgt, new.unsqueeze(-1)], dim=1)
    cause = "select left the memory in the old order: keys and values must change places with their hypotheses."
    suspects = {cause: lambda: model(repeat(src, "b k -> (b n) k", n=3), stayed)[:, -1]}
    agree(
        call(decoder.step, new),
        want,
        f"2 sentences with 3 hypotheses each, after select({rows.tolist()})",
        suspects,
        2e-5,
    )


def sentences_leave(decoder_class: Callable, model: Transformer, src: Tensor, stay: int) -> None:
    """Expect keep to let the other sentences go, with all that belongs to them: keys, values and mask."""
    tgt = torch.tensor([[1, 3, 5], [1, 4, 6], [1, 7, 9], [1, 8, 10]], device=src.device)
    decoder, kept = call(decoder_class, model, src), tgt[2 * stay : 2 * stay + 2]
    for t in range(2):
        call(decoder.step, tgt[:, t])
    call(decoder.keep, torch.tensor([stay], device=src.device))
    real = torch.stack([src[stay], src[stay], src[1 - stay]]) != 0  # the third step gets the other sentence's mask

    def masked_by_another() -> Tensor:
        memory, past = repeat(model.encode(src[[stay]]), "1 k d -> n k d", n=2), only_past(3, src.device)
        x = model.decoder(embedded(model, kept), memory, past, rearrange(real, "q k -> 1 1 q k"))
        return model.logits(x)[:, -1]

    cause = "The mask of a sentence that left is still there: keep takes it along."
    want = model(repeat(src[[stay]], "1 k -> n k", n=2), kept)[:, -1]
    where = f"2 sentences with 2 hypotheses each, after keep([{stay}])"
    agree(call(decoder.step, kept[:, 2]), want, where, {cause: masked_by_another}, 2e-5)


def nothing_twice(decoder_class: Callable, model: Transformer, src: Tensor, tgt: Tensor) -> None:
    """Expect each key to be computed once: of a source token once a sentence, of a target token at its own step."""
    counts = {"self": 0, "cross": 0}
    layer = model.decoder.layers[-1]

    def count(name: str) -> Callable:
        return lambda module, inputs, output: counts.update({name: counts[name] + output.shape[1]})

    hooks = [
        layer.self_attention.w_k.register_forward_hook(count("self")),
        layer.cross_attention.w_k.register_forward_hook(count("cross")),
    ]
    try:
        decoder = call(decoder_class, model, src)
        for t in range(tgt.shape[1]):
            decoder.step(tgt[:, t])
    finally:
        for hook in hooks:
            hook.remove()
    cause = "What is cached must be keys and values, not the inputs they are made from"
    expect(counts["self"] <= 6, f"in 6 steps {counts['self']} keys of target positions were computed. {cause}")
    cause = "The source does not change: compute its keys and values before the first step"
    expect(counts["cross"] <= 6, f"for 6 source tokens {counts['cross']} keys were computed in 6 steps. {cause}")


REFERENCES = ["the cat is on the mat .", "i love you very much .", "there is a house behind the tree ."]
HYPOTHESES = ["the cat sits on the mat .", "i love you much .", "there is a house behind the tree ."]


def score_suspects() -> Suspects:
    """Return the usual mistakes of a BLEU."""
    zipped = [a == b for pair in zip(HYPOTHESES, REFERENCES, strict=True) for a, b in zip(*pair, strict=False)]
    means = [
        BLEU(effective_order=True).sentence_score(h, [r]).score for h, r in zip(HYPOTHESES, REFERENCES, strict=True)
    ]
    marked = [[f"<s> {text} </s>" for text in texts] for texts in (HYPOTHESES, REFERENCES)]
    values = {
        "Characters were compared place by place: BLEU counts n-grams of words.": 100 * sum(zipped) / len(zipped),
        "Sentence scores were averaged: BLEU is of the whole corpus.": sum(means) / len(means),
        "<s> and </s> were counted as words that are always right.": BLEU().corpus_score(marked[0], [marked[1]]).score,
        "It is a share of 1: BLEU is told in points of 100.": BLEU().corpus_score(HYPOTHESES, [REFERENCES]).score / 100,
    }
    return {cause: lambda value=value: torch.tensor(value) for cause, value in values.items()}


@check("equal to sacrebleu, 0 for no word right, whole corpus, signatures")
def check_scores(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (hypotheses, references) that gives "BLEU", "chrF" and their "signatures"."""
    got = call(fn, HYPOTHESES, REFERENCES)
    for name, metric in {"BLEU": BLEU(), "chrF": CHRF()}.items():
        want = torch.tensor(metric.corpus_score(HYPOTHESES, [REFERENCES]).score)
        agree(torch.tensor(float(got[name])), want, f"{name} of three sentences", score_suspects(), 1e-2)
    nothing = call(fn, ["uno due tre quattro cinque"], ["the cat is on the mat"])["BLEU"]
    expect(nothing == 0, f"a translation with no word right has {nothing:.1f} BLEU")
    versions = all("version" in signature for signature in got["signatures"])
    expect(versions, "the signatures do not say how the scores were computed: take them from sacrebleu")

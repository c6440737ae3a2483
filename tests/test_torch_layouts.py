"""Weights of `torch.nn.Transformer` and of The Annotated Transformer, in and out."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transformer.checks.fixtures import small_model
from transformer.decoder import causal_mask, padding_mask
from transformer.inference import beam_search
from transformer.model import Transformer
from transformer.torch_layouts import (
    from_annotated,
    from_torch,
    to_annotated,
    to_torch,
    torch_state,
)


def shaken(module: Any) -> Any:
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval().requires_grad_(False)


def states(twin: nn.Transformer, model: Transformer, src: Tensor, tgt: Tensor) -> Tensor:
    """Return the states that `nn.Transformer` makes of the model's own embeddings."""
    return twin(
        model.embed(src),
        model.embed(tgt),
        tgt_mask=~causal_mask(tgt.shape[1]),
        src_key_padding_mask=src == 0,
        memory_key_padding_mask=src == 0,
    )


def ids() -> tuple[Tensor, Tensor]:
    src = torch.randint(3, 20, (3, 7))
    src[1, 5:] = 0
    return src, torch.randint(3, 20, (3, 5))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_out_and_back_is_bit_exact(norm: str) -> None:
    model = shaken(small_model(vocab_size=20, norm=norm))
    twin = to_torch(model)
    src, tgt = ids()
    want = model.decoder_states(tgt, model.encode(src), src)
    torch.testing.assert_close(states(twin, model, src, tgt), want, atol=1e-5, rtol=1e-5)
    sizes = dict(max_len=model.config.max_len)
    again = from_torch(twin, model.embedding.weight, model.bias, **sizes)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].equal(tensor), name


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_plain_torch_transformer_is_read(norm_first: bool, activation: str) -> None:
    options = dict(batch_first=True, norm_first=norm_first, activation=activation)
    twin = shaken(nn.Transformer(12, 3, 2, 2, 24, layer_norm_eps=1e-3, **options))
    model = from_torch(twin, torch.randn(20, 12) / 4)
    src, tgt = ids()
    got = model.decoder_states(tgt, model.encode(src), src)
    torch.testing.assert_close(got, states(twin, model, src, tgt), atol=1e-5, rtol=1e-5)
    back = to_torch(model).state_dict()
    assert back.keys() == twin.state_dict().keys()
    assert all(back[name].equal(x) for name, x in twin.state_dict().items())
    assert beam_search(model, src, max_len=5)[1].isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    twin = nn.Transformer(12, 3, 2, 1, 24, batch_first=True)
    with pytest.raises(ValueError, match="table has 8 features and twin 12"):
        from_torch(twin, torch.randn(20, 8))
    with pytest.raises(ValueError, match="as many encoder as decoder layers"):
        from_torch(twin, torch.randn(20, 12))


# --- The Annotated Transformer --------------------------------------------------------------------


def annotated_weights(d: int = 12, d_ff: int = 24) -> dict[str, Tensor]:
    """Return random weights by that layout's names: 2 encoder layers, 1 decoder layer."""
    shapes: dict[str, tuple[int, ...]] = {
        "src_embed.0.lut.weight": (19, d),
        "tgt_embed.0.lut.weight": (17, d),
        "generator.proj.weight": (17, d),
        "generator.proj.bias": (17,),
    }
    layers = {"encoder.layers.0": 2, "encoder.layers.1": 2, "decoder.layers.0": 3}
    for layer, sublayers in layers.items():
        for attention in ("self_attn", "src_attn")[: sublayers - 1]:
            for i in range(4):
                shapes[f"{layer}.{attention}.linears.{i}.weight"] = (d, d)
                shapes[f"{layer}.{attention}.linears.{i}.bias"] = (d,)
        for name, size in {"w_1": (d_ff, d), "w_2": (d, d_ff)}.items():
            shapes[f"{layer}.feed_forward.{name}.weight"] = size
            shapes[f"{layer}.feed_forward.{name}.bias"] = size[:1]
        for i in range(sublayers):
            shapes |= {f"{layer}.sublayer.{i}.norm.{part}": (d,) for part in ("a_2", "b_2")}
    for side in ("encoder", "decoder"):
        shapes |= {f"{side}.norm.{part}": (d,) for part in ("a_2", "b_2")}
    return {name: torch.randn(shape) / 3 for name, shape in shapes.items()}


def annotated_states(w: dict[str, Tensor], src: Tensor, tgt: Tensor, n_heads: int) -> Tensor:
    """Return the logits by that layout's arithmetic, written out: no block of the course."""
    d = 12

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return w[f"{name}.a_2"] * centred / (x.std(-1, keepdim=True) + 1e-6) + w[f"{name}.b_2"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attend(q: Tensor, m: Tensor, name: str, mask: Tensor) -> Tensor:
        heads = []
        queries, keys, values = (
            linear(x, f"{name}.linears.{i}").chunk(n_heads, -1) for i, x in enumerate((q, m, m))
        )
        for query, key, value in zip(queries, keys, values, strict=True):
            scores = query @ key.mT / math.sqrt(d // n_heads)
            heads.append(scores.masked_fill(~mask, -1e9).softmax(-1) @ value)
        return linear(torch.cat(heads, -1), f"{name}.linears.3")

    def feed(x: Tensor, name: str) -> Tensor:
        hidden = linear(x, f"{name}.feed_forward.w_1").relu()
        return linear(hidden, f"{name}.feed_forward.w_2")

    def embed(table: str, rows: Tensor) -> Tensor:
        x = w[f"{table}.0.lut.weight"][rows] * math.sqrt(d)
        place = torch.arange(rows.shape[1]).unsqueeze(1)
        wave = place / 10_000 ** (torch.arange(0, d, 2) / d)
        return x + torch.stack([wave.sin(), wave.cos()], -1).flatten(1)

    real = padding_mask(src, 2)[:, 0]
    x = embed("src_embed", src)
    for n in range(2):
        layer = f"encoder.layers.{n}"
        y = norm(x, f"{layer}.sublayer.0.norm")
        x = x + attend(y, y, f"{layer}.self_attn", real)
        x = x + feed(norm(x, f"{layer}.sublayer.1.norm"), layer)
    memory = norm(x, "encoder.norm")
    layer = "decoder.layers.0"
    x = embed("tgt_embed", tgt)
    y = norm(x, f"{layer}.sublayer.0.norm")
    x = x + attend(y, y, f"{layer}.self_attn", causal_mask(tgt.shape[1]))
    x = x + attend(norm(x, f"{layer}.sublayer.1.norm"), memory, f"{layer}.src_attn", real)
    x = x + feed(norm(x, f"{layer}.sublayer.2.norm"), layer)
    return linear(norm(x, "decoder.norm"), "generator.proj")


def test_the_annotated_layout_is_read_and_written() -> None:
    weights = annotated_weights()
    model = from_annotated(weights | {"src_embed.1.pe": torch.zeros(1)}, n_heads=3, max_len=20)
    src = torch.randint(3, 17, (3, 7))
    src[1, 5:] = 2
    tgt = torch.randint(3, 17, (3, 5))
    want = annotated_states(weights, src, tgt, n_heads=3)
    torch.testing.assert_close(model(src, tgt).detach(), want, atol=1e-5, rtol=1e-5)
    back = to_annotated(model)
    assert back.keys() == weights.keys()
    assert all(back[name].equal(x) for name, x in weights.items())


def test_a_layout_that_is_another_is_refused() -> None:
    weights = annotated_weights()
    missing = {n: x for n, x in weights.items() if n != "decoder.norm.a_2"}
    with pytest.raises(ValueError, match=r"decoder\.norm\.a_2 is missing"):
        from_annotated(missing, n_heads=3)
    with pytest.raises(ValueError, match="extra is unexpected"):
        from_annotated(weights | {"extra": torch.zeros(1)}, n_heads=3)
    with pytest.raises(ValueError, match="no tensor src_embed"):
        from_annotated({}, n_heads=3)
    assert "encoder.layers.0.self_attn.in_proj_weight" in torch_state(small_model(vocab_size=20))

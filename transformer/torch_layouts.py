"""Weights of `torch.nn.Transformer` and of The Annotated Transformer, in and out.

The numbers are copied, not changed, so what goes out and comes back is the same bit for bit.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer.feed_forward import FeedForward
from transformer.model import Config, Transformer
from transformer.pretrained import PublishedConfig, PublishedTransformer
from transformer.residual_norm import LayerNorm

QKV = ("w_q", "w_k", "w_v")
TORCH_NAMES = {
    "self_attention": "self_attn",
    "cross_attention": "multihead_attn",
    "w_o": "out_proj",
    "feed_forward.w_1": "linear1",
    "feed_forward.w_2": "linear2",
    "residuals.0.norm": "norm1",
    "residuals.1.norm": "norm2",
    "residuals.2.norm": "norm3",
    "gain": "weight",
}
ANNOTATED_NAMES = {
    "cross_attention": "src_attn",
    "self_attention": "self_attn",
    "w_q": "linears.0",
    "w_k": "linears.1",
    "w_v": "linears.2",
    "w_o": "linears.3",
    "residuals": "sublayer",
    "norm.gain": "norm.a_2",
    "norm.bias": "norm.b_2",
}
TABLES = {
    "source_embedding.weight": "src_embed.0.lut.weight",
    "embedding.weight": "tgt_embed.0.lut.weight",
    "output.weight": "generator.proj.weight",
    "bias": "generator.proj.bias",
}


def renamed(name: str, table: Mapping[str, str]) -> str:
    """Return a name with each part that the table has replaced."""
    for ours, theirs in table.items():
        name = f".{name}.".replace(f".{ours}.", f".{theirs}.").strip(".")
    return name


# --- torch.nn.Transformer -------------------------------------------------------------------------


def torch_state(model: Transformer) -> dict[str, Tensor]:
    """Return the weights of a model's two stacks by the names of `nn.Transformer`.

    Its attention keeps the matrices of queries, keys and values in one. Embeddings and output are
    not part of `nn.Transformer`.
    """
    state: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(("encoder.", "decoder.")):
            continue
        module, _, leaf = name.rpartition(".")
        attention, _, last = module.rpartition(".")
        if last in QKV:
            key = f"{renamed(attention, TORCH_NAMES)}.in_proj_{leaf}"
            parts.setdefault(key, []).append(tensor)
        else:
            state[renamed(name, TORCH_NAMES)] = tensor.clone()
    return state | {name: torch.cat(three) for name, three in parts.items()}


def to_torch(model: Transformer) -> nn.Transformer:
    """Return `torch.nn.Transformer` with a model's weights, in the model's mode of training.

    It takes and returns vectors, batch first; its boolean masks hide where they are True. After
    post-norm it has no last norms unless the model has.
    """
    config = model.config
    layer: Any = model.encoder.layers[0]
    twin = nn.Transformer(
        config.d_model,
        layer.self_attention.n_heads,
        len(model.encoder.layers),
        len(model.decoder.layers),
        layer.feed_forward.w_1.out_features,
        config.dropout,
        layer.feed_forward.activation,
        layer_norm_eps=layer.residuals[0].norm.eps,
        batch_first=True,
        norm_first=config.norm == "pre",
    )
    for stack in (twin.encoder, twin.decoder):
        stack.norm = None
    for name in ("encoder", "decoder"):
        final = getattr(model, name).norm
        if isinstance(final, LayerNorm):
            getattr(twin, name).norm = nn.LayerNorm(config.d_model, final.eps)
    twin.load_state_dict(torch_state(model))
    return twin.to(model.bias.device).train(model.training)


def from_torch(
    twin: nn.Transformer,
    table: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"] | None = None,
    **changes: Any,
) -> Transformer:
    """Return the course's model with the weights of `torch.nn.Transformer` and of a tied table.

    `nn.Transformer` has last norms in post-norm, too, and so has the result. `changes` are fields
    of the `Config`, such as the special ids. Raises ValueError if the two do not fit together, or
    for a `twin` whose sides differ in what the course's model has once.
    """
    encoder: Any = twin.encoder.layers[0]
    decoder: Any = twin.decoder.layers[0]
    if table.shape[1] != twin.d_model:
        raise ValueError(f"table has {table.shape[1]} features and twin {twin.d_model}")
    if (
        len(twin.encoder.layers) != len(twin.decoder.layers)
        or encoder.self_attn.in_proj_bias is None
    ):
        raise ValueError("twin must have as many encoder as decoder layers, and biases")
    sizes: dict[str, Any] = dict(
        d_model=twin.d_model,
        n_heads=twin.nhead,
        n_layers=len(twin.encoder.layers),
        d_ff=encoder.linear1.out_features,
        dropout=encoder.dropout.p,
        norm="pre" if encoder.norm_first else "post",
    )
    model = Transformer(Config(len(table), **sizes | changes))
    for ours, theirs in ((model.encoder, twin.encoder), (model.decoder, twin.decoder)):
        if isinstance(theirs.norm, nn.LayerNorm):
            ours.norm = LayerNorm(twin.d_model)
        elif isinstance(ours.norm, LayerNorm):
            ours.norm = nn.Identity()
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.eps = encoder.norm1.eps
    sides = ((model.encoder, encoder), (model.decoder, decoder))
    for block, layer in ((block, layer) for stack, layer in sides for block in stack.modules()):
        if isinstance(block, FeedForward):
            block.activation = layer.activation
    state = split_state(twin.state_dict(), model.state_dict())
    zeros = torch.zeros(len(table))
    model.load_state_dict(
        state | {"embedding.weight": table, "bias": zeros if bias is None else bias}
    )
    return model.to(table.device).train(twin.training)


def split_state(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of `nn.Transformer` by the course's names, which `ours` lists."""
    state = {}
    for name in ours:
        if not name.startswith(("encoder.", "decoder.")):
            continue
        module, _, leaf = name.rpartition(".")
        attention, _, last = module.rpartition(".")
        if last in QKV:
            three = theirs[f"{renamed(attention, TORCH_NAMES)}.in_proj_{leaf}"].chunk(3)
            state[name] = three[QKV.index(last)]
        else:
            state[name] = theirs[renamed(name, TORCH_NAMES)]
    return state


# --- The Annotated Transformer --------------------------------------------------------------------


class SampleNorm(LayerNorm):
    """The norm of The Annotated Transformer: its σ divides by d - 1, and eps is added to σ.

    Chapter 5 shows why this is not layer norm.
    """

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return every vector of `x` normalised over its features."""
        deviation = x.std(-1, keepdim=True)
        return self.gain * (x - x.mean(-1, keepdim=True)) / (deviation + self.eps) + self.bias


def from_annotated(
    state: Mapping[str, Tensor], n_heads: int, eps: float = 1e-6, **changes: Any
) -> PublishedTransformer:
    """Return the course's blocks with the weights of The Annotated Transformer's `EncoderDecoder`.

    It is pre-norm, with a norm of its own kind and three tables. `changes` are fields of
    `PublishedConfig`; without them padding is 2, <s> 0 and </s> 1. Raises ValueError, which names
    it, for a tensor that is missing or unexpected.
    """
    state = {name: x for name, x in state.items() if not name.endswith(".pe")}
    try:
        source, target = (state[TABLES[f"{n}.weight"]] for n in ("source_embedding", "embedding"))
        d_ff = len(state["encoder.layers.0.feed_forward.w_1.bias"])
    except KeyError as error:
        raise ValueError(f"state has no tensor {error.args[0]}") from None
    counts = [
        1 + max(int(n.split(".")[2]) for n in state if n.startswith(f"{side}.layers."))
        for side in ("encoder", "decoder")
    ]
    options: dict[str, Any] = dict(
        d_model=target.shape[1],
        n_heads=n_heads,
        n_layers=counts[1],
        d_ff=d_ff,
        norm="pre",
        pad_id=2,
        bos_id=0,
        eos_id=1,
        family="annotated",
        source_vocab_size=len(source),
        encoder_layers=counts[0],
        encoder_heads=n_heads,
        encoder_d_ff=d_ff,
        activation="relu",
        positions="paper",
        logits_bias=True,
        tables="three",
    )
    model = PublishedTransformer(PublishedConfig(len(target), **options | changes))
    for module in list(model.modules()):
        if isinstance(getattr(module, "norm", None), LayerNorm):
            module.norm = SampleNorm(target.shape[1], eps)
    names = {ours: annotated_name(ours) for ours in model.state_dict()}
    wrong = sorted(set(names.values()) ^ set(state))
    if wrong:
        kind = "unexpected" if wrong[0] in state else "missing"
        raise ValueError(f"state is of another model: {wrong[0]} is {kind}")
    model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    return model.eval()


def to_annotated(model: PublishedTransformer) -> dict[str, Tensor]:
    """Return a model's weights by the names of The Annotated Transformer; the inverse."""
    return {annotated_name(name): x.clone() for name, x in model.state_dict().items()}


def annotated_name(name: str) -> str:
    """Return the name of a tensor in The Annotated Transformer."""
    return TABLES.get(name) or renamed(name, ANNOTATED_NAMES)

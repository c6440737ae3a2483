"""Losses that read a batch twice and ask both passes for the same distribution of next tokens.

R-Drop (Liang et al. 2021) draws dropout anew for the second pass; SimCut (Gao et al. 2022) also
cuts some tokens out of it. In both, a batch takes twice the work, and little data goes further.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from transformer.cpu.linear import fast_linear, refuse_second_derivative
from transformer.data import UNK, Batch
from transformer.decoder import padding_mask
from transformer.fast_training import Loss
from transformer.model import Transformer
from transformer.recipes.target_vocab import OutputsOf, kept_outputs, target_loss

CHUNK = 96
"""Tokens whose two rows of logits exist at a time."""


class Weights(NamedTuple):
    """What each term of a consistency loss counts; a and b are the two passes.

    `a` and `b` weigh their label-smoothed cross-entropies, `a_to_b` the divergence KL(a ‖ b), and
    `b_to_a` KL(b ‖ a).
    """

    a: float
    b: float
    a_to_b: float
    b_to_a: float


def simcut_loss(alpha: float = 3.0, p: float = 0.05, outputs: OutputsOf = kept_outputs) -> Loss:
    """Return SimCut's loss: that of a batch, plus `alpha` · KL(the batch ‖ the batch cut).

    The cut pass reads zeros instead of the embeddings of a share `p` of the tokens, on both sides;
    <s> and </s> stay. Gradients flow through both passes. Source: Gao et al. 2022, equation 7.
    """
    return consistency_loss(Weights(1.0, 0.0, alpha, 0.0), p, outputs)


def r_drop_loss(alpha: float = 5.0, outputs: OutputsOf = kept_outputs) -> Loss:
    """Return R-Drop's loss: those of two passes, plus `alpha` · the mean of both divergences.

    Source: Liang et al. 2021, equation 4.
    """
    return consistency_loss(Weights(1.0, 1.0, alpha / 2, alpha / 2), 0.0, outputs)


def consistency_loss(weights: Weights, p: float, outputs: OutputsOf = kept_outputs) -> Loss:
    """Return a loss of two passes, in nats a token; in eval mode it is `target_loss`.

    The loss and its label smoothing are over the tokens that `outputs` keeps, by default all but
    those with a low bias.
    """

    def loss(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
        if not model.training:
            return target_loss(model, batch, smoothing)
        weight, bias, labels, pad_id = outputs(model, batch)
        real = labels != pad_id
        a, b = (rearrange(x, "b t d_model -> (b t) d_model") for x in two_passes(model, batch, p))
        return TwoPasses.apply(
            a[real],
            b[real],
            weight,
            bias,
            labels[real],
            pad_id,
            smoothing,
            weights,
        )

    return loss


def two_passes(
    model: Transformer, batch: Batch, p: float
) -> tuple[Float[Tensor, "b t d_model"], Float[Tensor, "b t d_model"]]:
    """Return the decoder's output of a batch and of the same batch with a share `p` cut."""
    src = torch.cat([batch.src, batch.src])
    tgt = torch.cat([batch.decoder_input, batch.decoder_input])
    src_mask = padding_mask(src, model.config.pad_id)
    memory = model.encoder(embed_and_cut(model, src, p), src_mask)
    states = model.decoder(embed_and_cut(model, tgt, p), memory, model.target_mask(tgt), src_mask)
    first, second = rearrange(states, "(two b) t d_model -> two b t d_model", two=2)
    return first, second


def embed_and_cut(
    model: Transformer, ids: Int[Tensor, "b t"], p: float
) -> Float[Tensor, "b t d_model"]:
    """Return what `model.embed` returns of the ids, but in their second half a share `p` is cut.

    Only the embedding is cut; the position stays.
    """
    second = ids[len(ids) // 2 :]
    kept = (torch.rand(second.shape, device=ids.device) >= p) | (second < UNK)  # <s>, </s>, padding
    kept = torch.cat([torch.ones_like(kept), kept])
    return model.dropout(model.positions(model.embedding(ids) * rearrange(kept, "b t -> b t 1")))


# --- the loss of two rows of logits, in chunks, as in chapter 15 ----------------------------------


class TwoPasses(torch.autograd.Function):
    """The mean over tokens of `loss_of_two`, whose gradients are made on the way forward.

    Under autocast products are in its precision; distributions and gradients are in float32.
    """

    @staticmethod
    def forward(
        ctx, a, b, weight, bias, labels, pad_id: int, smoothing: float, weights: Weights
    ) -> Tensor:
        kind = a.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else a.dtype
        share = torch.full_like(bias, smoothing / (len(bias) - 1))
        share[pad_id] = 0.0
        table = weight.to(dtype)
        total = torch.zeros((), device=a.device)
        grads = (torch.empty_like(a, dtype=torch.float32), torch.empty_like(b, dtype=torch.float32))
        dweight = torch.zeros_like(weight)
        dbias = torch.zeros_like(bias)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(a), CHUNK):
                part = slice(start, start + CHUNK)
                rows = [x[part].to(dtype) for x in (a, b)]
                one, two = (fast_linear(x, table, bias.to(dtype)).float() for x in rows)
                loss, dlogits = loss_of_two(one, two, labels[part], share, smoothing, weights)
                total += loss
                for grad, x, dlogit in zip(grads, rows, dlogits, strict=True):
                    grad[part] = fast_linear(dlogit.to(dtype), table.t())
                    dbias += dlogit.sum(0)
                    dweight += fast_linear(dlogit.to(dtype).t(), x.t())
        ctx.save_for_backward(*grads, dweight, dbias)
        return total / len(a)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        refuse_second_derivative("TwoPasses")
        scale = grad / len(ctx.saved_tensors[0])
        return *(scale * each for each in ctx.saved_tensors), None, None, None, None


def loss_of_two(
    a: Float[Tensor, "t vocab"],
    b: Float[Tensor, "t vocab"],
    labels: Int[Tensor, " t"],
    share: Float[Tensor, " vocab"],
    smoothing: float,
    weights: Weights,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the summed loss of two tensors of logits, and its gradients in them.

    `share` is what label smoothing gives each entry beside the label's 1 - `smoothing`.
    """
    log_a = a.log_softmax(-1)
    log_b = b.log_softmax(-1)
    p_a = log_a.exp()
    p_b = log_b.exp()
    ratio = log_a - log_b
    kl_a = (p_a * ratio).sum(-1, keepdim=True)
    kl_b = -(p_b * ratio).sum(-1, keepdim=True)
    loss = weights.a_to_b * kl_a.sum() + weights.b_to_a * kl_b.sum()
    # The gradient of KL(a ‖ b) is p_a (log p_a - log p_b - KL) in a's logits and p_b - p_a in b's.
    apart = p_a - p_b
    grad_a = weights.a_to_b * p_a * (ratio - kl_a) + weights.b_to_a * apart
    grad_b = -weights.b_to_a * p_b * (ratio + kl_b) - weights.a_to_b * apart
    for weight, log_p, p, grad in (
        (weights.a, log_a, p_a, grad_a),
        (weights.b, log_b, p_b, grad_b),
    ):
        if weight:
            ce, grad_ce = smoothed_cross_entropy(log_p, p, labels, share, smoothing)
            loss += weight * ce
            grad.add_(grad_ce, alpha=weight)
    return loss, (grad_a, grad_b)


def smoothed_cross_entropy(
    log_p: Float[Tensor, "t vocab"],
    p: Float[Tensor, "t vocab"],
    labels: Int[Tensor, " t"],
    share: Float[Tensor, " vocab"],
    smoothing: float,
) -> tuple[Tensor, Float[Tensor, "t vocab"]]:
    """Return the summed label-smoothed cross-entropy of p and its gradient in the logits."""
    rows = torch.arange(len(labels), device=labels.device)
    loss = -(1 - smoothing) * log_p[rows, labels].sum() - (log_p @ share).sum()
    grad = p - share
    grad[rows, labels] -= 1 - smoothing
    return loss, grad

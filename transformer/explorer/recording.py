"""Watch a model at work: what attention computes, and what a beam search asks of its decoder."""

import copy
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.attention import attention_weights
from transformer.inference import IncrementalDecoder, TokenDecoder
from transformer.model import Transformer
from transformer.multi_head import MultiHeadAttention


class Look(NamedTuple):
    """One call of attention: its queries, its keys and its weights."""

    q: Float[Tensor, "b h q d_head"]
    k: Float[Tensor, "b h k d_head"]
    weights: Float[Tensor, "b h q k"]


class Watcher:
    """Attention by its formula, which keeps each call in `looks`.

    `shapes` has those of the last results of other modules, by a name of ours.
    """

    def __init__(self):
        self.looks: list[Look] = []
        self.shapes: dict[str, list[int]] = {}

    def __call__(
        self,
        q: Float[Tensor, "b h q d_head"],
        k: Float[Tensor, "b h k d_head"],
        v: Float[Tensor, "b h k d_head"],
        mask: Bool[Tensor, "... #q #k"] | None = None,
    ) -> Float[Tensor, "b h q d_head"]:
        """Return what `attention` returns."""
        weights = attention_weights(q, k, mask)
        self.looks.append(Look(q, k, weights))
        return weights @ v

    def take(self) -> list[Look]:
        """Return the calls since the last time, in order."""
        looks = self.looks
        self.looks = []
        return looks

    def watch(self, module: nn.Module, name: str) -> None:
        """Keep the shape of whatever the module returns, under this name."""

        def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.shapes[name] = list(output.shape)

        module.register_forward_hook(keep)


def watched(model: Transformer) -> tuple[Transformer, Watcher]:
    """Return a copy of a model, on the CPU and in float32, and the watcher of its attention."""
    watcher = Watcher()
    model = copy.deepcopy(model).cpu().float().eval()
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.attention_fn = watcher
    watcher.watch(model.positions, "x")
    watcher.watch(model.decoder.layers[-1].get_submodule("feed_forward.w_1"), "hidden")
    return model, watcher


class Extensions(NamedTuple):
    """One step of a beam search: the rows and the tokens that it tried, best first.

    `read` has the token that each row read, and `parents` the row of the step before that each row
    continues.
    """

    parents: list[int]
    read: list[int]
    scores: list[float]
    rows: list[int]
    tokens: list[int]


class RecordingDecoder(TokenDecoder):
    """Decode one sentence with a cache, and append each step of a beam search to `record`."""

    def __init__(self, record: list[Extensions], model: Transformer, src: Int[Tensor, "1 k"]):
        self.record = record
        self.decoder = IncrementalDecoder(model, src)
        self.parents = [0]
        self.read: list[int] = []

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        self.read = ids.tolist()
        return self.decoder.step(ids)

    def reorder(self, rows: Int[Tensor, "b beam"]) -> None:
        self.parents = rows.flatten().tolist()
        self.decoder.reorder(rows)

    def best_extensions(
        self, log_probs: Float[Tensor, "r vocab"], scores: Float[Tensor, "b beam"], k: int
    ) -> tuple[Float[Tensor, "b c"], Int[Tensor, "b c"], Int[Tensor, "b c"]]:
        found = self.decoder.best_extensions(log_probs, scores, k)
        best, rows, tokens = (x.flatten().tolist() for x in found)
        self.record.append(Extensions(self.parents, self.read, best, rows, tokens))
        return found

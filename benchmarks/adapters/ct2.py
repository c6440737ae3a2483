"""CTranslate2, an engine in C++ that only decodes, with an exported model of this library."""

from collections.abc import Sequence
from typing import ClassVar

import ctranslate2
import numpy
import torch
from torch import Tensor

from benchmarks.adapters.base import Setting, System, make_lively
from benchmarks.adapters.ours import last_gain
from transformer import Transformer
from transformer.data import PAD
from transformer.engines import export_ctranslate2


class CTranslate2(System):
    """On a CPU, one-thread workers share the batches; threads within an operator are far slower."""

    name = "ctranslate2-fp32"
    works = ("greedy", "one", "beam5")
    dtypes = ("fp32",)
    compute_type = "float32"

    def __init__(self, setting: Setting):
        torch.manual_seed(0)
        self.model = Transformer(setting.size.config()).eval()
        make_lively(self.model.bias, last_gain(self.model))
        folder = setting.data.folder / f"ctranslate2-{setting.size.name}"
        if not folder.exists():
            export_ctranslate2(self.model, setting.data.tokenizer, folder)
        self.ids = setting.data.tokenizer.get_vocab()
        self.words = numpy.array(sorted(self.ids, key=self.ids.get), dtype=object)
        threads = torch.get_num_threads()
        self.translator = ctranslate2.Translator(
            str(folder),
            device=setting.device,
            compute_type=self.compute_type,
            inter_threads=threads if setting.device == "cpu" else 1,
            intra_threads=1,
        )
        torch.set_num_threads(threads)  # it changes the number of all OpenMP code in the process

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        return self.beam(batches, steps, beam_size=1)

    def beam(self, batches: Sequence[Tensor], steps: int, beam_size: int) -> list[Tensor]:
        results = self.translator.translate_batch(
            [row for src in batches for row in self.rows(src)],
            beam_size=beam_size,
            min_decoding_length=steps,
            max_decoding_length=steps,
            max_batch_size=max(map(len, batches)),
        )
        ids = torch.tensor(
            [[self.ids[word] for word in result.hypotheses[0]] for result in results]
        )
        return list(ids.split([len(src) for src in batches]))

    def rows(self, src: Tensor) -> list[list[str]]:
        """Return the tokens of each source, without padding."""
        src = src.cpu()
        lengths = (src != PAD).sum(1).tolist()
        return [row[:length] for row, length in zip(self.words[src.numpy()].tolist(), lengths)]

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.model(src.cpu(), tgt.cpu()).to(src.device)


class CTranslate2Int8(CTranslate2):
    """The same with 8-bit weights, converted when the model is loaded."""

    name = "ctranslate2-int8"
    compute_type = "int8"
    tolerance: ClassVar = {"fp32": 0.5}

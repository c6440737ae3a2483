"""Everything that is special to processors, in one room.

PyTorch on a CPU has faster operators than those of its public interface: oneDNN's product for
weights in a layout of its own, FBGEMM's product of a few rows with a float16 weight, an attention
kernel that is causal and masks padding at once. Their names begin with an underscore or live under
`torch.ops`, and a release may change or remove them. So this package is the only one that names
them, and it uses none on trust: `operators.works` runs each once, on numbers, and compares the
result with that of its public form. An operator that is missing, changed or wrong is replaced by
its public form, which is slower and gives the same results.

- `operators`: the private operators and their probes.
- `linear`: a linear layer for training, multiplied by oneDNN where that is faster.
- `packing`: a linear layer for inference, its weight stored as it is read fastest.
- `layers`: encoder and decoder layers with packed weights, for chapter 16.
- `topk`: the largest few of many numbers, by blocks.
- `tracing`: functions of tensors as TorchScript traces, which run without Python.
- `workers`: one-thread workers for work that is too small for two threads in each operator.
- `process`: settings of the whole process, for programs only.

Nothing here is used on a GPU.
"""

from transformer.cpu.operators import has_fast_bfloat16

__all__ = ["has_fast_bfloat16"]

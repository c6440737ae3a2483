"""Checks of chapter 1: the table of embeddings."""

import math

import torch

from transformer.checks.harness import (
    agree,
    call,
    check,
    expect,
    keeps_dtype,
    reaches_every_parameter,
    size,
    sizes,
)


@check("the table's rows times √d_model, unit variance, gradient, dtype")
def check_embedding(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(vocab_size, d_model) with the table `weight`.

    It turns ids b t into b t d_model.
    """
    t, d_model = sizes(5, 64)
    scale = math.sqrt(d_model)
    embedding = call(cls, 1000, d_model).to(device)
    ids = torch.randint(1000, (2, t)).to(device)
    rows = embedding.weight[ids]
    suspects = {
        "The rows come as they are: multiply them by √d_model (section 3.4).": lambda: rows,
        "The rows are divided by √d_model: multiply.": lambda: rows / scale,
        "The rows are multiplied by d_model: the factor is its square root.": lambda: (
            rows * d_model
        ),
    }
    where = f"on ids {size(ids)} with d_model {d_model}"
    agree(call(embedding, ids), rows * scale, where, suspects)
    deviation = (embedding.weight * scale).std().item()
    cause = (
        "Rows from N(0, 1) times √d_model drown the positions (rms 0.71), and Xavier's rows are "
        "drowned by them: draw the rows with standard deviation 1/√d_model"
    )
    found = f"the vectors have standard deviation {deviation:.2g}, wanted 1"
    expect(0.9 < deviation < 1.1, f"{found}. {cause}")
    keeps_dtype(call(embedding.double(), ids), torch.float64, device)
    reaches_every_parameter(embedding, call(embedding, ids))

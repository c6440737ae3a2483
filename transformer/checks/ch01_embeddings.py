"""Checks of chapter 1: the table of embeddings."""

import torch

from transformer.checks.harness import (
    agree,
    call,
    check,
    expect,
    keeps_dtype,
    reaches_every_parameter,
)


@check("the table's rows times √d_model, unit variance, gradient, dtype")
def check_embedding(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(vocab_size, d_model) with the table `weight`: ids b t to b t d."""
    embedding = call(cls, 1000, 64).to(device)
    ids = torch.randint(1000, (2, 5)).to(device)
    rows = embedding.weight[ids]
    suspects = {
        "The rows come as they are: multiply them by √d_model (section 3.4).": lambda: rows,
        "The rows are divided by √d_model: multiply.": lambda: rows / 8,
        "The rows are multiplied by d_model: the factor is its square root.": lambda: rows * 64,
    }
    agree(call(embedding, ids), rows * 8, "on ids 2×5 with d_model 64", suspects)
    deviation = (embedding.weight * 8).std().item()
    cause = (
        "Rows from N(0, 1) times √d_model drown the positions (rms 0.71), and Xavier's rows are "
        "drowned by them: draw the rows with standard deviation 1/√d_model"
    )
    found = f"the vectors have standard deviation {deviation:.2g}, wanted 1"
    expect(0.9 < deviation < 1.1, f"{found}. {cause}")
    keeps_dtype(call(embedding.double(), ids), torch.float64, device)
    reaches_every_parameter(embedding, call(embedding, ids))

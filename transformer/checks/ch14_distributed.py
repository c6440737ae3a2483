"""Checks of chapter 14: what each process takes of a batch."""

from collections.abc import Callable

import torch

from transformer.checks.harness import agree, call, check, expect
from transformer.data import Batch


@check("every row once, shares of the labels, the labels of the whole batch, spare processes")
def check_shard(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (batch, rank, world).

    It gives the process's rows as src and tgt, their share of the labels, and as n_tokens the
    labels of the whole batch.
    """
    src = torch.arange(4, 24).reshape(5, 4).to(device)
    lengths = torch.tensor([2, 6, 3, 6, 4], device=device)
    tgt = torch.where(torch.arange(7, device=device) <= lengths[:, None], 5, 0)
    tgt[:, 0] = 1
    batch = Batch(src, tgt)
    labels = int(lengths.sum())
    for world in (1, 2, 3, 5, 7):
        where = f"on a batch of 5 rows with {labels} labels, for {world} processes"
        parts = [call(fn, batch, rank, world) for rank in range(world)]
        held = [part for part in parts if part.share > 0]
        taken = sorted(row for part in held for row in part.src.tolist())
        lost = "take rank, rank + world, … so that no row is left over"
        expect(taken == src.tolist(), f"{where}: the rows are not each taken once; {lost}")
        empty = "a process without a row of its own must compute one, with share 0"
        expect(all(len(part.src) for part in parts), f"{where}: a process has no row; {empty}")
        counts = [int((part.tgt[:, 1:] != 0).sum()) for part in parts]
        own = [n * (part.share > 0) for n, part in zip(counts, parts, strict=True)]
        wanted = torch.tensor(own) / labels
        got = torch.tensor([float(part.share) for part in parts])
        suspects = {
            "Every process has the same share, so the result is a mean of means: a token of a "
            "short shard counts more. Divide its labels by those of the batch.": (
                lambda world=world: torch.full((world,), 1 / world)
            ),
            "The share counts rows, not labels.": (
                lambda parts=parts: torch.tensor([len(part.src) / 5 for part in parts])
            ),
        }
        agree(got, wanted, f"{where}: the shares", suspects)
        cause = "A trainer weighs batches by it: count the labels of the whole batch"
        whole = [part.n_tokens for part in parts]
        expect(whole == [labels] * world, f"{where}: n_tokens is {whole}. {cause}")

"""The limits of the machine, measured in the same run, and the versions of what is compared."""

import os
import platform
from importlib import metadata

import torch

from benchmarks.timing import fastest_of
from transformer.cpu import has_fast_bfloat16
from transformer.cpu.linear import fast_linear

PACKAGES = ("torch", "transformer-course", "x-transformers", "transformers", "ctranslate2")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def limits(device: str = "cpu", quick: bool = False) -> dict[str, float | int | str]:
    """Measure matrix products (GFLOP/s), bandwidth (GB/s) and the time of one call (µs).

    Products in bfloat16 are left out where the processor has no instructions for them: a single one
    would take minutes.
    """
    times = 3 if quick else 9
    found: dict[str, float | int | str] = {}
    for name, dtype in TYPES.items():
        if dtype != torch.bfloat16 or has_fast_bfloat16(device):
            found[f"matmul_{name}_gflops"] = round(matmul_gflops(dtype, device, times), 1)
    found["bandwidth_gbs"] = round(bandwidth_gbs(device, times), 1)
    found["call_us"] = round(call_us(device, times), 2)
    found |= {"device": device, "cores": os.cpu_count() or 0, "threads": torch.get_num_threads()}
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    return found


def matmul_gflops(dtype: torch.dtype, device: str, times: int) -> float:
    """Return the speed of a large matrix product, by the faster of PyTorch's two libraries."""
    n = 2_048 if device == "cpu" else 8_192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    products = (lambda: torch.mm(a, b, out=out), lambda: fast_linear(a, b))
    return 2 * n**3 / min(fastest_of(product, times, device) for product in products) / 1e9


def bandwidth_gbs(device: str, times: int) -> float:
    """Return how fast memory is read and written by a copy that is too large for any cache."""
    source = torch.randn(2**26, device=device)
    out = torch.empty_like(source)
    return 2 * source.nbytes / fastest_of(lambda: out.copy_(source), times, device) / 1e9


def call_us(device: str, times: int) -> float:
    """Return the time of one operator on a tensor of eight numbers."""
    few = torch.randn(8, device=device)
    calls = 10_000

    def run() -> None:
        for _ in range(calls):
            torch.add(few, few)

    return fastest_of(run, times, device) / calls * 1e6


def versions() -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

"""Medians of functions timed in turns, so that a busy moment of the machine meets all of them alike; peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from snrlib.utils.provenance import cpu


def medians(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each function: median over ``repeats`` rounds of one call each, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def forward_backward(method: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """One call and the gradient of the sum."""
    x = x.clone().requires_grad_()

    def call() -> None:
        x.grad = None
        method(x).sum().backward()

    return call


def peak_memory(script: str, *arguments: str) -> float:
    """MiB beyond its data that ``script`` with ``arguments`` needs in a fresh process, as it prints itself."""
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak_of(function: Callable[[], object]) -> float:
    """MiB by which one call raises this process's resident memory at its highest; NaN where there is no /proc."""

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith(field))

    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    before = status("VmRSS")
    function()
    return status("VmHWM") - before


def machine() -> str:
    """The machine in a line."""
    return f"{cpu()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, float32"

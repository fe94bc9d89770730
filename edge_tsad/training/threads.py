"""How many threads torch may use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits

__all__ = ["one_thread"]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch, and what scikit-learn clusters with, on one thread.

    The layers here are too small to share among cores: two threads gain little on a quiet machine
    and, waiting for each other, take much longer than one on a busy one. Results are then
    also equal whatever the number of cores. Many series are fitted in processes instead.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)

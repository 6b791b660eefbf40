"""Keys of random numbers: a new one for each call of each operator that draws.

Kernels turn a key and an element's place into numbers; a key is all that changes from call to
call. The n-th key of an operator with a seed is the same in every process; without one, the seed
is the process's own.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import tvm_ffi

from . import tensors

RANDOM_KEY = "burnish.random_key"
"""The packed function that gives a key for a call: ``[operator, seed] -> [2]``, both int64."""
NO_SEED = -1
_OWN = os.urandom(16)
_LOCK = threading.Lock()
_CALLS: dict[bytes, Iterator[int]] = defaultdict(itertools.count)


def random_key(source: Any) -> Any:
    """``[operator, seed] int64 -> two numbers of 32 bits, int64``, on the device of the first."""
    numbers = tensors.read(source)
    name = numbers.tobytes()
    with _LOCK:
        count = next(_CALLS[name])
    # Of two seeded operators of one seed, each draws numbers of its own.
    own = _OWN if numbers[1] == NO_SEED else b""
    digest = hashlib.blake2b(name + own + count.to_bytes(8, "little"), digest_size=8).digest()
    key = np.frombuffer(digest, "<u4").astype(np.int64)
    return tensors.filled(key, (2,), "int64", source.device)


def register() -> None:
    """Make the function known to virtual machines of this process."""
    tvm_ffi.register_global_func(RANDOM_KEY, random_key, override=True)

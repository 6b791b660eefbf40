"""Rule for attention kernels: scores, softmax and weighted sum, a block of queries at a time.

1. Keys are first packed per head into panels ``[N / NB, D, NB]``, values copied beside them, so
   that scores and weighted sum are register tiles like any packed GEMM; this costs about
   ``10 / M`` of the scores.
2. A task is one head of keys and a block of its query rows. Heads of queries that share keys are
   rows of the same head. A block's scores with up to a few hundred keys stay in the first-level
   cache: softmax runs on them in place, and the weighted sum of values reads them as the left
   side of a second register tile. Longer rows go over several blocks of keys with a running
   maximum, so that memory does not grow with the length.
3. Under a causal mask, keys that no row of a tile sees are not computed.
4. A few rows (decoding) read keys and values where they lie.

(The idea is that of FlashAttention, Dao et al. 2022; ours keeps the powers of a block in the
cache and not in registers.)

``plan`` chooses sizes, ``kernel`` has the tasks, ``pack`` lays keys and values out, and ``block``
goes over the keys with ``scores``, ``online_softmax`` and ``mix``.
"""

from burnish.targets.cpu.attention.kernel import emit

__all__ = ["emit"]

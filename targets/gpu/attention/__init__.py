"""Rule for attention on a device with work groups and no matrix units: no score leaves its group.

1. A group has one head of keys and a block of its rows (queries; those of several heads, where
   they share keys). It goes over the keys a block at a time, with a running maximum and sum of
   each row; what was summed is rescaled when the maximum grows (FlashAttention, Dao et al.,
   arXiv:2205.14135).
2. Many rows: queries and a block of keys, then of values, lie in local memory; scores and sums
   are tiles of registers.
3. Few rows (decoding): each work item takes a key of the block where it lies in memory, then a
   column of the values and a part of the block's keys; the parts are added at the end. Groups
   of a warp's size and less are not assumed to run together: there is a barrier at each step.
4. All sums are float32, whatever the operands are.
5. Blocks of keys that a causal mask hides from all rows are not read.

``block`` chooses sizes, ``kernel`` has the launch and the loop over blocks of keys; what a block
takes is in ``copies``, ``products`` and ``online_softmax``, the end in ``epilogue``, and what lies
where in ``held``.
"""

from burnish.targets.gpu.attention.block import Block, Limits, choose_block
from burnish.targets.gpu.attention.kernel import emit

__all__ = ["Block", "Limits", "choose_block", "emit"]

"""Every converter by operator, and why there is none for the others."""

from __future__ import annotations

from burnish.compiler.importers.relay.context import Converter
from burnish.compiler.importers.relay.ops import (
    dyn,
    elementwise,
    image,
    index,
    nn,
    qnn,
    reduce,
    shape,
    signal,
    vision,
)

CONVERTERS: dict[str, Converter] = {
    **elementwise.CONVERTERS,
    **reduce.CONVERTERS,
    **shape.CONVERTERS,
    **index.CONVERTERS,
    **nn.CONVERTERS,
    **image.CONVERTERS,
    **vision.CONVERTERS,
    **signal.CONVERTERS,
    **qnn.CONVERTERS,
    **dyn.CONVERTERS,
}

_VALUES = "the shape of its result depends on the values of the inputs, which is not supported"
_PACKED = "written by a pass for one target's kernels; save the module before optimization"
_RANDOM = "random numbers are not supported; pass them as an input"
_SPARSE = "sparse tensors are not supported; use dense ones"
_TRAINING = "made for training; save the inference module"

REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "argwhere",
            "sparse_fill_empty_rows",
            "sparse_reshape",
            "unique",
            "vision.all_class_non_max_suppression",
            "vision.regular_non_max_suppression",
        ),
        _VALUES,
    ),
    **dict.fromkeys(
        (
            "auto_scheduler_layout_transform",
            "call_lowered",
            "meta_schedule_layout_transform",
            "nn.contrib_conv2d_NCHWc",
            "nn.contrib_conv2d_gemm_weight_transform",
            "nn.contrib_conv2d_gemm_without_weight_transform",
            "nn.contrib_conv2d_winograd_nnpack_weight_transform",
            "nn.contrib_conv2d_winograd_weight_transform",
            "nn.contrib_conv2d_winograd_without_weight_transform",
            "nn.contrib_conv3d_winograd_weight_transform",
            "nn.contrib_conv3d_winograd_without_weight_transform",
            "nn.contrib_dense_pack",
            "nn.contrib_depthwise_conv2d_NCHWc",
            "qnn.contrib_dense_pack",
        ),
        _PACKED,
    ),
    **dict.fromkeys(
        (
            "random.multinomial",
            "random.normal",
            "random.threefry_generate",
            "random.threefry_split",
            "random.uniform",
        ),
        _RANDOM,
    ),
    **dict.fromkeys(
        (
            "dyn.sparse_to_dense",
            "nn.internal.sparse_dense_padded",
            "nn.sparse_add",
            "nn.sparse_conv2d",
            "nn.sparse_dense",
            "nn.sparse_transpose",
        ),
        _SPARSE,
    ),
    **dict.fromkeys(
        ("nn.avg_pool2d_grad", "nn.conv2d_backward_weight", "nn.max_pool2d_grad"), _TRAINING
    ),
}

"""The pipeline: ordered passes under their phases, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import tvm
from tvm import relax, tirx
from tvm.relax import transform as T

from burnish.compiler.config import CompileConfig
from burnish.compiler.libraries import TENSORRT, chooser
from burnish.compiler.placed import CUBLAS, backend_of, supports
from burnish.compiler.precision import STORED
from burnish.passes.call_library import CallLibrary
from burnish.passes.channels_last import FoldPadding, PutChannelsLast, WidenConv1d
from burnish.passes.clean import DropUnusedWeights
from burnish.passes.conv3d import FlattenConv3d
from burnish.passes.dequantize_rows import DequantizeRows
from burnish.passes.empties import AllocateEmpties
from burnish.passes.fold_batch_norm import FoldBatchNorm
from burnish.passes.fold_ranges import FoldRanges
from burnish.passes.fold_weights import FoldWeights
from burnish.passes.lower_attention import LowerAttention
from burnish.passes.lower_contractions import LowerContractions
from burnish.passes.lower_operators import LowerOperators
from burnish.passes.make_dataflow import MakeDataflow
from burnish.passes.narrow import NarrowWeights
from burnish.passes.offload import OffloadRegions
from burnish.passes.outline_branches import OutlineBranches
from burnish.passes.pack_weights import PackWeights
from burnish.passes.part_casts import PartCasts
from burnish.passes.partition_graph import PartitionGraph
from burnish.passes.place import pinned
from burnish.passes.prune import PruneWeights
from burnish.passes.quantize import QuantizeWeights
from burnish.passes.region_modules import LowerRegions
from burnish.passes.schedule_kernels import ScheduleKernels
from burnish.passes.short_names import ShortenNames
from burnish.passes.sink_transposes import SinkTransposes
from burnish.passes.slice_splits import SliceSplits
from burnish.passes.store_constants import StoreConstants
from burnish.passes.widen_contractions import WidenContractions
from burnish.passes.widen_norms import WidenNorms
from burnish.targets.choose import Target
from burnish.targets.fused_attention import fuses
from burnish.targets.hetero import HeteroTarget, Place
from burnish.targets.opencl.target import OpenclTarget
from burnish.targets.target import CpuTarget

Pass: TypeAlias = tvm.ir.transform.Pass


@dataclass(frozen=True)
class Phase:
    """Named passes that belong together; the user's own run at the end."""

    name: str
    passes: tuple[Pass, ...]


def graph_phases(target: Target, config: CompileConfig) -> tuple[Phase, ...]:
    """Graph in, fused kernels out, not yet scheduled."""
    return tuple(
        Phase(name, (*passes, *config.extra_passes(name)))
        for name, passes in (
            ("import", ()),
            ("clean", _clean()),
            ("prune", (PruneWeights(config.prune),) if config.prune else ()),
            ("quantize", (QuantizeWeights(config.quantize),) if config.quantize else ()),
            ("precision", narrowing(target, config.precision)),
            ("partition", _partition(target, config)),
            ("lower", _lower(target, config)),
            ("fuse", _fuse(target)),
        )
    )


def _clean() -> tuple[Pass, ...]:
    return (
        WidenNorms(),
        FoldBatchNorm(),
        FoldWeights(),
        FoldRanges(),
        T.FoldConstant(),
        T.CanonicalizeBindings(),
        T.EliminateCommonSubexpr(),
        T.DeadCodeElimination(),
        DropUnusedWeights(),
    )


def narrowing(target: Target, precision: str) -> tuple[Pass, ...]:
    """Weights as CPUs store them; of a model over CPUs and others, in the CPUs' regions alone."""
    stored = STORED[precision]
    if isinstance(target, HeteroTarget):
        own = all(isinstance(one.target, CpuTarget) and not one.backend for one in target.places)
        return narrowing(target.host, precision) if own else ()
    if stored is None or not isinstance(target, CpuTarget):
        return ()
    return (NarrowWeights(stored, target.lanes),)


def _partition(target: Target, config: CompileConfig) -> tuple[Pass, ...]:
    if isinstance(target, HeteroTarget):
        return (PartitionGraph(target, supports(target), pinned(config.placement)),)
    if TENSORRT not in config.libraries:
        return ()
    # ONNX, in which regions are written, is an extra.
    from burnish.compiler.external.tensorrt import CallTensorrt, build_here

    return (SliceSplits(), CallTensorrt(build_here), DropUnusedWeights())


def _lower(target: Target, config: CompileConfig) -> tuple[Pass, ...]:
    if isinstance(target, HeteroTarget):
        # A graph that is judged before the phase "partition" is cut here.
        steps = {one.name: _lower_region(one, config) for one in target.places}
        return (*_partition(target, config), LowerRegions(target, steps))
    if isinstance(target, CpuTarget):
        own = _contractions_cpu(target, config)
    else:
        own = _contractions_gpu(target, config)
    return (
        T.DecomposeOpsForInference(),
        *((WidenContractions(),) if isinstance(target, CpuTarget) else ()),
        WidenConv1d(),
        FlattenConv3d(),
        FoldPadding(),
        FoldWeights(),
        PutChannelsLast(transposed=isinstance(target, CpuTarget)),
        SinkTransposes(),
        FoldWeights(),
        T.CanonicalizeBindings(),
        MakeDataflow(),
        *own,
        relax.backend.DispatchSampling(),
        relax.backend.DispatchSortScan(),
        DequantizeRows(),
        SliceSplits(),
        *((PartCasts(),) if isinstance(target, CpuTarget) else ()),
        T.LegalizeOps(),
        FoldWeights(),
        DropUnusedWeights(),
        OutlineBranches(),
    )


def _lower_region(place: Place, config: CompileConfig) -> tuple[Pass, ...]:
    if place.backend == CUBLAS:
        return _lower(place.target, config.overridden(libraries=CUBLAS))
    if place.backend:
        offload = OffloadRegions(backend_of(place, config), whole=True)
        return (offload, DropUnusedWeights(), *_lower(place.target, config))
    return (*narrowing(place.target, config.precision), *_lower(place.target, config))


def _contractions_cpu(target: CpuTarget, config: CompileConfig) -> tuple[Pass, ...]:
    return (
        PackWeights(target, config.exact_conv, dots=config.precision == "bf16"),
        LowerAttention(),
        LowerOperators(),
    )


def _contractions_gpu(target: Target, config: CompileConfig) -> tuple[Pass, ...]:
    calls = (CallLibrary(chooser(config.libraries)),) if config.libraries else ()
    # TVM's own running sums count on threads of a warp that wait for each other; OpenCL has none.
    operators = (LowerOperators(scans=isinstance(target, OpenclTarget)),)
    return (*calls, LowerContractions(fuses(target)), *operators)


def _fuse(target: Target) -> tuple[Pass, ...]:
    if isinstance(target, HeteroTarget):
        steps = {one.name: (*_fuse(one.target), StoreConstants()) for one in target.places}
        return (LowerRegions(target, steps),)
    names = (ShortenNames(),) if isinstance(target, OpenclTarget) else ()
    return (
        T.AnnotateTIROpPattern(),
        T.FoldConstant(),
        T.FuseOps(),
        T.FuseTIR(),
        T.DeadCodeElimination(),
        *names,
    )


def build_passes(
    schedule: Callable[[tirx.PrimFunc], tirx.PrimFunc], graphs: bool = False
) -> tuple[Pass, ...]:
    """Fused kernels in, virtual-machine code out; ``schedule`` lays out each kernel.

    With ``graphs``, kernels whose memory is the model's own become CUDA graphs.
    """
    return (
        T.RewriteDataflowReshape(),
        T.ToNonDataflow(),
        AllocateEmpties(),
        T.RemovePurityChecking(),
        T.CallTIRRewrite(),
        ScheduleKernels(schedule),
        T.StaticPlanBlockMemory(),
        *((T.RewriteCUDAGraph(),) if graphs else ()),
        T.LowerAllocTensor(),
        T.KillAfterLastUse(),
        T.LowerRuntimeBuiltin(),
        T.ComputePrimValue(),
        T.VMShapeLower(),
        T.AttachGlobalSymbol(),
    )

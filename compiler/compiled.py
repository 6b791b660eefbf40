"""A compiled model: call it, save it, look into it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler import environment
from burnish.compiler.config import CompileConfig
from burnish.compiler.device_errors import Devices, Watched
from burnish.compiler.errors import TargetError
from burnish.compiler.libraries import TENSORRT
from burnish.compiler.on_cores import OnCores
from burnish.compiler.on_device import OnDevice, OnDevices
from burnish.compiler.on_one_set import OnOneSet
from burnish.compiler.profile.kernel import Kernel
from burnish.compiler.remote import calls
from burnish.compiler.remote.calls import Told
from burnish.compiler.replay import Replay, private, record
from burnish.compiler.signature import Signature
from burnish.compiler.stages import Source
from burnish.compiler.tensors import InputSlot, address, give, given_array
from burnish.compiler.waterfall import Report
from burnish.passes.backends import BUILT_IN
from burnish.runtime import libraries, random_keys, threads
from burnish.targets.choose import Target
from burnish.targets.cpu import pool
from burnish.targets.hetero import REMOTE, HeteroTarget
from burnish.targets.target import CpuTarget


class Compiled:
    """A model built for one target.

    Call it like the model it was made from: torch tensors in, torch tensors out; NumPy arrays in,
    NumPy arrays out; the same nesting. Calls from several threads take turns. The first call of a
    model whose shapes are all known is recorded (:mod:`burnish.compiler.replay`).

    ``report`` tells what each pass did, ``signature`` what it takes and returns, ``params`` maps
    weight names to arrays as stored, ``path`` is the artifact it was loaded from or saved to,
    ``kernels`` says by name what each kernel does, for a profile; ``memories`` has for each weight
    the number of the memory it is put in, on a target of several devices; ``one_set`` is the set
    of cores that has the whole model, on a target of such sets, if one has.
    """

    def __init__(
        self,
        library: Path,
        params: Mapping[str, tvm.runtime.Tensor],
        signature: Signature,
        target: Target,
        config: CompileConfig,
        report: Report,
        source: Source,
        ir: str,
        *,
        recipe: str | None = None,
        kernels: Mapping[str, Kernel] | None = None,
        memories: Sequence[int] = (),
        one_set: str = "",
    ) -> None:
        self.library = library
        self.params = dict(params)
        self.signature = signature
        self.target = target
        self.config = config
        self.report = report
        self.source = source
        self.recipe = recipe if recipe is not None else config.to_toml(drop_unnamed=True)
        self.path: Path | None = None
        self.keep_alive: object = None
        self.kernels = dict(kernels or {})
        self.memories = tuple(memories)
        self.one_set = one_set
        self._ir = ir
        self._main: Any = self._elsewhere
        self._use_threads: Callable[[int], object] = lambda _: None
        self._set: OnOneSet | None = None
        self._replay: Replay | None = None
        self._to_record = False
        self._new_machine: Callable[[], Any] = lambda: None
        if not target.why_not_here():
            environment.set_threads()
            self._loaded = tvm.runtime.load_module(str(library))
            random_keys.register()
            if isinstance(target, CpuTarget):
                self._use_threads = threads.adopt(self._loaded)
                self._main = relax.VirtualMachine(self._loaded, tvm.cpu())["main"]
                self._to_record = pool.AVAILABLE and signature.static
            elif isinstance(target, HeteroTarget) and target.concurrent and not one_set:
                self._use_threads = threads.adopt(self._loaded)
                cores = {one.name: one.cores for one in target.places}
                self._main = OnCores(self._loaded, list(self.params.values()), cores)
            elif isinstance(target, HeteroTarget):
                self._use_threads = threads.adopt(self._loaded)
                if one_set:
                    place = target.place(one_set)
                    self._set = OnOneSet(self._loaded, place, settled=signature.static)
                    self._use_threads = self._set.enter
                offered = (*BUILT_IN, REMOTE)
                _offer([one.backend for one in target.places if one.backend in offered])
                on = OnDevices(
                    self._loaded,
                    list(self.params.values()),
                    [one.device() for one in target.memories],
                    self.memories,
                )
                self._main = Told(on) if target.remote else self._watched(on)
                # A model whose operators all went to the host is as any of one CPU.
                here = not any(self.memories) and not target.remote
                self._to_record = pool.AVAILABLE and signature.static and here
                self._new_machine = on.machine
            else:
                _offer(config.libraries)
                self._main = self._watched(
                    OnDevice(self._loaded, list(self.params.values()), tvm.device(target.kind))
                )
        self._weights = tvm_ffi.convert(list(self.params.values()))
        self._addresses = {address(value) for value in self.params.values()}
        self._slots = [InputSlot() for _ in signature.inputs]
        self._plain = [node for _, node in signature.arguments] == list(range(len(self._slots)))
        self._seen: dict[tuple[Any, ...], bool] = {}
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Raises :class:`~burnish.compiler.errors.InvalidInputError` for a wrong number, dtype or
        shape of inputs, :class:`~burnish.compiler.device_errors.DeviceError` where a device that
        is not the host fails, :class:`~burnish.compiler.on_cores.RegionError` where a region on
        cores of its own does, or takes too long.
        """
        plain = self._plain and not kwargs and len(args) == len(self._slots)
        leaves: Sequence[Any] = args if plain else self.signature.flatten(args, kwargs)
        try:
            key = tuple([(leaf.shape, leaf.dtype) for leaf in leaves])
        except AttributeError:
            leaves = [leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for leaf in leaves]
            key = tuple([(leaf.shape, leaf.dtype) for leaf in leaves])
        as_torch = self._seen.get(key)
        if as_torch is None:
            self.signature.check(leaves)
            as_torch = any(isinstance(leaf, torch.Tensor) for leaf in leaves)
            self._seen[key] = as_torch
        with self._lock:
            try:
                self._use_threads(self.target.threads)
                tensors = [slot.take(leaf) for slot, leaf in zip(self._slots, leaves, strict=True)]
                if self._replay is not None:
                    given: list[Any] = self._replay(tensors)
                    if not as_torch:
                        given = [given_array(value) for value in given]
                else:
                    given = self._run(tensors, as_torch=as_torch)
            finally:
                if self._set is not None:
                    self._set.leave()
        return self.signature.unflatten(given)

    def _run(self, tensors: Sequence[Any], *, as_torch: bool) -> list[Any]:
        """Outputs by way of the virtual machine; the first call is recorded where it can be."""
        if self._to_record:
            self._to_record = False
            copies = [private(value) for value in tensors]
            self._replay, outputs = record(self._loaded, copies, self._weights, self._new_machine())
        else:
            result = self._main(*tensors, self._weights)
            outputs = list(result) if isinstance(result, tvm_ffi.Array) else [result]
        kept = self._addresses.union(slot.address for slot in self._slots)
        return [give(value, kept, as_torch=as_torch) for value in outputs]

    def _elsewhere(self, *_: Any) -> Any:
        raise TargetError(
            f"this model was compiled for {self.target.name!r} and cannot run here: "
            f"{self.target.why_not_here()}; save it, and load it there",
            stage="run",
        )

    def _watched(self, main: Devices) -> Watched:
        """``main`` whose failures say on which device and in which region they are."""
        rows = (row.details.get("regions", ()) for row in self.report.rows)
        regions = {str(one["name"]): str(one["device"]) for row in rows for one in row}
        return Watched(main, regions, list(self.kernels), self._ir)

    @property
    def params_bytes(self) -> int:
        """Bytes of all weights as stored."""
        return sum(
            int(np.prod(t.shape, dtype=np.int64)) * tvm.DataType(str(t.dtype)).itemsize
            for t in self.params.values()
        )

    def show(self) -> str:
        """The kernels and the graph that calls them, as text."""
        return self._ir

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the artifact to one file; see :mod:`burnish.compiler.artifact`."""
        from burnish.compiler import artifact

        self.path = artifact.save(self, Path(path))
        return self.path

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.signature.inputs))
        return f"Compiled({inputs}; target={self.target.name}, {self.params_bytes} parameter bytes)"


def _offer(names: Sequence[str]) -> None:
    """Make libraries that a model calls findable, and functions of this process known to TVM."""
    if REMOTE in names:
        calls.register()
    if set(names) - {REMOTE}:
        libraries.offer_libraries()
    if TENSORRT in names:
        from burnish.compiler.external import tensorrt

        tensorrt.register()

"""A loaded artifact that is called with NumPy arrays."""

from __future__ import annotations

import os
import threading
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import native
from .cores import host_threads
from .cuda import device_capability, why_no_gpu
from .errors import ArtifactError, InvalidInputError
from .libraries import TENSORRT, check_libraries, offer_libraries
from .manifest import Manifest
from .reading import Artifact, check_machine, read_artifact, unpacked
from .signature import Signature


def load(path: str | os.PathLike[str], sha256: str | None = None) -> Model:
    """The model in an artifact, checked, for this machine.

    ``sha256`` is what the file's own must be, in hexadecimal, as its maker gave it. Raises
    :class:`ArtifactError` for a missing, damaged or foreign file. It runs the library that is
    inside: load only what you trust.
    """
    artifact = read_artifact(path, sha256=sha256)
    check_machine(artifact)
    _open(artifact)
    recipe = _recipe(artifact)
    asked = recipe.get("threads")
    target = artifact.manifest.target
    own = target["name"] == "cpu" and asked is None
    return Model(artifact, unpacked(artifact), host_threads() if own else int(target["threads"]))


def _open(artifact: Artifact) -> None:
    """Load what the model's device takes; :class:`ArtifactError` where that is not here."""
    kind, needs = artifact.manifest.target["kind"], artifact.manifest.libraries
    if kind == "cpu":
        native.open_runtime()
    elif kind == "cuda":
        if TENSORRT in needs:
            raise ArtifactError(
                f"{artifact.path} has engines of TensorRT {needs[TENSORRT]['version']}, which are "
                "run by its Python package and burnish: pip install burnish, and burnish.load"
            )
        why = why_no_gpu(artifact.manifest.target.get("arches"))
        if why:
            raise ArtifactError(f"{artifact.path} cannot run here: {why}")
        if needs:
            offer_libraries()
            check_libraries(artifact.path, needs, device_capability)
        native.open_cuda()
    elif kind == "opencl":
        from .opencl import open_opencl

        try:
            open_opencl()
        except ArtifactError as error:
            raise ArtifactError(f"{artifact.path} cannot run here: {error.message}") from error
    else:
        raise ArtifactError(
            f"{artifact.path} is for {kind!r:.80}, and this runs models for cpu, cuda and opencl"
        )


class Model:
    """A model ready to run: NumPy arrays in, NumPy arrays out, nested as in the source model.

    Arrays of other packages are taken through DLPack. Calls from several threads take turns.
    ``signature`` says what it takes and returns; ``manifest`` is all that the artifact says of
    itself.
    """

    def __init__(self, artifact: Artifact, library: Path, threads: int) -> None:
        import tvm_ffi

        from . import random_keys, tensors
        from .inputs import InputSlot
        from .replay import record
        from .threads import AVAILABLE, adopt

        self.path = artifact.path
        self.manifest: Manifest = artifact.manifest
        self.signature: Signature = artifact.manifest.signature
        weights = [
            tensors.filled(weight.data, weight.shape, weight.dtype)
            for weight in artifact.weights().values()
        ]
        try:
            self._library = tvm_ffi.load_module(str(library))
            self._run: Any
            if self.manifest.target["kind"] == "cpu":
                from .machine import machine_of

                self._threads = threads
                self._use_threads = adopt(self._library)
                random_keys.register()
                self._run = machine_of(self._library)["main"]
            else:
                from .on_device import OnDevice

                self._threads, self._use_threads = 1, _nothing
                self._run = OnDevice(self._library, weights, self.manifest.target["kind"])
        except (RuntimeError, AttributeError, OSError) as error:
            raise ArtifactError(
                f"the library of {artifact.path} cannot be opened: {error}"
            ) from error
        self._record: Any = None
        if self.manifest.target["kind"] == "cpu" and AVAILABLE and self.signature.static:
            self._record = record
        self._replay: Any = None
        self._weights = tvm_ffi.convert(weights)
        self._kept = {tensors.address(weight) for weight in weights}
        self._slots = [InputSlot(spec.dtype) for spec in self.signature.inputs]
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Raises :class:`InvalidInputError` for a wrong number, dtype or shape of inputs.
        """
        leaves = [_array(leaf) for leaf in self.signature.flatten(args, kwargs)]
        self.signature.check(leaves)
        with self._lock:
            self._use_threads(self._threads)
            given = self._outputs(leaves)
        return self.signature.unflatten(given)

    def use_threads(self, threads: int) -> None:
        """Run on so many threads from now on."""
        if threads < 1:
            raise ValueError(f"a model runs on 1 thread or more, not {threads}")
        self._threads = threads

    def fill(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Run on tensors in the order of the signature, into memory of the caller's.

        ``outputs`` are contiguous arrays of the outputs' shapes and dtypes; results are written
        there without a copy where that memory is aligned to ``tensors.ALIGNMENT`` bytes and the
        call is a recorded one. Raises :class:`InvalidInputError` as a call does, and for outputs
        of another number or size.
        """
        from . import tensors
        from .inputs import shareable

        self.signature.check(inputs)
        if len(outputs) != len(self.signature.outputs):
            raise InvalidInputError(
                f"got memory for {len(outputs)} outputs; the model has "
                f"{len(self.signature.outputs)}"
            )
        with self._lock:
            self._use_threads(self._threads)
            if self._replay is None:
                found = self._outputs(inputs)
                for array, given in zip(outputs, found, strict=True):
                    if array.shape != given.shape or array.dtype != given.dtype:
                        raise InvalidInputError(
                            f"got memory for {array.dtype}{list(array.shape)}; the model gives "
                            f"{given.dtype}{list(given.shape)}"
                        )
                    np.copyto(array, given)
                return
            pairs = [slot.bytes_of(leaf) for slot, leaf in zip(self._slots, inputs, strict=True)]
            forms = [(shape, tensors.numpy_dtype(kind)) for shape, kind in self._replay.outputs]
            if any((a.shape, a.dtype) != form for a, form in zip(outputs, forms, strict=True)):
                raise InvalidInputError(
                    f"got memory for {[(a.shape, str(a.dtype)) for a in outputs]}; the model "
                    f"gives {[(shape, str(dtype)) for shape, dtype in forms]}"
                )
            places = [a if shareable(a) else tensors.aligned(a.shape, a.dtype) for a in outputs]
            self._replay(pairs, [tensors.bytes_of(place) for place in places])
            for array, place in zip(outputs, places, strict=True):
                if place is not array:
                    np.copyto(array, place)

    def _outputs(self, leaves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs by way of the virtual machine; the first call is recorded where it can be."""
        from . import tensors

        if self._replay is not None:
            pairs = [slot.bytes_of(leaf) for slot, leaf in zip(self._slots, leaves, strict=True)]
            found = [
                tensors.aligned(shape, tensors.numpy_dtype(dtype))
                for shape, dtype in self._replay.outputs
            ]
            self._replay(pairs, [tensors.bytes_of(value) for value in found])
            return found
        inputs = [slot.take(leaf) for slot, leaf in zip(self._slots, leaves, strict=True)]
        if self._record is not None:
            self._replay, outputs = self._record(
                self._library, [tensors.copied(leaf) for leaf in leaves], self._weights
            )
            self._record = None
        else:
            result = self._run(*inputs, self._weights)
            outputs = [result] if tensors.is_tensor(result) else list(result)
        kept = self._kept.union(slot.address for slot in self._slots)
        kept.update(leaf.ctypes.data for leaf in leaves)
        return [
            array.copy() if array.ctypes.data in kept else array
            for array in map(tensors.read, outputs)
        ]

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.signature.inputs))
        return f"Model({inputs}; target={self.manifest.target['name']})"


def _array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__") and hasattr(value, "shape"):
        return np.from_dlpack(value)
    return np.asarray(value)


def _recipe(artifact: Artifact) -> dict[str, Any]:
    try:
        return tomllib.loads(artifact.recipe)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{artifact.path} is damaged: its recipe is no TOML") from error


def _nothing(_threads: int) -> None:
    """A device's host code has no loops to share."""

"""Modules: their bytes are TVM's, damaged ones are refused, and names that are not there."""

from __future__ import annotations

import contextlib
import random

import pytest
import tvm
import tvm_ffi
from tvm import te

from burnish.targets.cuda.payload import Reader
from burnish.targets.opencl import payload
from opencl_support import kernel, load, require_device

TARGET = {"kind": "opencl", "max_threads_per_block": 64}


def _built() -> tvm.runtime.Module:
    source = te.placeholder((64,), "float32", name="x")
    result = te.compute((64,), lambda index: source[index] + 1.0, name="y")
    func = te.create_prim_func([source, result]).with_attr("global_symbol", "add_one")
    schedule = tvm.s_tir.Schedule(func)
    block, thread = schedule.split(schedule.get_loops(schedule.get_sblock("y"))[0], [None, 8])
    schedule.bind(block, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    target = tvm.target.Target(TARGET, host="llvm")
    return tvm.tirx.build(schedule.mod, target=target, pipeline="s_tir")


def _packed(host: tvm.runtime.Module) -> bytes:
    tensor = tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(host)
    return tensor.numpy().tobytes()


def _content(packed: bytes) -> bytes:
    """Of the library's OpenCL module."""
    kind = len(b"opencl").to_bytes(8, "little") + b"opencl"
    return Reader(packed, packed.index(kind) + len(kind)).text()


def test_bytes_are_those_of_tvm_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    require_device()
    ours = _built()
    monkeypatch.setenv("TVM_COMPILE_FORCE_FALLBACK", "1")
    theirs = _built()
    assert ours.imports[0].is_runnable()
    assert not theirs.imports[0].is_runnable()
    assert ours.imports[0].kind == theirs.imports[0].kind == "opencl"
    assert ours.imports[0].inspect_source() == theirs.imports[0].inspect_source()
    assert _packed(ours) == _packed(theirs)
    again = payload.load(_content(_packed(ours)))
    assert again.inspect_source() == ours.imports[0].inspect_source()
    ours.clear_imports()
    ours.import_module(again)
    assert _packed(ours) == _packed(theirs)


def test_a_function_that_is_not_there() -> None:
    module = load(kernel("", name="one"))
    assert module.implements_function("one")
    assert not module.implements_function("two")
    with pytest.raises(AttributeError, match="two"):
        module.get_function("two")


def test_kernels_need_their_source_and_source_only() -> None:
    require_device()
    whole = payload.write([kernel("", name="one")])
    with pytest.raises(ValueError, match="has no source of its kernel 'one'"):
        payload.load(whole.replace(b"// Function: one", b"// Function: two"))
    with pytest.raises(ValueError, match=r"format 'spv'; only source \('cl'\) can be run"):
        payload.load(payload.write([kernel("", name="one")], form="spv"))


def test_damaged_bytes_are_refused_or_harmless() -> None:
    require_device()
    whole = payload.write(
        [kernel("", ("handle", "__global float* x"), ("int32", "int n"), name=n) for n in "ab"]
    )
    for size in range(len(whole)):
        with pytest.raises(ValueError, match="OpenCL module"):
            payload.load(whole[:size])
    with pytest.raises(ValueError, match=r"damaged: at byte \d+ of \d+"):
        payload.load(whole + b"!")
    rng = random.Random(0)
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        with contextlib.suppress(ValueError, TypeError):
            payload.load(bytes(damaged))

"""TVM's serialized modules, against TVM itself."""

from __future__ import annotations

import struct

import pytest
import tvm
import tvm_ffi
from tvm import te

from burnish.targets.cuda import payload
from burnish.targets.cuda.schedule import schedule
from burnish.targets.cuda.target import parse_cuda


@pytest.fixture(scope="module")
def library() -> bytes:
    """A library with one CUDA module, as TVM packs it."""
    target = parse_cuda("cuda:sm_80")
    a = te.placeholder((130,), "float32", name="a")
    b = te.compute(a.shape, lambda i: a[i] + 1, name="b")
    func = te.create_prim_func([a, b]).with_attr("global_symbol", "plus")
    with target.tvm():
        mod = tvm.IRModule({"plus": schedule(func, target)})
        built = tvm.tirx.build(mod, target=target.tvm(), pipeline="s_tir")
    packed = tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(built)
    return packed.numpy().tobytes()


def test_what_is_read_is_written_byte_for_byte(library):
    seen = []

    def same(module):
        seen.append(module)
        return module

    assert payload.replaced(library, same) == library
    (module,) = seen
    assert module.form == "cuda"
    assert b"plus_kernel" in module.table
    assert b"__global__" in module.code


def test_machine_code_takes_the_place_of_the_source(library):
    new = payload.replaced(library, lambda module: module.compiled("fatbin", b"\x7fELF"))
    found = []
    payload.replaced(new, lambda module: found.append(module) or module)
    assert (found[0].form, found[0].code) == ("fatbin", b"\x7fELF")
    assert b"__global__" not in new
    assert struct.unpack_from("<Q", new)[0] == len(new) - 8


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_library_that_ends_early_is_refused(library, cut):
    with pytest.raises(ValueError, match="another length"):
        payload.replaced(library[:-cut], lambda module: module)


def test_a_string_longer_than_the_data_is_refused():
    with pytest.raises(ValueError, match="ends early"):
        payload.Reader(struct.pack("<Q", 9) + b"abc").text()

"""Compiling CUDA C++, and what the compiled code says of itself."""

from __future__ import annotations

import pytest
from cuda_support import require_compiler

from burnish.targets.cuda import fatbin, nvrtc
from burnish.targets.cuda.resources import resources

SOURCE = """
extern "C" __global__ void scale(float* x, float a) {
  __shared__ float part[64];
  part[threadIdx.x] = x[threadIdx.x] / a;
  __syncthreads();
  x[threadIdx.x] = part[63 - threadIdx.x];
}
extern "C" __global__ void lookup(float* x, const int* at) {
  float kept[256];
  for (int i = 0; i < 256; ++i) kept[(i * at[1]) & 255] = x[i];
  x[0] = kept[at[0] & 255];
}
"""


@pytest.fixture(scope="module", params=["sm_75", "sm_90"])
def code(request) -> nvrtc.Code:
    require_compiler()
    return nvrtc.compile_source(SOURCE, request.param, "pair")


def test_each_kernel_says_what_it_takes(code):
    found = {one.name: one for one in resources(code.cubin)}
    assert set(found) == {"scale", "lookup"}
    assert 0 < found["scale"].registers < 64
    assert found["scale"].local == 0
    assert found["scale"].shared == (1280 if code.arch == "sm_90" else 256)
    assert found["lookup"].local >= 1024
    assert found["scale"].code > 0


def test_arithmetic_is_exact(code):
    assert b"div.rn.f32" in code.ptx
    assert b".ftz" not in code.ptx


def test_machine_code_and_ptx_are_packed_together(code):
    image = fatbin.pack([code], "pair")
    assert image[:4] == b"\x50\xed\x55\xba"
    assert code.cubin[:64] in image


def test_a_kernel_that_does_not_compile_brings_its_log():
    require_compiler()
    with pytest.raises(nvrtc.KernelError, match=r"(?s)bad does not compile for sm_80:.*nothing"):
        nvrtc.compile_source("__global__ void f() { nothing(); }", "sm_80", "bad")


def test_what_is_no_cubin_is_refused():
    with pytest.raises(ValueError, match="no cubin"):
        resources(b"\x7fELF\x01" + bytes(100))

"""Compiling CUDA C++, and what the compiled code says of itself."""

from __future__ import annotations

import pytest

from burnish.targets.cuda import fatbin, nvrtc, sass
from burnish.targets.cuda.resources import resources
from cuda_support import require_compiler

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


def test_machine_code_is_found_in_an_image_and_in_a_file_around_it(code):
    image = fatbin.pack([code], "pair")
    assert fatbin.machine_codes(image) == {code.arch: code.cubin}
    assert fatbin.machine_codes(b"before" + image + b"after") == {code.arch: code.cubin}
    with pytest.raises(ValueError, match="no image"):
        fatbin.machine_codes(b"nothing")


def test_code_for_one_architecture_alone_keeps_its_name():
    require_compiler()
    code = nvrtc.compile_source("__global__ void f() {}", "sm_90a")
    assert fatbin.machine_codes(fatbin.pack([code], "f")) == {"sm_90a": code.cubin}


def test_machine_code_is_read_as_instructions_and_loops(code):
    kernels = sass.kernels(code.cubin)
    assert set(kernels) == {"scale", "lookup"}
    assert kernels["scale"].count(*sass.SPILLS) == 0
    assert kernels["scale"].count("BAR") == 1
    assert kernels["lookup"].count(*sass.SPILLS) > 0
    assert kernels["scale"].main_loops("BAR") == []


def test_loops_lie_between_a_branch_back_and_where_it_goes():
    text = """.text.twice:
        /*0000*/                   MOV R1, R2 ;
.L_x_0:
        /*0010*/                   S2R R6, SR_TID.X ;
.L_x_1:
        /*0020*/                   HMMA.16816.F32 R4, R8, R2, R4 ;
        /*0030*/              @!P0 BRA `(.L_x_1) ;
        /*0040*/                   STL [R1], R4 ;
        /*0050*/               @P1 BRA `(.L_x_0) ;
        /*0060*/                   @P2 BRA `(.L_x_2) ;
.L_x_2:
        /*0070*/                   EXIT ;
"""
    (kernel,) = sass.parse(text)
    assert (kernel.name, kernel.count("HMMA"), kernel.count(*sass.SPILLS)) == ("twice", 1, 1)
    assert [len(loop) for loop in kernel.loops()] == [2, 5]
    assert [[one.opcode for one in loop] for loop in kernel.main_loops("HMMA")] == [["HMMA", "BRA"]]


def test_what_is_no_machine_code_is_not_disassembled():
    require_compiler()
    with pytest.raises(RuntimeError, match="does not read the machine code"):
        sass.kernels(b"nothing")


def test_a_kernel_that_does_not_compile_brings_its_log():
    require_compiler()
    with pytest.raises(nvrtc.KernelError, match=r"(?s)bad does not compile for sm_80:.*nothing"):
        nvrtc.compile_source("__global__ void f() { nothing(); }", "sm_80", "bad")


def test_what_is_no_cubin_is_refused():
    with pytest.raises(ValueError, match="no cubin"):
        resources(b"\x7fELF\x01" + bytes(100))

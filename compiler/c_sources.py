"""C that a backend wrote for a region, compiled for the host and made callable by TVM's machine."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm import relax

from burnish.passes.offload import SOURCES
from burnish.targets.native import ffi_includes

HEAD = "#include <dlpack/dlpack.h>\n#line 1 {file}\n"
CALL = """
#include <tvm/ffi/c_api.h>

__attribute__((visibility("default"))) int __tvm_ffi_{symbol}(
    void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {{
  DLTensor* tensors[{most}];
  int32_t i;
  (void)self;
  if (count > {most}) {{
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", "{symbol} is given more than {most} tensors");
    return -1;
  }}
  for (i = 0; i < count; ++i) {{
    if (args[i].type_index == kTVMFFIDLTensorPtr) {{
      tensors[i] = (DLTensor*)args[i].v_ptr;
    }} else if (args[i].type_index == kTVMFFITensor) {{
      tensors[i] = (DLTensor*)((char*)args[i].v_obj + sizeof(TVMFFIObject));
    }} else {{
      TVMFFIErrorSetRaisedFromCStr("TypeError", "{symbol} takes tensors alone");
      return -1;
    }}
  }}
  if ({symbol}(tensors, count)) {{
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", "{symbol} failed");
    return -1;
  }}
  result->type_index = kTVMFFINone;
  return 0;
}}
"""
MOST = 256
"""Tensors of a call."""


def sources_of(mod: tvm.IRModule) -> dict[str, str]:
    """The sources that functions of a module carry, by symbol."""
    found: dict[str, str] = {}
    for func in mod.functions.values():
        if isinstance(func, relax.Function) and func.attrs and SOURCES in func.attrs:
            found.update({str(key): str(text) for key, text in func.attrs[SOURCES].items()})
    return found


def compile_sources(sources: Mapping[str, str], compiler: str, folder: Path) -> list[str]:
    """An object file of each source. ``RuntimeError`` with what the compiler said of one."""
    return [_compiled(symbol, text, compiler, folder) for symbol, text in sources.items()]


def _compiled(symbol: str, text: str, compiler: str, folder: Path) -> str:
    source, path = folder / f"{symbol}.c", folder / f"{symbol}.o"
    head = HEAD.format(file=f'"{symbol}.c"')
    source.write_text(head + text + CALL.format(symbol=symbol, most=MOST))
    options = ["-x", "c", "-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
    command = [compiler, *options, *ffi_includes(), "-c", str(source), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    source.unlink()
    if done.returncode != 0:
        raise RuntimeError(
            f"{compiler} does not compile the source of {symbol}:\n{done.stderr.strip()}"
        )
    return str(path)

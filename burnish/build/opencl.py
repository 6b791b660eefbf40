"""``python -m burnish.build.opencl``: build a model for OpenCL devices; none is needed."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.build.script import script

Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Fit the limits of adreno, mali, intel, amd or nvidia; by default of any device.",
    ),
]


def target(device: Device = None) -> str:
    """Build a model for OpenCL devices, and save it as one file.

    The kernels are kept as OpenCL C, and compiled by the device's driver where they are loaded.

    Examples:

    * `python -m burnish.build.opencl net.onnx -o net.burnish`

    * `python -m burnish.build.opencl net.onnx -o phone.burnish --device adreno`

    * `python -m burnish.build.opencl net.onnx --emit cl --emit-to code`
    """
    return f"opencl:{device}" if device else "opencl"


main = script("opencl", target)

if __name__ == "__main__":
    main()

"""``python -m burnish.build.cuda``: build a model for NVIDIA GPUs; no GPU is needed."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.build.script import script

Arch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="sm_NN,...",
        help="Architectures to hold machine code for: sm_75, sm_80, sm_86, sm_89, sm_90, sm_100, "
        "sm_120; or sm_90a alone, for Hopper only. Can be repeated. By default sm_80 and sm_90.",
    ),
]


def target(arch: Arch = None) -> str:
    """Build a model for NVIDIA GPUs, and save it as one file.

    Every kernel is compiled for every architecture; one that does not compile fails the build
    with the compiler's log. Kernels fit the oldest architecture, and PTX of the newest runs on
    later ones.

    Examples:

    * `python -m burnish.build.cuda net.onnx -o net.burnish --arch sm_80,sm_90`

    * `python -m burnish.build.cuda net.onnx --arch sm_90 --emit ptx --kernel '*matmul*'`
    """
    return f"cuda:{','.join(arch)}" if arch else "cuda"


main = script("cuda", target)

if __name__ == "__main__":
    main()

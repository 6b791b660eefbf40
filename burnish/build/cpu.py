"""``python -m burnish.build.cpu``: build a model for a CPU, this machine's or another."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.build.script import script

Mcpu = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="LLVM's name of the CPU: x86-64-v3, cortex-a76; by default this machine's, or any of "
        "the architecture where --mtriple names one.",
    ),
]
Mtriple = Annotated[
    str | None,
    typer.Option(metavar="TRIPLE", help="Another architecture: aarch64-linux-gnu."),
]
Mattr = Annotated[
    str | None,
    typer.Option(
        metavar="+A,-B",
        help="Features to add or take away, by LLVM's names; write --mattr=-avx512f.",
    ),
]


def target(mcpu: Mcpu = None, mtriple: Mtriple = None, mattr: Mattr = None) -> str:
    """Build a model for a CPU, and save it as one file.

    Code for another architecture is linked by its cross compiler, TRIPLE-g++; an error says which
    one is missing. Passes that are judged by running need the machine itself: say --keep-all.

    Examples:

    * `python -m burnish.build.cpu net.onnx -o net.burnish --recipe recipe.toml`

    * `python -m burnish.build.cpu net.onnx -o arm.burnish --mtriple aarch64-linux-gnu --mcpu
    cortex-a76`

    * `python -m burnish.build.cpu net.onnx --emit asm --kernel '*conv*' --emit-to code`
    """
    options = {"mcpu": mcpu, "mtriple": mtriple, "mattr": mattr}
    said = [f"-{name}={value}" for name, value in options.items() if value]
    return " ".join(["llvm", *said]) if said else "cpu"


main = script("cpu", target)

if __name__ == "__main__":
    main()

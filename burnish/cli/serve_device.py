"""``burnish serve-device``: let models on other machines use this one's devices."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.cli import console
from burnish.cli.options import Verbose


def add_to(app: typer.Typer) -> None:
    app.command("serve-device")(serve_device)


def serve_device(
    host: Annotated[
        str, typer.Option(help="The address to listen at; by default this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 9090,
    verbose: Verbose = False,
) -> None:
    """Serve this machine's devices to models that run elsewhere, until it is ended (Ctrl-C).

    There, `--target hetero:cpu,rpc://HOST:PORT/cpu` (or `/opencl:0`) uses them. **Whoever can
    connect can run any code here, as the user who started this**, and nothing is encrypted. So it
    listens at 127.0.0.1, and another machine comes by SSH: `ssh -L 9090:127.0.0.1:9090 HERE`.
    Give `--host` only in a network all of which you trust.

    Examples:

    * `burnish serve-device`

    * `burnish serve-device --host 10.0.0.2 --port 9091`
    """
    from burnish.compiler.remote.serve import serve
    from burnish.targets.remote.address import Address

    def ready(address: Address) -> None:
        said = f"serving rpc://{address}/cpu; whoever can connect can run code here"
        console.results().print(said, markup=False, soft_wrap=True)

    serve(host, port, ready=ready)

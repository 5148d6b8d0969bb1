"""The command `nst ui`: serves the page on which pictures are painted in a browser."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.interruption import importing
from nst_lightning.runs import Run, held
from nst_lightning.terminal import say
from nst_lightning.ui.jobs import Queue

HELP = """usage: nst ui [options]

Serves a page on which photographs are painted in a browser: choose or drop pictures, watch, stop and go on, look at all
runs, and drop a picture to get its settings back. Runs wait for one another. Needs pip install 'nst-lightning[ui]'.

  --folder FOLDER          where runs and uploads lie; nothing else is written to [data/output-images/ui]
  --host ADDRESS           where it listens; 0.0.0.0 lets everyone in who reaches this machine [127.0.0.1]
  --port NUMBER            [7860, or the next that is free]
  --max_upload MIB         the largest picture that may be handed in [32]
  --open                   whether a browser is opened [false]
"""
_PORTS = range(7860, 7960)


def main(arguments: Sequence[str]) -> None:
    """Serves the page until it is interrupted, and then lets what is painted be saved."""
    parser = Parser("ui")
    parser.add_argument("--folder", type=Path, default=Path("data/output-images/ui"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--max_upload", type=float, default=32.0)
    parser.switch("--open")
    given = parser.parse_args(arguments)
    if find_spec("gradio") is None:
        raise InputError("the page needs gradio: pip install 'nst-lightning[ui]'")
    if not 0 < given.max_upload <= 2**20:
        raise InputError(f"max_upload must be above 0 MiB, got {given.max_upload:g}")
    port = _port(given.host, given.port)
    folder: Path = given.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").open("a").close()
    except OSError as error:
        reason = f"cannot create files there ({error.strerror})"
        raise InputError(f"{folder}: {reason}; choose a writable folder") from error
    temporary = folder.resolve() / "temporary"
    temporary.mkdir(exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = str(temporary)  # read as gradio is imported
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with held(Run(folder)), Queue(folder / "runs") as queue:
        with importing():
            from nst_lightning.ui.server import LOOPBACK, served

        with served(queue, folder, given.host, port, int(given.max_upload * 2**20), given.open) as address:
            say(f"nst ui: {address} shows the page, {folder} has the pictures; Ctrl-C ends it")
            if given.host not in LOOPBACK:
                say("nst ui: whoever reaches this address may paint, and see, stop and repeat every run: no password")
            while True:
                time.sleep(3600)


def _port(host: str, wished: int | None) -> int:
    """Returns a port that can be listened at: the wished one, or the first that is free."""
    if wished is not None and not 1 <= wished <= 65_535:
        raise InputError(f"port must be 1 to 65535, got {wished}")
    for port in _PORTS if wished is None else (wished,):
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(f"{host}:{port}: cannot be listened at ({error.strerror or error})") from error
        else:
            return port
    tried = f"ports {_PORTS[0]} to {_PORTS[-1]} are" if wished is None else f"port {wished} is"
    raise InputError(f"{tried} taken by another program; name a free one with --port")

"""What a step of `nst fit` asks of a GPU, by options, on one that counts instead of computing.

    ON python -m tests.benchmarks.pretended [--only NAME ...] [--names]

ON starts a program on stand-ins for CUDA's runtime, driver, cuBLAS, cuDNN, cuFFT and NCCL, which are no part of this
project. Prints a row of a table for each set of options:
what a steady step launches (kernels, and copies and fills within the GPU), for what it waits (synchronisations, and
copies to the host), and the most bytes that were allocated; or the error. Values and times mean nothing there. The exit
code is the number of errors.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import sys
import tempfile
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from nst_lightning.__main__ import main as nst
from nst_lightning.losses import CONTENT_LOSSES, STYLE_LOSSES, TV_LOSSES

STEADY = 12  # the step that is counted, of 14: ten pairs are remembered; not the last, whose picture is looked at
BF16 = ("--precision", "bf16-mixed")
COUNTED: dict[str, tuple[int, int]] = {}


class Counter(Callback):
    """Counts what a steady step asks for: from the end of the one before to its own."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        """Begins to count."""
        if trainer.global_step == STEADY:
            ctypes.CDLL(None).fake_reset()

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Ends it; this is the first callback that is asked, the others have not looked at anything yet."""
        if trainer.global_step == STEADY + 1:
            with tempfile.NamedTemporaryFile() as file:
                ctypes.CDLL(None).fake_dump(file.name.encode())
                lines = [line.split("\t") for line in Path(file.name).read_text().splitlines()]
            counts = {what: int(number) for number, what in lines}
            launched = {"KERNELS", "MEMSET", "COPY D2D", "GRAPH LAUNCHES"}
            waits = [number for what, number in counts.items() if what.startswith(("SYNC", "COPY D2H"))]
            COUNTED["step"] = sum(counts.get(what, 0) for what in launched), sum(waits)


def rows() -> dict[str, tuple[str, ...]]:
    """Returns the options of `nst fit`, by the row's name."""
    adam = ("--optimizer", "adam")
    graph = ("--model.graph", "true")
    several = ("--content", "temple", "coffee", "chelsea", "--style", "church_at_auvers", "--upscale", "true")
    return {
        "32-true": (),
        "bf16-mixed": BF16,
        "bf16-mixed, 100 pairs": (*BF16, "--optimizer", "lbfgs", "--model.optimizer.history_size", "100"),
        "64-true": ("--precision", "64-true"),
        "16-mixed, adam": ("--precision", "16-mixed", *adam),
        "adam, averaged": (*BF16, *adam, "--model.optimizer.average", "0.9"),
        "pyramid": (*BF16, "--optimizer", "pyramid"),
        "torch's L-BFGS": (*BF16, "--optimizer", "torch.optim.LBFGS", "--model.optimizer.max_iter", "1"),
        "tiles of 32": (*BF16, "--tile", "32"),
        "tiles auto": (*BF16, "--tile", "auto"),
        "batch auto": (*BF16, "--batch_size", "auto", *several),
        "batch of 3": (*BF16, "--batch_size", "3", *several),
        "vgg19, l2, replicate": (*BF16, "--backbone", "vgg19", "--pooling", "l2", "--border", "replicate"),
        **{f"style {loss}": (*BF16, "--style_loss", loss) for loss in STYLE_LOSSES},
        **{f"content {loss}": (*BF16, "--style_loss", "gram", "--content_loss", loss) for loss in CONTENT_LOSSES},
        **{f"tv {loss}": (*BF16, "--style_loss", "gram", "--tv_loss", loss, "--tv_weight", "1") for loss in TV_LOSSES},
        "gram, 10 pairs": (*BF16, "--style_loss", "gram"),
        "gram, adam": (*BF16, "--style_loss", "gram", *adam),
        "two styles": (
            *BF16,
            "--content",
            "temple",
            "--style",
            "church_at_auvers",
            "night_cafe",
            "--style_weights",
            "0.7",
            "0.3",
        ),
        "regions": (*BF16, "--content_mask", "temple", "--regions", "red", "--keep_outside", "true"),
        "luminance": (*BF16, "--colors", "luminance"),
        "pictures, curves, scores": (*BF16, "--save_every", "2", "--scores", "auto"),
        "film": (*BF16, "--video", "webp"),
        "compiled": (*BF16, "--compile", "true", "--style_loss", "gram"),
        **{f"graph, style {loss}": (*BF16, "--style_loss", loss, *graph) for loss in STYLE_LOSSES},
        "graph": (*BF16, *graph),
        "graph, 100 pairs": (*BF16, *graph, "--optimizer", "lbfgs", "--model.optimizer.history_size", "100"),
        "graph, batch auto": (*BF16, *graph, "--batch_size", "auto", *several),
        "graph, tiles of 32": (*BF16, *graph, "--tile", "32"),
        "graph, regions": (*BF16, *graph, "--content_mask", "temple", "--regions", "red", "--keep_outside", "true"),
        "graph, two stages, film": (*BF16, *graph, "--stages", "2", "--video", "webp", "--save_every", "2"),
        "graph, compiled": (*BF16, *graph, "--compile", "true"),
    }


def run(name: str, words: tuple[str, ...], folder: Path) -> str:
    """Runs the options; returns an error's line, empty where there is none."""
    pictures = ("--content", "temple", "--style", "church_at_auvers")
    given = (
        *(() if "--style" in words else pictures),
        "--size",
        "64",
        "--steps",
        str(STEADY + 2),
        "--stages",
        "1",
        "--scores",
        "off",
        *words,
    )
    on = ("--trainer.accelerator", "gpu", "--trainer.callbacks", "tests.benchmarks.pretended.Counter")
    where = ("--output", str(folder / name.replace(" ", "_").replace("'", "")), "--overwrite", "true")
    said = io.StringIO()
    COUNTED.clear()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = nst(["fit", *given, *on, *where])
    return said.getvalue().replace("\r", "\n").strip().rpartition("\n")[2] if code else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(rows()), metavar="NAME", help="these rows alone")
    parser.add_argument("--names", action="store_true", help="print the rows' names and do nothing")
    options = parser.parse_args()
    if options.names:
        print(*rows(), sep="\n")
        return
    failed = 0
    # There is no stand-in for cuSOLVER: of its results only the shapes are true, and they are one launch each.
    torch.linalg.eigh = lambda matrix: (matrix.diagonal(dim1=-2, dim2=-1).clone(), matrix.clone())
    torch.linalg.svd = lambda matrix: (matrix.clone(), matrix.diagonal(dim1=-2, dim2=-1).clone(), matrix.clone())
    torch.linalg.cholesky = torch.clone
    sys.modules.setdefault("tests.benchmarks.pretended", sys.modules["__main__"])  # one Counter, whatever it is called
    torch.cuda.init()  # type: ignore[no-untyped-call]
    print("| options | launches a step | waits | MiB at most |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            error = run(name, rows()[name], Path(folder))
            failed += error != ""
            launches, waits = COUNTED.get("step", (0, 0))
            found = f"{launches} | {waits} | {torch.cuda.max_memory_allocated() / 2**20:.0f}"
            print(f"| {name} | {found if error == '' else error[:200] + ' | |'} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

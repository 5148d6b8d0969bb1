"""Whether this project is right and fast on a CUDA GPU.

    python -m tests.benchmarks.gpu [--out FOLDER] [--only SECTION ...] [--device cuda] [--size 512 1024] [--limit 240]

Prints a line a check, PASS or FAIL with its limit; `gpu.json` in the folder has the same and more. The exit code is the
number of failures. Nothing is downloaded; what is missing on the machine is said first. The sections run in a process
that another one watches: an error of any kind costs its check, a hanging check or one that leaves the GPU unusable
costs the process, and the next goes on behind it. After the limit in seconds nothing more begins. `compiled`, minutes
of torch.compile, runs only where it is named. With `--device cpu --size 64` all of it is tried out on small images.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from nst_lightning import images, memory, optim
from nst_lightning.callbacks import ImageWriter
from nst_lightning.data import PairDataModule, Worker
from nst_lightning.interruption import UNFINISHED
from nst_lightning.losses import CONTENT_LOSSES, STYLE_LOSSES, TV_LOSSES
from nst_lightning.modules import StyleTransfer
from nst_lightning.precision import true_float32
from nst_lightning.tiling import ALONE
from tests.benchmarks.evaluation import targets_of
from tests.benchmarks.machine import machine
from tests.benchmarks.trainer import fit

NEEDED = ("jsonargparse", "av", "lpips", "scipy", "tensorboard", "matplotlib", "pandas", "safetensors", "torchvision")
PATIENCE = 75.0  # seconds that one check may take, and ten times as many of a compiled one
UNUSABLE = 77  # the exit code of a process whose GPU answers no more
CONTENT, STYLE = Path("data/content-images/temple.jpg"), Path("data/style-images/church_at_auvers.jpg")
BF16 = ("--precision", "bf16-mixed")
LAYERS: tuple[tuple[int, int, int], ...] = (
    *((3, 64, 0), (64, 64, 0), (64, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 2), (256, 256, 2)),
    *((256, 512, 3), (512, 512, 3), (512, 512, 3), (512, 512, 4)),
)
"""VGG16's convolutions to relu5_1: channels in and out, and how often the image was halved."""

Step = Callable[[], object]


class Checks:
    """What was checked, in a file that outlives the process: a line a check begun, and one with what came of it."""

    def __init__(self, log: Path, device: torch.device) -> None:
        self._log, self.device = log, device
        self._known = {entry["begun"] for entry in entries(log) if "begun" in entry}

    def note(self, **entry: object) -> None:
        """Writes a line to the file."""
        with self._log.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def check(self, name: str, value: float, limit: float, at_most: bool = True, **more: object) -> None:
        """Compares a value with its limit."""
        good = math.isfinite(value) and (value <= limit if at_most else value >= limit)
        self.note(check=name, value=value, limit=limit, at_most=at_most, passed=good, **more)
        sign = "<=" if at_most else ">="
        print(f"{'PASS' if good else 'FAIL'}  {name:72} {value:10.4g} (limit {sign} {limit:g})", flush=True)

    def attempt(self, name: str, work: Callable[[], bool | None]) -> None:
        """Does work that makes checks of its own or returns whether it went well; does none twice."""
        if name in self._known:
            return
        self._known.add(name)
        self.note(begun=name)
        try:
            found = work()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            told(error)
            self.check(name, 0, 1, at_most=False, error=f"{type(error).__name__}: {error}"[:500])
        else:
            if found is not None:
                self.check(name, float(found), 1, at_most=False)
        if not answers(self.device):
            print("      the GPU answers no more: a new process goes on", flush=True)
            os._exit(UNUSABLE)

    def tell(self, name: str, **values: object) -> None:
        """Prints and keeps numbers that have no limit."""
        self.note(told=name, **values)
        shown = ", ".join(
            f"{key} {each:.4g}" if isinstance(each, float) else f"{key} {each}" for key, each in values.items()
        )
        print(f"      {name}: {shown}", flush=True)


def entries(log: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file of checks."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def told(error: BaseException) -> None:
    """Prints an error's type and text, and where in the package, or else where at all, it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "nst_lightning" in Path(frame.filename).parts] or frames
    where = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
    print(f"      {type(error).__name__}{where}: {' '.join(str(error).split())[:300]}", flush=True)


def answers(device: torch.device) -> bool:
    """Whether a GPU still works after an error; gives back what the check's tensors took."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def seconds(work: Step, device: torch.device, budget: float = 0.5) -> float:
    """Returns the median time of a call, from as many as fit the budget in seconds, 3 to 30."""
    times: list[float] = []
    while len(times) < 5 or (len(times) < 32 and sum(times) < budget):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


@cache
def picture(file: Path, size: int) -> Tensor:
    """Returns a picture as a square, (1, 3, size, size)."""
    return images.resize(images.read(str(file)).rgb, (size, size)).clamp(0, 1)


def noise(size: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def worker_of(device: torch.device, precision: str) -> Worker:
    """Returns what a Trainer of one process would compute on."""
    bf16 = precision == "bf16-mixed"
    context = partial(torch.autocast, device.type, torch.bfloat16, enabled=bf16)
    return Worker(device, precision, context, ALONE, False, 1, lambda found: found)


Problem = tuple[nn.Parameter, Callable[[], Tensor]]


def problem(
    size: int,
    device: torch.device,
    precision: str = "32-true",
    tile: int | None = None,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Problem:
    """Returns an image and what finds its loss and gradient, as a step does."""
    module = StyleTransfer(**options).to(device, dtype)
    sizing, context = module.sizing, worker_of(device, precision).context
    objective = module.problem.weighed
    evaluator = sizing.whole(compiled) if tile is None else sizing.tiled(tile)
    image = nn.Parameter(noise(size).to(device, dtype))
    with torch.no_grad(), context():
        targets = targets_of(
            objective, evaluator, *(picture(file, size).to(device, dtype) for file in (CONTENT, STYLE))
        )
        groups = {group: image.new_full((1,), module.problem.weights[group]) for group in objective.groups}
        weights = objective.weights(targets, groups)

    def evaluate() -> Tensor:
        image.grad = None
        with context():
            total = objective.total(evaluator.values(image, targets, 0), weights)
        torch.autograd.backward(total.sum())
        return total.detach()

    return image, evaluate


def begun(
    optimizer: optim.LBFGS, image: nn.Parameter, evaluate: Callable[[], Tensor], graph: bool
) -> Callable[[], object]:
    """Takes a first step, and returns what takes the next ones, each by itself or as one graph."""
    take = partial(optimizer.step, evaluate)
    take()
    return optim.StepGraph(take, optimizer.state[image]).replay if graph else take


class Bench:
    """The sections. Each is a method without arguments that makes its checks."""

    def __init__(self, checks: Checks, options: argparse.Namespace) -> None:
        self.checks, self.device, self.out = checks, checks.device, Path(options.out)
        self.cuda = self.device.type == "cuda"
        self.sizes: list[int] = options.size
        self.small = min(128, *self.sizes)
        self.steps = 30 if self.cuda else 3

    # ---- ceilings ----

    def ceilings(self) -> None:
        """What the card can do at most: memory copied, and products of bf16 matrices."""
        side, room = (8192, 2**30) if self.cuda else (512, 2**24)

        def measure() -> None:
            source = torch.empty(room, dtype=torch.uint8, device=self.device).random_()
            target = torch.empty_like(source)
            copied = 2 * room / seconds(lambda: target.copy_(source), self.device)
            matrix = torch.randn(side, side, device=self.device, dtype=torch.bfloat16)
            rate = 2 * side**3 / seconds(lambda: matrix @ matrix, self.device)
            whole = matrix.float()
            exactly = 2 * side**3 / seconds(lambda: whole @ whole, self.device)
            self.checks.tell("ceilings", copy=copied, bf16=rate, float32=exactly, unit="bytes/s and FLOP/s")
            self.checks.check("copy, TB/s", copied / 1e12, 2.0 if self.cuda else 0.0, at_most=False)
            self.checks.check("bf16 product, TFLOP/s", rate / 1e12, 500 if self.cuda else 0.0, at_most=False)

        self.checks.attempt("ceilings", measure)

    @property
    def ceiling(self) -> float:
        """FLOP a second of bf16 products, as measured, else as on paper."""
        told = [entry for entry in entries(self.out / "gpu.log") if entry.get("told") == "ceilings"]
        return float(told[-1]["bf16"]) if told else 790e12

    # ---- numbers ----

    def gradient(self, device: torch.device, **given: Any) -> tuple[float, Tensor]:
        image, evaluate = problem(self.small, device, **given)
        loss = evaluate()
        assert image.grad is not None
        return loss.double().item(), image.grad.double().cpu()

    def numbers(self, compiled: bool = False) -> None:
        """Gradients against float64 on the CPU, and where 60 steps end."""
        cpu, tile = torch.device("cpu"), max(16, self.small // 2)
        cached = cache(lambda loss: self.gradient(cpu, dtype=torch.float64, style_loss=loss))

        def off(name: str, limit: float, loss: str = "gram", **given: Any) -> None:
            def work() -> None:
                with true_float32(self.device):
                    _, found = self.gradient(self.device, style_loss=loss, compiled=compiled, **given)
                _, true = cached(loss)
                self.checks.check(f"gradient, {name}", ((found - true).norm() / true.norm()).item(), limit)

            self.checks.attempt(f"gradient, {name}", work)

        suffix = ", compiled" if compiled else ""
        off(f"float32{suffix}", 1e-4)
        off(f"bf16-mixed{suffix}", 1e-1, precision="bf16-mixed")
        if compiled:
            return
        off("float32, tiles", 1e-4, tile=tile)
        off("bf16-mixed, tiles", 1e-1, precision="bf16-mixed", tile=tile)
        for loss in STYLE_LOSSES:
            if loss != "gram":  # of nearest neighbours a near tie may turn
                off(f"float32, {loss}", 5e-2, loss=loss)
        self.checks.attempt("60 steps", self.sixty_steps)
        if self.cuda:
            self.checks.attempt("graph", self.graph)

    def graph(self) -> None:
        """How far the pictures are apart that steps by themselves and the same as one graph make."""
        found = []
        for recorded in (False, True):
            image, evaluate = problem(self.small, self.device)
            optimizer = optim.LBFGS([image])
            with true_float32(self.device):
                take = begun(optimizer, image, evaluate, recorded)
                for _ in range(20):
                    take()
            found.append(image.detach())
        self.checks.check(
            "20 steps as one graph, float32, off from eager ones", float((found[0] - found[1]).abs().max()), 0.01
        )

    def sixty_steps(self) -> None:
        def last(device: torch.device, precision: str) -> float:
            image, evaluate = problem(self.small, device, precision)
            optimizer = optim.LBFGS([image])
            with true_float32(device):
                return [optimizer.step(evaluate) for _ in range(60)][-1].double().mean().item()

        reference = last(torch.device("cpu"), "32-true")
        for precision in ("32-true", "bf16-mixed"):
            ratio = last(self.device, precision) / reference
            self.checks.check(f"loss after 60 steps, {precision}, off from the CPU's", abs(ratio - 1), 0.05)

    # ---- features ----

    def nst(self, *words: str, expect: int = 0) -> bool:
        """Runs a command line in this process; tells its last words where it ends otherwise than expected."""
        from nst_lightning.__main__ import main

        said, torch_words = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(torch_words):
                code = main(list(words))
        finally:
            torch.use_deterministic_algorithms(False)
        if code != expect:
            print("      " + " ".join(said.getvalue().replace("\r", "\n").splitlines()[-2:])[:300], flush=True)
        return code == expect

    def fit(self, name: str, *words: str, command: str = "fit", pictures: bool = True, expect: int = 0) -> bool:
        given = ["--content", "temple", "--style", "church_at_auvers"] if pictures else []
        if command == "fit":
            given += ["--output", str(self.out / name), "--overwrite", "true"]
        size, on = str(self.small), "gpu" if self.cuda else "cpu"
        return self.nst(command, *given, "--size", size, "--trainer.accelerator", on, *words, expect=expect)

    def features(self) -> None:
        """Every option of `nst fit` that touches the device, and the other commands."""
        if importlib.util.find_spec("jsonargparse") is None:
            self.checks.check("nst fit, for want of jsonargparse not run", 0, 1, at_most=False)
            return
        short = ("--steps", "12" if self.cuda else "4", "--scores", "off")
        tile, graph = str(max(16, self.small // 2)), ("--graph", str(self.cuda).lower())
        rows: dict[str, tuple[str, ...]] = {
            "everything": ("--steps", "24", *BF16, "--representations", "relu4_1", "--save_every", "6"),
            "film": (*short, *BF16, "--video", "webp" if importlib.util.find_spec("av") is None else "true"),
            "defects": (*short[:2], *BF16, "--scores", "outline,palette,texture,leak,defects", "--score_every", "2"),
            "float32": short,
            "float64": (*short, "--precision", "64-true"),
            "100 pairs": (*short, *BF16, "--optimizer", "lbfgs", "--model.optimizer.history_size", "100"),
            "16-mixed Adam": (*short, *(("--precision", "16-mixed") if self.cuda else ()), "--optimizer", "adam"),
            "Adam, averaged": (*short, *BF16, "--optimizer", "adam", "--model.optimizer.average", "0.9"),
            "pyramid": (*short, *BF16, "--optimizer", "pyramid"),
            "torch's L-BFGS": (*short, *BF16, "--optimizer", "torch.optim.LBFGS", "--model.optimizer.max_iter", "1"),
            "tiles": (*short, *BF16, "--tile", tile),
            "tiles auto": (*short, *BF16, "--tile", "auto"),
            "batch auto": (*short, *BF16, "--batch_size", "auto"),
            "vgg19, l2, replicate": (*short, *BF16, "--backbone", "vgg19", "--pooling", "l2", "--border", "replicate"),
            "from noise": (*short, *BF16, "--init", "gaussian"),
            "absolute": (*short, *BF16, "--convention", "absolute", "--content_weight", "1", "--style_weight", "100"),
            **{f"style {loss}": (*short, *BF16, "--style_loss", loss) for loss in STYLE_LOSSES},
            **{
                f"style {loss}, pyramid": (*short, "--style_loss", loss, "--optimizer", "pyramid")
                for loss in ("nearest", "strotss", "sliced")
            },
            **{f"style {loss}, tiles": (*short, *BF16, "--style_loss", loss, "--tile", tile) for loss in STYLE_LOSSES},
            **{f"content {loss}": (*short, *BF16, "--content_loss", loss) for loss in CONTENT_LOSSES},
            **{f"tv {loss}": (*short, *BF16, "--tv_loss", loss, "--tv_weight", "1") for loss in TV_LOSSES},
            **{f"graph, {loss}": (*short, *BF16, *graph, "--style_loss", loss) for loss in STYLE_LOSSES},
            "graph, tiles": (*short, *BF16, *graph, "--tile", tile),
            "graph, batch auto": (*short, *BF16, *graph, "--batch_size", "auto"),
            "two styles": (*short, *BF16, "--style_loss", "{gram: 1, nearest: 0.5}"),
        }
        for name, words in rows.items():
            self.checks.attempt(f"fit, {name}", partial(self.fit, name.replace(" ", "_"), *words))
        plan = partial(self.fit, "plan", "--steps", "20", "--tile", "auto", *BF16, command="plan")
        self.checks.attempt("plan, tiles auto", plan)
        on = ("--size", str(self.small), "--steps", "4", "--trainer.accelerator", "gpu" if self.cuda else "cpu")
        again = ("--image", "temple", "--layers", "relu2_1", "--output", str(self.out / "again"), "--overwrite", "true")
        self.checks.attempt("reconstruct", partial(self.nst, "reconstruct", *again, *on))
        self.checks.attempt("broken off, validated, resumed", self.broken_off)
        self.checks.attempt("one seed, one file, --trainer.deterministic true", partial(self.twice, short, True))
        self.checks.attempt("one seed, one file", partial(self.twice, short, False))

    def broken_off(self) -> bool:
        checkpoint = self.out / "off/checkpoints/temple_church_at_auvers.ckpt"
        words = ("--steps", "24", "--scores", "off")
        on = ("--trainer.accelerator", "gpu" if self.cuda else "cpu")
        return (
            self.fit("off", *words, "--trainer.max_steps", "17", expect=UNFINISHED)
            and self.nst("validate", "--ckpt_path", str(checkpoint), "--scores", "outline,defects", *on)
            and self.fit("on", *words, "--ckpt_path", str(checkpoint))
            and self.nst("fit", "--resume", str(self.out / "off"), "--trainer.max_steps", "-1")
            and all((self.out / run / "temple_church_at_auvers.png").exists() for run in ("on", "off"))
        )

    def twice(self, words: Sequence[str], deterministic: bool) -> bool:
        more = ("--trainer.deterministic", "true") if deterministic else ()
        names = [f"{'exact' if deterministic else 'plain'}{number}" for number in (1, 2)]
        assert all(self.fit(name, *words, *BF16, *more) for name in names)
        first, second = ((self.out / name / "temple_church_at_auvers.png").read_bytes() for name in names)
        return first == second

    # ---- memory ----

    def memory(self) -> None:
        """What is planned with against what is taken, and a batch that does not fit."""
        size = max(256, *self.sizes)  # below, what does not grow with pixels is most of it
        for precision in ("32-true", "bf16-mixed"):
            for loss in ("gram", "wasserstein", "nearest", "strotss", "cmd", "matched", "gram,matched,nearest"):
                name = f"{size} px, {precision}, {loss}"
                self.checks.attempt(f"planned, {name}", partial(self.planned, name, size, precision, loss))
        if importlib.util.find_spec("jsonargparse") is not None:
            self.checks.attempt("a batch of 8 that does not fit is evaluated in parts", self.recovers)

    def planned(self, name: str, size: int, precision: str, loss: str) -> None:
        worker, module = worker_of(self.device, precision), StyleTransfer(style_loss=loss)
        if self.cuda:
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()
        with true_float32(self.device):
            found = module.sizing.bytes_of_step(worker, size**2)
            image = torch.rand(1, 3, size, size, device=self.device)

            def steps() -> None:
                trial = module.sizing.trial(worker, module.sizing.whole(), image)
                taken = module.sizing.optimised(image, trial)
                for _ in range(3):
                    next(taken)

            real = memory.peak_bytes(steps, self.device)
        self.checks.check(f"planned / taken, {name}", found / real, 1.5, planned=found, real=real)
        self.checks.check(f"the same, at least, {name}", found / real, 0.9, at_most=False)

    def recovers(self) -> bool:
        """Whether 8 images are painted where 4 fit."""
        side, folder = 256 if self.cuda else 32, self.out / "squares"
        for number in range(8):
            images.write(folder / f"{number}.png", picture(CONTENT, side)[0].roll(number, 2), overwrite=True)
        if self.cuda:
            needed = StyleTransfer().sizing.footprint(worker_of(self.device, "32-true"))
            room = 8 * needed.state.at(side**2) + 6 * needed.evaluation.at(side**2)
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + room) / total)
        output = self.out / "parts"
        words = ["--content", str(folder), "--style", "church_at_auvers", "--size", str(side), "--batch_size", "8"]
        words += ["--steps", "3", "--stages", "1", "--scores", "off", "--output", str(output), "--overwrite", "true"]
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                done = self.nst("fit", *words, "--trainer.accelerator", "gpu" if self.cuda else "cpu")
        finally:
            if self.cuda:
                torch.cuda.set_per_process_memory_fraction(1.0)
        if self.cuda and not any("at a time from here" in str(each.message) for each in warned):
            print("      it was never out of memory: nothing is shown", flush=True)
            return False
        return done and len(list(output.glob("*.png"))) == 8

    # ---- waits ----

    def waits(self) -> None:
        """How often the host waits for the GPU in a step through Trainer."""
        makers: dict[str, Any] = {
            "L-BFGS": optim.LBFGS,
            "Adam": partial(optim.Adam, average=0.9, clamp=True),
            "pyramid": optim.Pyramid,
        }
        cases: dict[str, dict[str, Any]] = {f"{loss}, L-BFGS": {"style_loss": loss} for loss in STYLE_LOSSES}
        cases |= {f"gram, {name}": {"optimizer": make} for name, make in makers.items() if name != "L-BFGS"}
        cases |= {
            f"{loss}, Adam": {"style_loss": loss, "optimizer": optim.Adam} for loss in ("nearest", "strotss", "sliced")
        }
        cases |= {"self_similarity, L-BFGS": {"content_loss": "self_similarity"}, "tiles": {"tile": self.small // 2}}
        for name, options in cases.items():
            self.checks.attempt(f"waits in a step, {name}", partial(self.waiting, name, options))

    def waiting(self, name: str, options: Mapping[str, Any]) -> None:
        noted = _Waits(self.device)
        data = self.data(self.small, 12)
        fit(StyleTransfer(**options), data, noted, device=self.device, precision="bf16-mixed")
        places = [f"{place} x {number}" for place, number in Counter(noted.places).most_common()]
        if places:
            print(f"      waits: {', '.join(places)}"[:600], flush=True)
        self.checks.check(f"waits in a step, {name}", len(noted.places), 0, places=places)

    def data(self, size: int, steps: int) -> PairDataModule:
        pair = picture(CONTENT, size)[0], picture(STYLE, size)[0]
        return PairDataModule(*pair, size=size, steps=steps, stages=1)  # type: ignore[arg-type] # see api.stylize

    # ---- speed ----

    def speed(self, compiled: bool = False) -> None:
        """What a step takes, of what it could, by itself and as one graph."""
        for size in self.sizes:
            for pairs, precision in ((10, "bf16-mixed"), (100, "bf16-mixed"), (10, "32-true")):
                for graph in (True, False) if self.cuda else (False,):
                    words = [word for word, said in (("compiled", compiled), ("graph", graph)) if said]
                    name = ", ".join([f"{size} px, {precision}, {pairs} pairs", *words])
                    step = partial(self.step, name, size, pairs, precision, compiled, graph)
                    self.checks.attempt(f"speed, {name}", step)

    def step(self, name: str, size: int, pairs: int, precision: str, compiled: bool, graph: bool) -> None:
        image, evaluate = problem(size, self.device, precision, compiled=compiled)
        optimizer = optim.LBFGS([image], history_size=pairs)
        with true_float32(self.device):
            take = begun(optimizer, image, evaluate, graph)
            for _ in range(pairs + 4 if self.cuda else 1):
                take()
            bare = seconds(take, self.device)
            busy, launches, largest = self.kernels(take)
        skip = pairs + 5 if self.cuda else 1
        clock = _Clock(self.device, skip)
        module = StyleTransfer(optimizer=partial(optim.LBFGS, history_size=pairs), compile=compiled, graph=graph)
        fit(module, self.data(size, skip + self.steps), clock, device=self.device, precision=precision)
        taken = clock.seconds_a_step
        flops = 2 * 2 * sum(9 * a * b * (size >> halved) ** 2 for a, b, halved in LAYERS)
        roof = flops / self.ceiling / taken
        ms = {"step": bare, "kernels": busy, "trainer": taken}
        self.checks.tell(name, unit="ms", **{key: 1e3 * each for key, each in ms.items()}, launches=launches, roof=roof)
        for kernel, part, count in largest[:8]:
            print(f"        {1e3 * part:8.3f} ms in {count:4} of {kernel[:100]}", flush=True)
        self.checks.note(told=f"kernels, {name}", kernels=largest)
        self.checks.check(f"Lightning's share, {name}", 1 - bare / taken, 0.03)
        if self.cuda:
            self.checks.check(f"launches a step, {name}", 1 if graph else launches, 150)
            self.checks.check(f"GPU busy, {name}", busy / taken, 0.85, at_most=False)
        if precision == "bf16-mixed" and size >= 1024:
            self.checks.check(f"of the convolutions' roofline, {name}", roof, 0.6, at_most=False)

    def kernels(self, work: Step) -> tuple[float, int, list[tuple[str, float, int]]]:
        """Returns the seconds of a step's kernels, how many there are, and the largest by name."""
        if not self.cuda:
            return math.nan, 0, []
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
            work()
            torch.cuda.synchronize()
        events: list[Any] = [
            event
            for event in recorded.events()
            if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
        ]
        times: Counter[str] = Counter()
        for event in events:
            times[event.name] += event.device_time
        counts = Counter(event.name for event in events)
        largest = [(name, spent / 1e6, counts[name]) for name, spent in times.most_common(25)]
        return sum(times.values()) / 1e6, len(events), largest

    def losses(self) -> None:
        """What a step takes by each style loss, content loss and optimiser, against Gram matrices."""
        cases: dict[str, dict[str, Any]] = {loss: {"style_loss": loss} for loss in STYLE_LOSSES}
        cases |= {
            "self_similarity": {"content_loss": "self_similarity"},
            "gram + nearest": {"style_loss": {"gram": 1, "nearest": 1}},
        }
        cases |= {name: {"optimizer": optim.NAMED[name]} for name in ("adam", "pyramid")}
        for name, options in cases.items():
            self.checks.attempt(f"step, {name}", partial(self.loss_step, name, options))

    def loss_step(self, name: str, options: Mapping[str, Any]) -> None:
        size, precision = self.sizes[0], "bf16-mixed"
        make = options.get("optimizer", optim.LBFGS)
        image, evaluate = problem(size, self.device, precision, **options)
        optimizer = make([image])
        with true_float32(self.device):
            for _ in range(12 if self.cuda else 1):
                optimizer.step(evaluate)
            taken = seconds(lambda: optimizer.step(evaluate), self.device)
            peak = memory.peak_bytes(lambda: optimizer.step(evaluate), self.device)
            busy, launches, _ = self.kernels(lambda: optimizer.step(evaluate))
        told = {entry["told"]: entry for entry in entries(self.out / "gpu.log") if "told" in entry}
        gram = told.get("step by gram", {"ms": 1e3 * taken})["ms"]
        self.checks.tell(f"step by {name}", ms=1e3 * taken, kernels=1e3 * busy, launches=launches, MiB=peak / 2**20)
        self.checks.check(f"step at {size} px by {name} / by gram", 1e3 * taken / gram, 10)

    # ---- batches ----

    def batches(self) -> None:
        """Images an hour, pictures written, by how many are optimised together."""
        for together, pairs in ((1, 4), (8, 16), (32, 64)) if self.cuda else ((1, 2), (2, 2)):
            for graph in (False, True) if self.cuda else (False,):
                name = f"batches of {together}" + (", graph" if graph else "")
                self.checks.attempt(name, partial(self.batch, name, together, pairs, graph))

    def batch(self, name: str, together: int, pairs: int, graph: bool) -> None:
        size, steps = min(256, *self.sizes), 300 if self.cuda else 4
        folder = self.out / name.replace(" ", "_").replace(",", "")
        contents = [picture(CONTENT, size)[0].roll(3 * number, 2) for number in range(pairs)]
        clock = _Clock(self.device, 0)
        data = PairDataModule(contents, picture(STYLE, size)[0], size=size, steps=steps, batch_size=together)  # type: ignore[arg-type] # see api.stylize
        writer = ImageWriter(overwrite=True)
        module = StyleTransfer(graph=graph)
        fit(module, data, writer, clock, device=self.device, precision="bf16-mixed", folder=folder)
        hourly = 3600 * pairs / clock.whole
        self.checks.tell(name, images_an_hour=hourly, pairs=pairs, seconds=clock.whole, size=size)
        told = {entry["told"]: entry for entry in entries(self.out / "gpu.log") if "told" in entry}
        one = told.get("batches of 1", {"images_an_hour": hourly})["images_an_hour"]
        self.checks.check(f"images an hour, {name} / of 1", hourly / one, 3 if together > 8 else 1, at_most=False)

    # ---- compiled ----

    def compiled(self) -> None:
        """Numbers, the option and the speed of torch.compile."""
        self.numbers(compiled=True)
        if importlib.util.find_spec("jsonargparse") is not None:
            words = ("--steps", "12", "--scores", "off", "--compile", "true", *BF16)
            self.checks.attempt("fit, --compile true", partial(self.fit, "compile", *words))
        self.speed(compiled=True)


SECTIONS = ("ceilings", "numbers", "features", "memory", "waits", "speed", "losses", "batches", "compiled")


class _Clock(L.Callback):
    """Times the run, and the steps after some that are not counted, without waiting in between."""

    def __init__(self, device: torch.device, skip: int) -> None:
        self._device, self._skip, self._count = device, skip, 0
        self.whole = self.seconds_a_step = self._began = self._counted = 0.0

    def on_train_start(self, *_: object) -> None:
        self._began = self._counted = self._now()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        self._count += 1
        if self._count == self._skip:
            self._counted = self._now()

    def on_train_end(self, *_: object) -> None:
        ended = self._now()
        self.whole = ended - self._began
        self.seconds_a_step = (ended - self._counted) / (self._count - self._skip)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class _Waits(L.Callback):
    """Notes where in the eighth step the host waits for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self._cuda, self._stack = device.type == "cuda", contextlib.ExitStack()
        self.places: list[str] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: object, number: int) -> None:
        if number == 7 and self._cuda:
            self._caught = self._stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: object, batch: object, number: int
    ) -> None:
        if number == 7 and self._cuda:
            torch.cuda.set_sync_debug_mode("default")
            self._stack.close()
            found = [each for each in self._caught if "called a synchronizing" in str(each.message)]
            self.places = ["/".join([*Path(each.filename).parts[-2:]]) + f":{each.lineno}" for each in found]


def work(options: argparse.Namespace) -> None:
    """Runs the sections in this process."""
    checks = Checks(Path(options.out) / "gpu.log", torch.device(options.device))
    bench = Bench(checks, options)
    warnings.filterwarnings("ignore", ".*", UserWarning)
    for section in options.only:
        print(f"-- {section} ({time.time() - options.began:.0f} s)", flush=True)
        try:
            getattr(bench, section)()
        except Exception as error:
            told(error)
            checks.check(section, 0, 1, at_most=False, error=str(error))
        checks.note(section=section)


def watch(options: argparse.Namespace) -> None:
    """Has the sections run, each process for as long as it gets on."""
    log, command = options.out / "gpu.log", [sys.executable, "-u", "-m", "tests.benchmarks.gpu", "--child"]
    command += ["--out", str(options.out), "--device", options.device, "--began", str(options.began)]
    command += ["--size", *map(str, options.size)]
    for _ in range(12):
        done = {entry["section"] for entry in entries(log) if "section" in entry}
        left = [section for section in options.only if section not in done]
        if not left or time.time() - options.began > options.limit:
            break
        child = subprocess.Popen([*command, "--only", *left])
        started = time.time()
        while child.poll() is None:
            time.sleep(0.1)
            last = max(started, log.stat().st_mtime if log.exists() else 0)
            patience = PATIENCE * (10 if left[0] == "compiled" or options.device == "cpu" else 1)
            over = time.time() - options.began > options.limit
            if over or time.time() - last > patience:
                child.kill()
        found = entries(log)
        begun = [entry for entry in found if "begun" in entry]
        if child.returncode not in (0, UNUSABLE) and begun and not any("section" in entry for entry in found[-1:]):
            checks = Checks(log, torch.device("cpu"))
            checks.check(begun[-1]["begun"], 0, 1, at_most=False, error=f"the process ended by {child.returncode}")


def summary(options: argparse.Namespace) -> int:
    """Prints what failed, writes the JSON, and returns how many failed."""
    found = entries(options.out / "gpu.log")
    checks = [entry for entry in found if "check" in entry]
    failed = [entry["check"] for entry in checks if not entry["passed"]]
    done = {entry["section"] for entry in found if "section" in entry}
    for section in options.only:
        if section not in done:
            failed.append(f"{section} (not finished)")
    head = {"machine": options.machine, "seconds": time.time() - options.began, "failed": failed}
    told = [entry for entry in found if "told" in entry]
    (options.out / "gpu.json").write_text(json.dumps({**head, "checks": checks, "told": told}, indent=1))
    print(f"{len(failed)} of {len(checks)} failed in {head['seconds']:.0f} s; numbers in {options.out / 'gpu.json'}")
    print("".join(f"  failed: {name}\n" for name in failed), end="", flush=True)
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS[:-1]))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--limit", type=float, default=240, help="seconds after which nothing more begins")
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work(options)
        return
    options.out = Path(tempfile.mkdtemp()) if options.out is None else options.out
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.log").unlink(missing_ok=True)
    device = torch.device(options.device)
    options.machine = machine(device)
    if device.type == "cuda":
        options.machine += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    print(options.machine, f"Python {sys.version.split()[0]}, lightning {L.__version__}", sep=", ")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    print(f"missing here: {', '.join(missing) or 'none of what is needed'}", flush=True)
    watch(options)
    sys.exit(min(summary(options), 100))


if __name__ == "__main__":
    main()

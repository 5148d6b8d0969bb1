"""Films of the optimisation, made of frames on disk."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter
from torch import Tensor

from nst_lightning import clips, images
from nst_lightning.batches import Step
from nst_lightning.callbacks.beside import Beside, on_its_way
from nst_lightning.callbacks.secondary import secondary
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization
from nst_lightning.runs import Run, replacing

INSTALL = "pip install 'nst-lightning[video]'"
HOLD = 1.0  # s that the finished picture stays on screen


@secondary("the film")
class VideoWriter(Beside):
    """Writes a film of each pair's optimisation into the run folder, the trainer's `default_root_dir`.

    Frames stay on disk, each at its stage's size, until the film is encoded at the last stage's size: a run that was
    killed and resumed gives the whole film. One resumed behind a finished film, whose frames are gone, leaves it as it
    is. `written` lists the films in the order of writing.

    Args:
        format: `mp4`, which needs PyAV, or `webp`; by default `mp4`, or `webp` where PyAV is missing.
        frames: The number of frames that a film has at most, >= 2; see `staged_frame_steps` for which.
        fps: Frames per second, from 0.1 to 120.
        keep_frames: Whether the frames stay on disk after the film is written.


    Raises:
        InputError: If an argument is out of range, or mp4 was asked for and PyAV is missing.
    """

    def __init__(
        self, format: str | None = None, frames: int = 300, fps: float = 25.0, keep_frames: bool = False
    ) -> None:
        if frames < 2:
            raise InputError(f"video: frames must be at least 2, got {frames}")
        if not 0.1 <= fps <= 120:
            raise InputError(f"video: fps must be from 0.1 to 120, got {fps}")
        super().__init__()
        self.suffix = _suffix(format)
        self.frames, self.fps, self.keep_frames = frames, fps, keep_frames
        self.written: list[Path] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Keeps the frame that is due after a step, and writes the film after the last."""
        assert isinstance(pl_module, ImageOptimization)
        if not is_writer(trainer) or batch.index + 1 not in self._steps(batch):
            return
        run = Run(Path(trainer.default_root_dir))
        for pair in batch.batch.names if batch.index == 0 else ():  # an earlier run's frames are none of this one's
            shutil.rmtree(run.frames(pair), ignore_errors=True)
        frames = [_frame(run, pair, batch.index + 1) for pair in batch.batch.names]
        self.do(partial(_keep, frames, on_its_way(pl_module.result)))
        if batch.is_last:
            self._finish(trainer, batch, self.keep_frames)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the film so far where the trainer was told to stop early; its frames stay for a resumed run."""
        self.finish()
        if (step := data_of(trainer).unfinished_step()) is not None and is_writer(trainer):
            self._finish(trainer, step, keep_frames=True)

    def _steps(self, step: Step) -> tuple[int, ...]:
        return staged_frame_steps([stage.steps for stage in step.stages], self.frames)

    def _finish(self, trainer: L.Trainer, step: Step, keep_frames: bool) -> None:
        self.finish()
        run, size = Run(Path(trainer.default_root_dir)), step.batch.output_size(step.stages[-1])
        for pair in step.batch.names:
            frames = [_frame(run, pair, number) for number in self._steps(step) if number <= step.index + 1]
            self._encode(frames, run.film(pair, self.suffix), size)
            if not keep_frames:
                shutil.rmtree(run.frames(pair), ignore_errors=True)
                with contextlib.suppress(OSError):  # missing, or with the frames of other pairs in it
                    run.frames(pair).parent.rmdir()

    def _encode(self, wanted: Sequence[Path], film: Path, size: tuple[int, int]) -> None:
        frames = [path for path in wanted if path.exists()]
        there = f"{len(frames)} of {len(wanted)} frames are on disk"
        if len(frames) < 2 or (len(frames) < len(wanted) and film.exists()):
            rank_zero_warn(f"{film}: is left as it was, for {there}, and a film has at least 2")
            return
        if len(frames) < len(wanted):
            rank_zero_warn(f"{film}: lacks its beginning, for {there}")
        write_film(frames, film, self.fps, size)
        self.written.append(film)


def _suffix(format: str | None) -> str:
    has_pyav = importlib.util.find_spec("av") is not None
    if format is None and not has_pyav:
        rank_zero_warn(f"PyAV is not installed, so the film will be a WebP; for mp4: {INSTALL}")
    suffix = f".{format or ('mp4' if has_pyav else 'webp')}"
    if suffix not in _ENCODERS:
        raise InputError(f"video must be true, mp4 or webp, got {format!r}")
    if suffix == ".mp4" and not has_pyav:
        raise InputError(f"video: mp4 needs PyAV: {INSTALL}; webp does without")
    return suffix


def _frame(run: Run, pair: str, number: int) -> Path:
    # Not PNG: at 1024 px it takes six times as long and twice the room, and a film is lossy all the same.
    return run.frames(pair) / f"{number:06d}.jpg"


def _keep(frames: Sequence[Path], results: Callable[[], Tensor]) -> None:
    for path, rgb in zip(frames, results(), strict=True):
        images.write(path, rgb, overwrite=True)


def frame_steps(total_steps: int, frames: int) -> tuple[int, ...]:
    """Returns the numbers of the steps that become frames, from 1 to `total_steps`, both of them included.

    All steps, >= 1, where there are frames, >= 2, enough. Else frame i, from 0, is the step

        1 + max(i, (total_steps - 1) i^2 / (frames - 1)^2),  rounded down:

    each of the first steps, where most changes, then gaps that grow evenly to about 2 total_steps / frames.
    """
    if total_steps <= frames:
        return tuple(range(1, total_steps + 1))
    return tuple(1 + max(i, (total_steps - 1) * i**2 // (frames - 1) ** 2) for i in range(frames))


def staged_frame_steps(stages: Sequence[int], frames: int) -> tuple[int, ...]:
    """Returns the steps of a coarse-to-fine run that become frames: `frame_steps` anew for every stage.

    The frames are dealt out by the stages' steps; every stage has at least its first and last.
    """
    numbers: list[int] = []
    for index, steps in enumerate(stages):
        share = max(2, frames * steps // sum(stages))
        numbers += [sum(stages[:index]) + number for number in frame_steps(steps, share)]
    return tuple(numbers)


def write_film(frames: Sequence[Path], path: Path, fps: float, size: tuple[int, int]) -> None:
    """Writes a film of pictures in order, of any size, complete or not at all, one decoded picture in memory at a time.

    By the suffix it is an .mp4, H.264 (yuv420p, BT.709), whose odd sizes are made even by doubling the last row or
    column, or a .webp, which plays for ever. It has `fps` pictures a second, resized (bicubic) to `size`, (H, W) in
    pixels. The last stays for a second: an mp4 repeats it, for not every player minds a long last frame.

    Raises:
        InputError: If a file cannot be read or written.
    """
    try:
        with replacing(path) as temporary:
            _ENCODERS[path.suffix.lower()](frames, temporary, fps, size)
    except (OSError, ValueError, RuntimeError, Image.DecompressionBombError) as error:  # RuntimeError: Pillow's WebP
        raise InputError(f"{path}: the film cannot be written ({' '.join(str(error).split())})") from error


def _write_mp4(frames: Sequence[Path], target: Path, fps: float, size: tuple[int, int]) -> None:
    held = [*frames, *[frames[-1]] * (round(fps * HOLD) - 1)]
    clips.write(_pictures(held, size), target, "mp4", clips.Clock.even(fps, len(held)), size)


def _write_webp(frames: Sequence[Path], target: Path, fps: float, size: tuple[int, int]) -> None:
    times = [round(1000 * index / fps) for index in range(len(frames))]  # ms
    durations = [*(after - before for before, after in itertools.pairwise(times)), round(1000 * HOLD)]
    # Pillow decodes all pictures of a list before it writes the first; of a file of many it holds one.
    with tempfile.TemporaryFile(dir=target.parent) as reel:
        with AppendingTiffWriter(reel, new=True) as pages:
            for picture in _pictures(frames, size):
                picture.save(pages, "TIFF", compression="jpeg", quality=95)
                pages.newFrame()
        with Image.open(reel) as film:
            film.save(target, "WEBP", save_all=True, duration=durations, loop=0, quality=90)


def _pictures(frames: Sequence[Path], size: tuple[int, int]) -> Iterator[Image.Image]:
    # Not images.read: a coarse stage's frame may be smaller than what it takes for a content image.
    for path in frames:
        with Image.open(path) as image:
            yield image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)


_ENCODERS = {".mp4": _write_mp4, ".webp": _write_webp}

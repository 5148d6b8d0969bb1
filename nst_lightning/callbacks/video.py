"""Films of the optimisation, made of frames on disk."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from PIL import GifImagePlugin, Image

from nst_lightning import images
from nst_lightning.batches import Step
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization

INSTALL = "pip install 'nst-lightning[video]'"
HOLD = 1.0  # s that the finished picture stays on screen
MIN_FPS, MAX_FPS = 0.1, 120.0
_MAX_GIF_FPS = 50.0  # players show what asks for more at 10


class VideoWriter(Callback):
    """Writes a film of each pair's optimisation, `<root>/<pair>.mp4`, with the trainer's `default_root_dir` as root.

    Frames are kept as `<root>/frames/<pair>/<step>.jpg`, each at its stage's size, until the film is encoded after
    the pair's last step: a run that was killed and resumed finds those of before and gives the whole film. All of the
    film has the size of the last stage, smaller frames being enlarged as the next stage enlarges them. Where a run
    is resumed behind a finished film, whose frames are gone, the film stays as it is.

    Args:
        format: `mp4`, which needs PyAV, `webp` or `gif`; by default `mp4`, or `webp` where PyAV is missing.
        frames: The number of frames that a film has at most, >= 2; see `staged_frame_steps` for which.
        fps: Frames per second, see `write_film`.
        keep_frames: Whether the frames stay on disk after the film is written.

    Attributes:
        written: The films, in the order of writing.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        format: Literal["mp4", "webp", "gif"] | None = None,
        frames: int = 300,
        fps: float = 25.0,
        keep_frames: bool = False,
    ) -> None:
        if format is not None:
            _encoder(f".{format}", "video")
        if frames < 2:
            msg = f"video: frames must be at least 2, got {frames}"
            raise InputError(msg)
        _check_fps(fps, "video")
        self.format = format
        self.frames = frames
        self.fps = fps
        self.keep_frames = keep_frames
        self.written: list[Path] = []
        self._suffix = f".{format}"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that the film can be written before an hour of work is spent on it.

        Raises:
            ImageError: If the root cannot be written to.
            InputError: If mp4 was asked for and PyAV is missing.
        """
        images.check_writable(trainer.default_root_dir)
        if self.format is None:
            self._suffix = ".mp4" if _has_pyav() else ".webp"
            if not _has_pyav():
                rank_zero_warn(f"PyAV is not installed, so the film will be a WebP; for mp4: {INSTALL}")
        elif self.format == "mp4":
            _check_pyav("video")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Keeps the frame that is due after a step, and writes the film after the last."""
        if not is_writer(trainer):
            return
        if batch.index + 1 in self._steps(batch):
            self._save(Path(trainer.default_root_dir), pl_module, batch)
        if batch.is_last:
            self._finish(Path(trainer.default_root_dir), batch, self.keep_frames)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the film so far where the trainer was told to stop early; its frames stay for a resumed run."""
        step = data_of(trainer).unfinished_step()
        if step is not None and is_writer(trainer):
            self._finish(Path(trainer.default_root_dir), step, keep_frames=True)

    def _steps(self, step: Step) -> tuple[int, ...]:
        return staged_frame_steps([stage.steps for stage in step.stages], self.frames)

    def _save(self, root: Path, module: L.LightningModule, step: Step) -> None:
        assert isinstance(module, ImageOptimization)
        for pair, rgb in zip(step.batch.pairs, module.result.cpu(), strict=True):
            folder = _folder(root, pair.name)
            if step.index == 0:  # an earlier run's frames are none of this one's
                shutil.rmtree(folder, ignore_errors=True)
            images.write(_frame(folder, step.index + 1), rgb[None], overwrite=True)

    def _finish(self, root: Path, step: Step, keep_frames: bool) -> None:
        size = step.batch.output_size(step.stages[-1])
        for pair in step.batch.pairs:
            folder = _folder(root, pair.name)
            wanted = [_frame(folder, number) for number in self._steps(step) if number <= step.index + 1]
            self._encode(
                [path for path in wanted if path.exists()], len(wanted), root / (pair.name + self._suffix), size
            )
            if not keep_frames:
                shutil.rmtree(folder, ignore_errors=True)
                if folder.parent.is_dir() and not any(folder.parent.iterdir()):
                    folder.parent.rmdir()

    def _encode(self, frames: Sequence[Path], wanted: int, film: Path, size: tuple[int, int]) -> None:
        if len(frames) < wanted and film.exists():
            rank_zero_warn(f"{film}: stays as it was, for {wanted - len(frames)} of its {wanted} frames are gone")
            return
        if len(frames) < 2:
            rank_zero_warn(f"{film}: not written, for a film has at least 2 frames, and there are {len(frames)}")
            return
        if len(frames) < wanted:
            rank_zero_warn(f"{film}: has only {len(frames)} of {wanted} frames, the others are not on disk")
        write_film(frames, film, self.fps, size)
        self.written.append(film)


def _folder(root: Path, pair: str) -> Path:
    return root / "frames" / pair


def _frame(folder: Path, number: int) -> Path:
    # Not PNG: at 1024 px it takes six times as long and twice the room, and a film is lossy all the same.
    return folder / f"{number:06d}.jpg"


# ---- which steps become frames ----


def frame_steps(total_steps: int, frames: int) -> tuple[int, ...]:
    """Returns the numbers of the steps that become frames, from 1 to `total_steps`, both of them included.

    All steps where there are frames enough. Else frame i, from 0, is the step

        1 + max(i, (total_steps - 1) i^2 / (frames - 1)^2),  rounded down:

    every one of the first steps, about frames^2 / total_steps of them, where most changes, then gaps that grow evenly
    to about 2 total_steps / frames at the end.

    Args:
        total_steps: The number of steps, >= 1.
        frames: The number of frames, >= 2.

    Raises:
        InputError: If either is smaller.
    """
    if total_steps < 1 or frames < 2:
        msg = f"a film has at least 1 step and 2 frames, got {total_steps} and {frames}"
        raise InputError(msg)
    if total_steps <= frames:
        return tuple(range(1, total_steps + 1))
    return tuple(1 + max(i, (total_steps - 1) * i**2 // (frames - 1) ** 2) for i in range(frames))


def staged_frame_steps(stages: Sequence[int], frames: int) -> tuple[int, ...]:
    """Returns the steps of a coarse-to-fine run that become frames: `frame_steps` anew for every stage.

    Each stage begins with quick changes as the first does, so the frames are dealt out by steps; every stage has at
    least its first and last, be the frames as few as they may.

    Args:
        stages: The number of steps of each stage, >= 1.
        frames: The number of frames, >= 2.

    Raises:
        InputError: If either is smaller.
    """
    numbers: list[int] = []
    for index, steps in enumerate(stages):
        share = frames if len(stages) == 1 else max(2, frames * steps // sum(stages))
        numbers += [sum(stages[:index]) + number for number in frame_steps(steps, share)]
    return tuple(numbers)


# ---- encoding ----


def write_film(frames: Sequence[Path], path: Path, fps: float, size: tuple[int, int]) -> None:
    """Writes pictures as a film that appears complete or not at all, one picture in memory at a time.

    The suffix decides: .mp4 is H.264 (yuv420p, BT.709, its index in front), whose odd sizes are made even by doubling
    the last row or column; .webp and .gif play for ever, .gif in 256 colours a frame. The last picture stays for a
    second: in an mp4 it is repeated, for not every player minds a long last frame.

    Args:
        frames: The pictures' files in order, at least 2, of any size.
        path: The file to write; one that is there is replaced.
        fps: Frames per second, from 0.1 to 120; a GIF has 50 at most.
        size: Height and width of the film in pixels, each >= 1; frames of another size are resized (bicubic).

    Raises:
        InputError: If an argument is not as above, PyAV is missing, or a file cannot be read or written.
    """
    encode = _encoder(path.suffix, str(path))
    _check_fps(fps, str(path))
    if len(frames) < 2 or min(size) < 1:
        msg = f"{path}: a film has at least 2 frames of at least 1x1 px, got {len(frames)} of {size[1]}x{size[0]} px"
        raise InputError(msg)
    # A fixed name, so that what a killed run left is replaced; a short one, for the film's may be as long as names get.
    temporary = path.absolute().with_name(f".nst-{zlib.crc32(os.fsencode(path.name)):08x}.tmp")
    try:
        encode(frames, temporary, fps, size)
        os.replace(temporary, path)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, Image.DecompressionBombError) as error:  # RuntimeError: Pillow's WebP
        msg = f"{path}: the film cannot be written ({' '.join(str(error).split())})"
        raise InputError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_mp4(frames: Sequence[Path], target: Path, fps: float, size: tuple[int, int]) -> None:
    _check_pyav(str(target))
    import av  # not above: it is an extra, and takes its time

    height, width = (side + side % 2 for side in size)  # yuv420p halves both
    last = [frames[-1]] * (round(fps * HOLD) - 1)
    try:
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", Fraction(fps).limit_denominator(1001), options={"crf": "18"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            # Untagged, players guess the matrix by the size, and the colours of small films differ from large ones.
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = 1, 1, 1, 1
            for path in (*frames, *last):
                pixels = np.asarray(_picture(path, size))
                pixels = np.pad(pixels, ((0, height - size[0]), (0, width - size[1]), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise OSError(str(error)) from error


def _write_webp(frames: Sequence[Path], target: Path, fps: float, size: tuple[int, int]) -> None:
    durations = _durations(len(frames), fps, unit=1)
    with target.open("wb") as stream:
        _Reel(frames, size).save(stream, "WEBP", save_all=True, duration=durations, loop=0, quality=90)


def _write_gif(frames: Sequence[Path], target: Path, fps: float, size: tuple[int, int]) -> None:
    # Not save_all, which collects all frames before it writes the first.
    durations = _durations(len(frames), min(fps, _MAX_GIF_FPS), unit=10)
    with target.open("wb") as stream:
        for index, (path, duration) in enumerate(zip(frames, durations, strict=True)):
            # The default, median cut, takes 300 times as long.
            picture = _picture(path, size).quantize(256, Image.Quantize.FASTOCTREE)
            if index == 0:
                stream.writelines(GifImagePlugin.getheader(picture, info={"loop": 0})[0])
            stream.writelines(GifImagePlugin.getdata(picture, duration=duration, include_color_table=True))
        stream.write(b";")


class _Reel(Image.Image):
    """The frames as one image of many, which Pillow takes one at a time; a list it would hold decoded."""

    def __init__(self, frames: Sequence[Path], size: tuple[int, int]) -> None:
        super().__init__()
        self._frames = frames
        self._shown = size
        self.n_frames = len(frames)
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Shows a frame, numbered from 0."""
        self._index = frame
        picture = _picture(self._frames[frame], self._shown)
        self.im, self._mode, self._size = picture.im, picture.mode, picture.size  # what Pillow has plugins set

    def tell(self) -> int:
        """Returns the number of the frame shown."""
        return self._index


def _picture(path: Path, size: tuple[int, int]) -> Image.Image:
    """Reads a frame, RGB, at a size (H, W)."""
    # Not images.read: a coarse stage's frame may be smaller than what it takes for a content image.
    with Image.open(path) as image:
        picture: Image.Image = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return picture


def _durations(count: int, fps: float, unit: int) -> list[int]:
    """Returns how long each frame is shown in ms, multiples of `unit` that add up to the rate, the last for `HOLD`."""
    times = [round(1000 * index / fps / unit) * unit for index in range(count)]
    return [after - before for before, after in itertools.pairwise(times)] + [round(HOLD * 1000)]


_ENCODERS: dict[str, Callable[[Sequence[Path], Path, float, tuple[int, int]], None]] = {
    ".mp4": _write_mp4,
    ".webp": _write_webp,
    ".gif": _write_gif,
}


def _encoder(suffix: str, label: str) -> Callable[[Sequence[Path], Path, float, tuple[int, int]], None]:
    if suffix.lower() not in _ENCODERS:
        msg = f"{label}: a film has the suffix {', '.join(_ENCODERS)}, got {suffix!r}"
        raise InputError(msg)
    return _ENCODERS[suffix.lower()]


def _check_fps(fps: float, label: str) -> None:
    if not (math.isfinite(fps) and MIN_FPS <= fps <= MAX_FPS):
        msg = f"{label}: fps must be from {MIN_FPS:g} to {MAX_FPS:g}, got {fps}"
        raise InputError(msg)


def _check_pyav(label: str) -> None:
    if not _has_pyav():
        msg = f"{label}: mp4 needs PyAV: {INSTALL}; webp and gif do without"
        raise InputError(msg)


def _has_pyav() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True

"""Films as files: their frames one by one, when each begins, and the sound that goes with them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from nst_lightning import images
from nst_lightning.errors import InputError, in_one_line
from nst_lightning.runs import regular

if TYPE_CHECKING:
    from av.container import OutputContainer

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""The formats that films are written in, by suffix."""
_HD = 720  # rows from which on a film that does not say so is of BT.709, else of BT.601


@dataclass(frozen=True)
class Clock:
    """When the frames of a film begin."""

    rate: Fraction  # frames a second, on the mean
    base: Fraction  # seconds, which times are counted in
    times: tuple[int, ...]  # when each begins, ever later

    @classmethod
    def even(cls, fps: float | Fraction, count: int) -> Clock:
        """Returns that of so many frames, so many a second."""
        rate = Fraction(fps).limit_denominator(1001)
        return cls(rate, 1 / rate, tuple(range(count)))


def unpack(path: Path, side: int, keep: Callable[[int, Image.Image], None]) -> Clock:
    """Has each frame of a film kept, by its number from 1, upright, with a long side of so many pixels at most.

    Raises:
        InputError: If it is no film: it has no pictures that can be decoded, or fewer than two.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: has no pictures; expected a film")
        stream, times = container.streams.video[0], []
        if stream.codec_context is None:
            raise InputError(f"{path}: there is no decoder for its pictures; convert it to H.264")
        for number, frame in enumerate(container.decode(stream), start=1):
            keep(number, _upright(frame, side))
            times.append(frame.pts)
        if len(times) < 2:
            raise InputError(f"{path}: has {len(times)} frames; expected a film, or --walk N beside a photograph")
        rate, base = stream.average_rate or stream.guessed_rate or Fraction(25), stream.time_base
        grow = None not in times and all(a < b for a, b in itertools.pairwise(times))
        return Clock(rate, base, tuple(times)) if grow and base is not None else Clock.even(rate, len(times))


def write(
    pictures: Iterable[Image.Image],
    target: Path,
    form: str,
    clock: Clock,
    size: tuple[int, int],
    sound: Path | None = None,
) -> None:
    """Writes a film in a format of `FORMATS`: H.264 (yuv420p, BT.709), with another's sound, packet by packet.

    The pictures are of one size (H, W) in pixels, which is made even by doubling the last row or column.

    Raises:
        OSError: If it cannot be written.
    """
    import av  # not above: it is an extra, and takes its time

    height, width = (side + side % 2 for side in size)  # yuv420p halves both
    options = {} if form == "matroska" else {"movflags": "+faststart"}
    try:
        with ExitStack() as stack:
            container = stack.enter_context(av.open(str(target), "w", format=form, options=options))
            stream = container.add_stream("libx264", clock.rate, options={"crf": "18"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            # Untagged, players guess the matrix by the size, and the colours of small films differ from large ones.
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = 1, 1, 1, 1
            context.time_base = clock.base
            heard = _sound(container, stack.enter_context(_opened(sound))) if sound is not None else iter(())
            packet = next(heard, None)
            for picture, time in zip(pictures, clock.times, strict=True):
                while packet is not None and packet.dts * packet.time_base <= time * clock.base:  # beside its pictures
                    container.mux(packet)
                    packet = next(heard, None)
                pixels = np.pad(np.asarray(picture), ((0, height - size[0]), (0, width - size[1]), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
                frame.pts, frame.time_base = time, clock.base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            while packet is not None:
                container.mux(packet)
                packet = next(heard, None)
    except av.FFmpegError as error:
        raise OSError(str(error)) from error


def has_sound(path: Path, form: str) -> bool:
    """Returns whether a film has sound; an InputError if that does not go into a format of `FORMATS` as it is."""
    import av

    with _opened(path) as source:
        named = [stream.codec_context.name if stream.codec_context else "unknown" for stream in source.streams.audio]
        try:
            with av.open(io.BytesIO(), "w", format=form) as container:
                _ = _sound(container, source)
                if named:
                    container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            reason = f"its sound ({', '.join(named)}) cannot be kept in {form}"
            raise InputError(f"{path}: {reason}; let --output end in .mkv") from error
    return bool(named)


def _sound(container: OutputContainer, source: Any) -> Iterator[Any]:  # noqa: ANN401 - of an extra
    """Returns the packets of a film's sound, for a container that is given streams for them."""
    streams = {stream.index: container.add_stream_from_template(stream) for stream in source.streams.audio}

    def packets() -> Iterator[Any]:
        for packet in source.demux(*source.streams.audio) if streams else ():
            if packet.dts is not None:  # else it is the last, with nothing in it
                packet.stream = streams[packet.stream.index]
                yield packet

    return packets()


def _upright(frame: Any, side: int) -> Image.Image:  # noqa: ANN401 - of an extra
    """Returns a frame as it is to be seen: turned, in sRGB's range, and no larger than asked for."""
    told = {1: "ITU709", 5: "ITU601", 6: "ITU601"}.get(frame.colorspace)
    matrix = told or ("ITU709" if frame.height >= _HD else "ITU601")
    pixels = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
    picture = Image.fromarray(np.rot90(pixels, frame.rotation // 90).copy())
    height, width = images.fit(picture.height, picture.width, side)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import av

    try:
        with av.open(str(regular(path))) as container:
            yield container
    except InputError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: cannot be decoded ({in_one_line(error)}); expected a film") from error

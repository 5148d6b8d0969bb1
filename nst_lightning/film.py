"""Films: which frame is painted from what, in which order, and what is shown of them in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from nst_lightning import clips, flow, images
from nst_lightning.errors import InputError
from nst_lightning.runs import Run, replacing
from nst_lightning.terminal import STDERR


@dataclass(frozen=True)
class Chunk:
    """Frames that are painted one after the other, each from the one before but the first."""

    first: int  # from 1
    last: int
    fades: int = 0  # how many of the first are also the last of the chunk before, which they fade in over

    @classmethod
    def deal(cls, count: int, chunks: int, overlap: int) -> list[Chunk]:
        """Returns chunks of equal length that so many frames are dealt out in, each with an overlap with the last.

        Raises:
            InputError: If a number is out of range, or chunks would be no longer than they overlap.
        """
        for name, value, least in (("chunks", chunks, 1), ("overlap", overlap, 0)):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        if chunks > 1 and count // chunks <= overlap:
            raise InputError(f"chunks must be longer than their overlap of {overlap}, got {chunks} of {count} frames")
        starts = [1 + count * index // chunks for index in range(chunks + 1)]
        fades = [0, *[overlap] * (chunks - 1)]
        return [cls(starts[i] - fades[i], starts[i + 1] - 1, fades[i]) for i in range(chunks)]

    def name(self, number: int) -> str:
        """Returns the name of the pair of a frame, of which chunks that overlap have one each."""
        return f"frame_{number:06d}" if self.first == 1 else f"frame_{number:06d}_from_{self.first:06d}"


@dataclass(frozen=True)
class Film:
    """A film and its folder: the frames that were unpacked into it, and how they are painted and put together."""

    folder: Path
    clock: clips.Clock
    chunks: tuple[Chunk, ...]
    sound: Path | None  # the clip that has it, None for silence
    output: Path

    @property
    def run(self) -> Run:
        """The run that paints the frames."""
        return Run(self.folder / "frames")

    @staticmethod
    def unpacked(folder: Path, number: int) -> Path:
        """Returns the file of a frame of the clip, by its number from 1."""
        return folder / "clip" / f"{number:06d}.png"

    @classmethod
    def read(cls, folder: Path) -> Film:
        """Returns the film in a folder; an InputError if there is none, or it was not unpacked to its end."""
        try:
            told = json.loads((folder / "film.json").read_text(encoding="utf-8"))
            clock = clips.Clock(Fraction(told["rate"]), Fraction(told["base"]), tuple(told["times"]))
            chunks = tuple(Chunk(**each) for each in told["chunks"])
            sound = None if told["sound"] is None else Path(told["sound"])
            return cls(folder, clock, chunks, sound, Path(told["output"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{folder}: is not the folder of a film, for it has no film.json of nst film") from error

    def write(self) -> None:
        """Notes all of it in the folder."""
        told = {"rate": str(self.clock.rate), "base": str(self.clock.base), "times": self.clock.times}
        files = {"sound": None if self.sound is None else str(self.sound), "output": str(self.output)}
        with replacing(self.folder / "film.json") as file:
            chunks = [asdict(chunk) for chunk in self.chunks]
            file.write_text(json.dumps({**told, **files, "chunks": chunks}, indent=1), encoding="utf-8")

    def rows(self, content: Path | None, styles: Sequence[Path], steps: int) -> list[dict[str, str]]:
        """Returns the frames as rows for `pairs.read_pairs`, those with one before them of so many steps.

        All are of one content, for a walk from each style to the next, or each of its own in all styles alike.
        """
        rows = []
        for chunk in self.chunks:
            for number in range(chunk.first, chunk.last + 1):
                source = self.unpacked(self.folder, number) if content is None else content
                row = {"content": str(source), "name": chunk.name(number), "style": "|".join(map(str, styles))}
                if content is not None:
                    row["style_weights"] = "|".join(map(str, walked(number - 1, len(self.clock.times), len(styles))))
                if number > chunk.first:
                    shown = self.unpacked(self.folder, number - 1) if content is None else content
                    row |= {"before": f"{self.run.picture(chunk.name(number - 1))}|{shown}", "steps": str(steps)}
                rows.append(row)
        return rows

    def paint(
        self, painted: Callable[[Path], Tensor], weight: float, told: Callable[[Path], Mapping[str, str]]
    ) -> None:
        """Paints the frames that are not there yet, of a single chunk, each held to the one before.

        That one is carried along the flow, and where it can be trusted it counts so many times as much as the painting
        itself: what brings down the distance to both, weighted so, of which `losses.Temporal` is one.
        """
        (chunk,) = self.chunks
        numbers = range(chunk.first, chunk.last + 1)
        for number in tqdm(numbers, "painting", unit="frame", file=STDERR, disable=not STDERR.isatty()):
            picture, shown = self.run.picture(chunk.name(number)), self.unpacked(self.folder, number)
            if picture.exists():
                continue
            rgb = painted(shown)
            if number > chunk.first and weight > 0:
                before = self.run.picture(chunk.name(number - 1)), self.unpacked(self.folder, number - 1), shown
                held, trusted = flow.carried(*(images.read(each).rgb for each in before))
                rgb = torch.lerp(rgb, held, trusted * weight / (1 + weight))
            images.write(picture, rgb, None, told(shown), overwrite=True)

    def pictures(self) -> Iterator[Image.Image]:
        """Yields what is shown, frame by frame: where chunks overlap, one fades into the next."""
        for number in range(1, len(self.clock.times) + 1):
            shown = None
            for chunk in (each for each in self.chunks if each.first <= number <= each.last):
                with Image.open(self.run.picture(chunk.name(number))) as opened:
                    picture = opened.convert("RGB")
                share = (number - chunk.first + 1) / (chunk.fades + 1)
                shown = picture if shown is None else Image.blend(shown, picture, min(1.0, share))
            assert shown is not None
            yield shown

    def encode(self) -> None:
        """Writes the film, with the sound of the clip."""
        with Image.open(self.run.picture(self.chunks[0].name(1))) as first:
            size = first.height, first.width
        with replacing(self.output) as file:
            clips.write(self.pictures(), file, clips.FORMATS[self.output.suffix.lower()], self.clock, size, self.sound)


def walked(index: int, count: int, styles: int) -> list[float]:
    """Returns the weights of styles at a frame, from 0, of a walk from the first to the last of them, in even steps."""
    place = index * (styles - 1) / (count - 1)
    return [max(0.0, 1 - abs(place - style)) for style in range(styles)]

"""`nst film`: a film in the manner of paintings, or a photograph from one manner to the next."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nst_lightning import files, runs
from nst_lightning.cli import arguments as typed
from nst_lightning.cli import paint as painting
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.interruption import Interrupted, importing
from nst_lightning.recipe import digest
from nst_lightning.terminal import say, tell

if TYPE_CHECKING:
    from nst_lightning.cli.configuration import Configuration
    from nst_lightning.film import Film

HELP = """
usage: nst film CLIP PAINTING ... [options]
       nst film CLIP --painter FILE [options]
       nst film PHOTO --style PAINTING PAINTING ... --walk N [options]

Paints each frame of a film from the one before, carried along with what moves, and keeps its sound; or makes a film of
a photograph that goes from the manner of one painting to that of the next. A painter of nst train paints each frame in
one pass.

  CLIP, PHOTO              a film; with --walk a photograph
  -o, --output FILE        an .mp4, .mov or .mkv, beside a folder of its name [data/output-images/<clip>]
  --resume FOLDER          goes on with the film of a folder
  --steps N                of the first frame [240]
  --frame_steps N          of each frame after it [a quarter of --steps]
  --temporal_weight X      how much a frame is held to the one before [50; of a walk 0, by a painter 4]
  --walk N                 the frames of a walk through the paintings
  --fps X                  frames a second of a walk, 1 to 120 [24]
  --chunks N               parts that are begun anew and fade into each other, for several processes [1]
  --overlap N              frames that they fade for [8]
  --painter FILE           a painter in place of paintings; beside it --size, --temporal_weight, and of nst paint
                           --styles, --strength and --accelerator
  and all options of nst fit; --devices N --strategy pair_parallel deals out the chunks

examples:
  nst film clip.mp4 painting.jpg -o painted.mp4 --size 320
  nst film clip.mp4 --painter bundled
  nst film photo.jpg --style dawn.jpg dusk.jpg --walk 48 -o walk.mp4
"""
_DEFAULTS = {"data.pairs": [], "scores": "off"}
_TEMPORAL_WEIGHT = 50.0  # of a film; that of a walk is 0, for it holds back what is to change
_MANNER = "painter.json"  # in the folder of a film by a painter: how that paints
_HELD = 4.0  # times as much as a frame's painting by a painter the one before counts
_OWN: dict[str, tuple[type, int | float | str | None]] = {
    **{"output": (str, None), "frame_steps": (int, None), "walk": (int, None), "fps": (float, 24.0)},
    **{"chunks": (int, 1), "overlap": (int, 8)},
}
"""The options that nst fit has not, or otherwise: type and default."""


def main(arguments: Sequence[str]) -> None:
    """Paints the frames, and writes the film."""
    parser = Parser("film", "--resume", "--painter")
    for name, (kind, default) in _OWN.items():
        parser.add_argument(f"--{name}", *(["-o"] if name == "output" else []), type=kind, default=default)
    parser.switch("--overwrite")
    own, rest = parser.parse_known_args(arguments)
    if own.painter is not None or (own.resume is not None and (Path(own.resume) / _MANNER).is_file()):
        _by_painter(own, rest)
        return
    given = _read(own, rest)
    with importing():  # not above: a slip is answered before torch could be imported
        from nst_lightning.api import quiet
        from nst_lightning.cli.configuration import Configuration, Job, schedule_of
        from nst_lightning.film import Film
        from nst_lightning.modules import StyleTransfer
        from nst_lightning.parallel import agreed

    with quiet(), ExitStack() as claims:
        held = _TEMPORAL_WEIGHT if own.walk is None else 0.0
        defaults = {**_DEFAULTS, "model.temporal_weight": held}
        configuration = Configuration(_without_images(given), StyleTransfer, defaults)

        def choose() -> str:
            if own.resume is None:
                side = schedule_of(configuration.values.data)[-1].size
                (content,) = _found(given, "content")
                return str(_unpacked(content, own, side, claims).run.folder)
            claims.enter_context(runs.held(runs.Run(Path(own.resume))))
            return str(Film.read(Path(own.resume)).run.folder)

        film = Film.read(Path(agreed("folder", choose)).parent)
        if own.resume is None:
            _list_frames(configuration, film, own, given)
        job = Job(configuration, claims, film.folder)
        job.fit()
        if job.trainer.is_global_zero:
            film.encode()
            tell(film.output)


def _by_painter(own: Namespace, rest: Sequence[str]) -> None:
    """Paints the frames with a painter, or goes on with that, and writes the film."""
    parser = painting.parser_of("film")
    parser.add_argument("--temporal_weight", type=float, default=_HELD)
    given = parser.parse_intermixed_args(rest)
    if own.resume is not None and (rest or own.painter is not None or _changed(own)):
        raise InputError(f"nothing can be given with --resume {own.resume}: the film was begun with its own options")
    if others := [name for name in _changed(own) if name != "output"]:
        raise InputError(f"{others[0]} is not for a film by a painter, whose frames are painted in one pass each")
    if not 0 <= given.temporal_weight < math.inf:
        raise InputError(f"temporal_weight must be a finite number, 0 or above, got {given.temporal_weight}")
    if own.resume is None and len(given.photographs) != 1:
        raise InputError(f"a film by a painter is of one clip and no painting, got {len(given.photographs)} names")
    clip = files.find("content", given.photographs, files.CONTENT_FOLDER) if own.resume is None else []
    with importing():  # not above: a slip is answered before torch could be imported
        import torch

        from nst_lightning.film import Film
        from nst_lightning.images import MIN_SIDE
        from nst_lightning.painters import located
        from nst_lightning.painters.photographs import device_of, painted_by

    with ExitStack() as claims:
        if own.resume is None:
            told = {**vars(given), "painter": os.path.abspath(located(own.painter)), "sum": None}
        else:
            claims.enter_context(runs.held(runs.Run(Path(own.resume))))
            told = json.loads((Path(own.resume) / _MANNER).read_text(encoding="utf-8"))
        given = Namespace(**told)
        trained, manner = painting.chosen(given.painter, given)
        of_painter = digest(given.painter)
        if given.sum not in (None, of_painter):
            raise InputError(f"{given.painter}: is not the painter any more that the film was begun with")
        device, weight = device_of(given.accelerator), given.temporal_weight

        def painted(frame: Path | torch.Tensor) -> torch.Tensor:
            return painted_by(trained, frame, given.size, manner["styles"], given.strength, device)[0]

        painted(torch.zeros(3, MIN_SIDE, MIN_SIDE))  # what cannot be used is told before frames are unpacked
        if own.resume is None:
            film = _unpacked(Path(os.path.abspath(str(clip[0]))), own, given.size or sys.maxsize, claims)
            with runs.replacing(film.folder / _MANNER) as file:
                file.write_text(json.dumps({**told, "sum": of_painter}, indent=1), encoding="utf-8")
        else:
            film = Film.read(Path(own.resume))
        try:
            film.paint(painted, weight, lambda frame: painting.metadata(frame, {**manner, "temporal_weight": weight}))
            film.encode()
        except Interrupted as ended:
            say(f"nst: interrupted; to go on: nst film --resume {film.folder}")
            raise SystemExit(128 + ended.number) from ended
        tell(film.output)


def _changed(own: Namespace) -> list[str]:
    """Returns the names of the options that are not what they are by default."""
    return [name for name, (_, default) in _OWN.items() if getattr(own, name) != default]


def _read(own: Namespace, rest: Sequence[str]) -> typed.Given:
    """Returns what was given beside the options of its own; an `InputError` for what no film can be made with."""
    if own.resume is not None:
        if changed := _changed(own):
            raise InputError(f"{changed[0]} cannot be given with --resume: the film was begun with its own")
        if not (Path(own.resume) / "film.json").is_file():
            raise InputError(f"{own.resume}: is not the folder of a film, for it has no film.json of nst film")
        return typed.read([f"--resume={Path(own.resume) / 'frames'}", *rest])
    given = typed.read(rest)
    if given.values("data.pairs") is not None:
        raise InputError("pairs cannot be given for a film: its pairs are its frames")
    if (contents := len(_found(given, "content"))) != 1:
        raise InputError(f"one film at a time, got {contents}")
    styles = _found(given, "style")
    if own.walk is not None and len(styles) < 2:
        raise InputError("a walk goes from one painting to the next: name two or more with --style, got 1")
    if own.walk is not None and own.walk < 2:
        raise InputError(f"walk must be a number of frames from 2, got {own.walk}")
    if own.frame_steps is not None and own.frame_steps < 1:
        raise InputError(f"frame_steps must be at least 1, got {own.frame_steps}")
    if not (math.isfinite(own.fps) and 1 <= own.fps <= 120):
        raise InputError(f"fps must be from 1 to 120, got {own.fps}")
    return given


def _found(given: typed.Given, name: str) -> list[Path]:
    folder = files.CONTENT_FOLDER if name == "content" else files.STYLE_FOLDER
    return [Path(os.path.abspath(str(file))) for file in files.find(name, given.values(f"data.{name}"), folder)]


def _without_images(given: typed.Given) -> typed.Given:
    """Returns what was given but the images, whose place the frames take."""
    configurations = []
    for each in given.configurations:
        data = {name: value for name, value in each.get("data", {}).items() if name not in ("content", "style")}
        configurations.append({**each, "data": data})
    options = tuple(option for option in given.options if option[0] not in ("data.content", "data.style"))
    return replace(given, configurations=tuple(configurations), options=options)


def _unpacked(content: Path, own: Namespace, side: int, claims: ExitStack) -> Film:
    """Returns the film that is begun, in a folder of its own, to which its frames are unpacked, of a side at most."""
    from nst_lightning import clips
    from nst_lightning.film import Chunk, Film

    suffix = ".mp4" if own.output is None else Path(own.output).suffix.lower() or ".mp4"
    if suffix not in clips.FORMATS:
        raise InputError(f"output must end in one of {', '.join(clips.FORMATS)}, got {own.output}")
    sounds = own.walk is None and clips.has_sound(content, clips.FORMATS[suffix])
    run, file = claims.enter_context(runs.claimed(own.output, [content.stem], own.overwrite))
    folder = Path(os.path.abspath(run.folder))
    if (folder / "clip").exists() or (folder / "frames").exists():
        Film.read(folder)  # nothing but a film is overwritten
        _remove(folder)
    begun = runs.Run(folder / "frames").config, folder / _MANNER
    claims.callback(lambda: None if any(each.exists() for each in begun) else _remove(folder))
    if own.walk is None:
        Film.unpacked(folder, 0).parent.mkdir()
        clock = clips.unpack(content, side, lambda number, frame: frame.save(Film.unpacked(folder, number)))
    else:
        clock = clips.Clock.even(own.fps, own.walk)
    chunks = tuple(Chunk.deal(len(clock.times), own.chunks, own.overlap))
    output = folder / f"{content.stem}{suffix}" if file is None else Path(os.path.abspath(file))
    film = Film(folder, clock, chunks, content if sounds else None, output)
    film.write()
    return film


def _remove(folder: Path) -> None:
    for part in ("clip", "frames"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for name in ("film.json", _MANNER):
        (folder / name).unlink(missing_ok=True)


def _list_frames(configuration: Configuration, film: Film, own: Namespace, given: typed.Given) -> None:
    """Has the frames of a film be the pairs that are painted."""
    from nst_lightning.cli.configuration import schedule_of

    values = configuration.values
    whole = sum(stage.steps for stage in schedule_of(values.data))
    steps = max(1, whole // 4) if own.frame_steps is None else own.frame_steps
    photograph = None if own.walk is None else _found(given, "content")[0]
    values.data.pairs = film.rows(photograph, _found(given, "style"), steps)
    values.output, values.overwrite = str(film.run.folder), True  # the folder around it is the film's own

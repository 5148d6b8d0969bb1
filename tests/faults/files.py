"""Cells of what a run left on disk and someone damaged: checkpoints in every byte class, and all other files."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from zipfile import ZipFile

from tests.faults.bench import WRONG, Bench, Cell, Fault

PARTS = ("header", "pickle", "image", "history", "record's header", "directory", "end")
DAMAGES: dict[str, Callable[[bytes, range, Random], bytes]] = {
    "a bit flipped": lambda old, where, random: _flipped(old, random.choice(where), 1 << random.randrange(8)),
    "zeroed": lambda old, where, _: _zeroed(old, where[:4096]),
    "noise": lambda old, where, random: old[: where.start] + random.randbytes(len(where)) + old[where.stop :],
    "cut off": lambda old, where, random: old[: random.choice(where)],
    "a byte more": lambda old, where, random: _inserted(old, random.choice(where)),
}  # fmt: skip
WHOLE: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("not a checkpoint"),
    "JSON": lambda path: path.write_text("[1, 2]"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "noise": lambda path: path.write_bytes(Random(0).randbytes(10_000)),
    "another archive": lambda path: _archive(path),
    "a byte behind": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "deleted": lambda path: path.unlink(),
    "a folder": lambda path: _gone(path).mkdir(),
    "a link to nothing": lambda path: _gone(path).symlink_to("nothing"),
    "a link to itself": lambda path: _gone(path).symlink_to(path),
    "a link to /dev/zero": lambda path: _gone(path).symlink_to("/dev/zero"),
    "a pipe": lambda path: os.mkfifo(_gone(path)),
    "a picture": lambda path: path.write_bytes(
        Path(__file__).parents[2].joinpath("data/style-images/church_at_auvers.jpg").read_bytes()
    ),
}
STATES = ("config.yaml", "checkpoints/begun.json", "checkpoints/progress.json", "checkpoints/finished/c1_s")
TEXTS: dict[str, bytes] = {
    "null": b"null",
    "a list": b"[1]",
    "a text": b"text",
    "not UTF-8": b"\xff\xfe\x00",
    "half a mapping": b'{"style_scale": 1.0, "up',
    "other types": b'{"finished": 3, "saved": 3, "style_scale": [], "data": 3, "model": [], "trainer": "x"}',
    "deep": b"[" * 100_000,
}


def cells() -> Iterator[Cell]:
    """Yields the cells."""
    for part in PARTS:
        for damage in DAMAGES:
            change = partial(_damaged, part, damage)
            yield Cell("checkpoint", f"{part}: {damage}", partial(_resumed, change, False))
            if damage == "a bit flipped" or part == "image":
                yield Cell("checkpoint", f"{part}: {damage}, and the one before", partial(_resumed, change, True))
                yield Cell("checkpoint", f"{part}: {damage}, --ckpt_path", partial(_by_path, change))
    for name, act in WHOLE.items():
        yield Cell("checkpoint", name, partial(_resumed, partial(_acted, act), False))
        yield Cell("checkpoint", f"{name}, and the one before", partial(_resumed, partial(_acted, act), True))
        yield Cell("checkpoint", f"{name}, --ckpt_path", partial(_by_path, partial(_acted, act)))
    for state in STATES:
        acts: dict[str, Callable[[Path], object]] = {
            **WHOLE,
            **{name: partial(Path.write_bytes, data=text) for name, text in TEXTS.items()},
        }
        for name, act in acts.items():
            if name not in ("a byte behind", "JSON", "a picture", "another archive"):
                yield Cell("state", f"{state}: {name}", partial(_state, state, act))
    for name in ("c1_s.png", "checkpoints/finished", "checkpoints/before", "tensorboard", "steps", "checkpoints"):
        yield Cell("state", f"{name} deleted", partial(_without, name))
    yield Cell("state", "a finished run's picture deleted", _picture_deleted)
    yield Cell("state", "another photograph under the same name", _exchanged)
    for name, value in (
        ("style_weight", "9"),
        ("pooling", "avg"),
        ("optimizer", "adam"),
        ("seed", "4"),
        ("size", "48"),
    ):
        yield Cell("state", f"resumed with another {name}", partial(_other_settings, name, value))


def _gone(path: Path) -> Path:
    path.unlink()
    return path


def _flipped(old: bytes, place: int, bit: int) -> bytes:
    return old[:place] + bytes([old[place] ^ bit]) + old[place + 1 :]


def _zeroed(old: bytes, where: range) -> bytes:
    return old[: where.start] + bytes(len(where)) + old[where.stop :]


def _inserted(old: bytes, place: int) -> bytes:
    return old[:place] + b"\0" + old[place:]


def _archive(path: Path) -> None:
    with ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "text")


def _acted(act: Callable[[Path], object], path: Path, random: Random) -> None:
    act(path)


def _place(path: Path, part: str) -> range:
    """Returns where in a checkpoint's bytes a class of them lies."""
    with ZipFile(path) as archive:
        records = archive.infolist()
        directory, end = archive.start_dir, path.stat().st_size
    data = path.read_bytes()
    found = {}
    for record in records:
        at = record.header_offset
        start = at + 30 + sum(struct.unpack("<HH", data[at + 26 : at + 30]))
        found[record.filename.partition("/")[2]] = range(at, start), range(start, start + record.file_size)
    largest = max((name for name in found if name.startswith("data/")), key=lambda name: len(found[name][1]))
    return {
        "header": range(30),
        "pickle": found["data.pkl"][1],
        "image": found["data/0"][1],
        "history": found[largest][1],
        "record's header": found[largest][0][:30],
        "directory": range(directory, end - 22),
        "end": range(end - 22, end),
    }[part]


def _damaged(part: str, damage: str, path: Path, random: Random) -> None:
    path.write_bytes(DAMAGES[damage](path.read_bytes(), _place(path, part), random))


def _resumed(change: Callable[[Path, Random], None], both: bool, bench: Bench) -> str | None:
    """The checkpoint before is taken, or the pair begun anew, and a line names the damaged file."""
    whole, folder = bench.whole(), bench.unfinished()
    damaged = [folder / "checkpoints/c2_s.ckpt", folder / "checkpoints/before/c2_s.ckpt"][: 1 + both]
    for path in damaged:
        change(path, bench.random)
    ended = bench.started("fit", "--resume", "run").wait().expect(0)
    bench.compare(whole, folder)
    if left := [path.name for path in damaged if "c2_s.ckpt: " not in ended.err and os.path.lexists(path)]:
        raise Fault(WRONG, f"not a word of {left[0]}")
    return "not a word" if "c2_s.ckpt" not in ended.err else None


def _by_path(change: Callable[[Path, Random], None], bench: Bench) -> str:
    """It is refused in a line before anything is written, or, where the bytes are of no meaning, gone on from."""
    folder = bench.unfinished()
    path = folder / "checkpoints/c2_s.ckpt"
    change(path, bench.random)
    before = {each: each.lstat().st_mtime_ns for each in bench.folder.rglob("*")}
    command = [*bench.fit("c1", "c2", steps=40), "--output", "new", "--ckpt_path", str(path)]
    ended = bench.started(*command).wait().expect(2, 3)
    if ended.code == 3:  # of the other pair nothing was done
        return ended.err.strip().splitlines()[-1]
    if {each: each.lstat().st_mtime_ns for each in bench.folder.rglob("*")} != before:
        raise Fault(WRONG, "something was written")
    ended.refused(2)
    return ""


def _state(state: str, act: Callable[[Path], object], bench: Bench) -> str:
    """It is refused in a line, after which the run with the file put back goes on; or it goes on as it is."""
    whole, folder = bench.whole(), bench.unfinished()
    path = folder / state
    old = path.read_bytes() if path.is_file() else None
    path.write_bytes(old or b"")
    act(path)
    ended = bench.started("fit", "--resume", "run").wait().expect(0, 1, 2)
    if ended.code == 0:
        bench.compare(whole, folder)
        return "gone on"
    ended.refused(2)
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if old is not None:
        path.write_bytes(old)
    bench.go_on(whole, folder, [])
    return f"refused: {ended.err.strip()[11:].replace(str(bench.folder), '')[-80:]}"


def _without(name: str, bench: Bench) -> None:
    whole, folder = bench.whole(), bench.unfinished()
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    bench.go_on(whole, folder, [])


def _picture_deleted(bench: Bench) -> None:
    whole = bench.whole()
    folder = Path(shutil.copytree(whole, bench.folder / "run"))
    (folder / "c1_s.png").unlink()
    bench.go_on(whole, folder, [])


def _exchanged(bench: Bench) -> str:
    folder = bench.unfinished()
    images = [bench.folder / f"{name}.png" for name in ("c1", "c2", "s")]
    for image in images:
        shutil.copy(bench.shared / image.name, image)
    shutil.copy(bench.shared / "c3.png", images[1])
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(bench.shared), str(bench.folder)))
    return bench.started("fit", "--resume", "run").wait().refused(2).err.strip()[11:][-80:]


def _other_settings(name: str, value: str, bench: Bench) -> str:
    whole, folder = bench.whole(), bench.unfinished()
    ended = bench.started("fit", "--resume", "run", f"--{name}", value).wait()
    ended.refused(2)
    bench.go_on(whole, folder, [])
    return ended.err.strip()[11:].replace(str(bench.folder), "")[-80:]

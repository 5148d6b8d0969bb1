"""The films, read back with PyAV and Pillow, of runs that end well, are killed, or are resumed behind their end."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from PIL import Image, ImageSequence

from nst_lightning import images
from nst_lightning.batches import Step
from nst_lightning.callbacks import VideoWriter
from nst_lightning.callbacks.video import frame_steps, staged_frame_steps, write_film
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization, Reconstruction
from tests.callbacks.conftest import Run, fit
from tests.processes import apart

Pixels = np.ndarray[Any, Any]
NAMES = ("image_image_1", "image_image_2")
HOLD = 24  # how often an mp4 of 25 frames a second repeats its last
# Smooth, for what differs from pixel to pixel no codec keeps.
SMOOTH = images.resize(torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(1)), (24, 32)).clamp(0, 1)
ONE_PAIR: dict[str, Any] = {"content": SMOOTH, "stages": 1}
ROOT = Path(__file__).parents[2]
# A resumed run here does not always save checkpoints again, which Lightning warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


@dataclass
class Film:
    """What an mp4 says of itself, and its pictures (H, W, 3) in [0, 255]."""

    told: int
    seconds: float
    codec: str
    pixel_format: str
    size: tuple[int, int]
    pictures: list[Pixels]


def read(path: Path) -> Film:
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        context = stream.codec_context
        pictures = [rgb(frame.to_ndarray(), frame.height) for frame in container.decode(stream)]
        assert container.duration is not None
        size = context.height, context.width
        name, told = context.codec.name, stream.frames
        return Film(told, container.duration / 1e6, name, str(context.pix_fmt), size, pictures)


def rgb(planes: Pixels, height: int) -> Pixels:
    """BT.709 by hand, for PyAV 14 reads the colours of such files with another matrix."""
    width = planes.shape[1]
    luma = (planes[:height].astype(float) - 16) * 255 / 219
    halves = planes[height:].reshape(2, height // 2, width // 2).repeat(2, axis=1).repeat(2, axis=2)
    blue, red = (halves.astype(float) - 128) * 255 / 224
    green = luma - 0.1873 * blue - 0.4681 * red
    return np.stack([luma + 1.5748 * red, green, luma + 1.8556 * blue], axis=2).clip(0, 255)


def read_pillow(path: Path) -> tuple[list[Pixels], list[int]]:
    pictures, durations = [], []
    with Image.open(path) as film:
        for frame in ImageSequence.Iterator(film):
            pictures.append(np.asarray(frame.convert("RGB")).astype(float))
            durations.append(film.info["duration"])
    return pictures, durations


def distance(one: Pixels, other: Pixels) -> float:
    """The mean difference of 2 x 2 px, which is what yuv420p keeps of colours."""
    blocks = [
        picture.reshape(picture.shape[0] // 2, 2, picture.shape[1] // 2, 2, 3).mean(axis=(1, 3))
        for picture in (one, other)
    ]
    return float(np.abs(blocks[0] - blocks[1]).mean())


def frames_in(folder: Path, pictures: Sequence[Pixels]) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture.astype(np.uint8)).save(path)
    return paths


def plain(count: int, height: int, width: int) -> list[Pixels]:
    """Pictures of one colour each, getting redder and less blue."""
    return [np.full((height, width, 3), (20 * index, 60, 200 - 20 * index)) for index in range(count)]


class Results(Callback):
    """Keeps every step's first image, (H, W, 3) in [0, 255]."""

    def __init__(self) -> None:
        self.images: list[Pixels] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ImageOptimization)
        self.images.append(pl_module.result[0].permute(1, 2, 0).numpy() * 255)


class Kill(Callback):
    """Ends the process as nothing can prepare for."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        if trainer.global_step == 31:
            os.kill(os.getpid(), signal.SIGKILL)


def checkpoints(root: Path) -> ModelCheckpoint:
    return ModelCheckpoint(root / "checkpoints", filename="{step}", every_n_train_steps=1, save_top_k=-1)


def run_until_killed(root: Path) -> None:
    """What the killed process of a test runs."""
    fit(root, checkpoints(root), VideoWriter(), Kill(), steps=60, **ONE_PAIR)


# ---- films of runs ----


def test_a_film_of_60_steps_plays_and_shows_every_step(run: Run, tmp_path: Path) -> None:
    results, writer = Results(), VideoWriter()
    run(results, writer, steps=60, **ONE_PAIR)
    assert writer.written == [tmp_path / "image_image.mp4"]
    film = read(writer.written[0])
    assert (film.codec, film.pixel_format, film.size) == ("h264", "yuv420p", (24, 32))
    assert film.told == len(film.pictures) == 60 + HOLD
    assert film.seconds == pytest.approx((60 + HOLD) / 25, abs=0.001)
    for index in (0, 59, 60 + HOLD - 1):
        shown = [distance(film.pictures[index], image) for image in results.images]
        assert shown[min(index, 59)] < min(6, min(shown) + 1), index  # of 255; steps can be nearly alike
    assert shown[0] > 3 * shown[59]
    data = writer.written[0].read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # faststart
    assert [path.name for path in tmp_path.iterdir()] == ["image_image.mp4"]


def test_a_run_killed_half_way_and_resumed_gives_the_whole_film(run: Run, tmp_path: Path) -> None:
    assert apart(run_until_killed, tmp_path) == -signal.SIGKILL
    frames = sorted((tmp_path / "frames" / "image_image").iterdir())
    # Those before the last checkpoint are there; the next one may have been on its way.
    assert [path.name for path in frames][:30] == [f"{step:06d}.jpg" for step in range(1, 31)]
    assert not (tmp_path / "image_image.mp4").exists()

    saved = sorted((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.stem.split("=")[1]))
    assert saved[-1].stem == "step=30"
    last = frames[29].read_bytes()
    results = Results()
    run(VideoWriter(keep_frames=True), results, steps=60, ckpt_path=saved[-2], **ONE_PAIR)
    film = read(tmp_path / "image_image.mp4")
    assert film.told == len(film.pictures) == 60 + HOLD
    assert film.size == (24, 32)
    assert film.seconds == pytest.approx((60 + HOLD) / 25, abs=0.001)
    assert frames[29].read_bytes() == last  # the step was taken again, to the bit
    assert distance(film.pictures[59], results.images[-1]) < 6


def test_every_pair_of_a_batch_has_a_film_of_its_own_at_the_last_size(run: Run, tmp_path: Path) -> None:
    writer = VideoWriter(keep_frames=True)
    run(writer, batch_size=2)
    assert [path.name for path in writer.written] == [f"{name}.mp4" for name in NAMES]
    one, other = (read(path) for path in writer.written)
    assert one.told == other.told == 8 + HOLD
    assert one.size == other.size == (24, 32)
    assert distance(one.pictures[-1], other.pictures[-1]) > 10
    frames = sorted((tmp_path / "frames" / NAMES[1]).iterdir())
    sizes = [tuple(images.read(path).rgb.shape[2:]) for path in frames[4:]]
    assert len(frames) == 8
    assert sizes == [(24, 32)] * 4
    with Image.open(frames[0]) as coarse:
        assert coarse.size == (16, 12)


def test_a_resume_behind_the_film_leaves_it_and_one_before_it_makes_the_same(run: Run, tmp_path: Path) -> None:
    run(VideoWriter(), checkpoints(tmp_path))
    films = [tmp_path / f"{name}.mp4" for name in NAMES]
    before = [read(film).pictures for film in films]
    stamps = [film.stat().st_mtime_ns for film in films]
    again = VideoWriter()
    with pytest.warns(UserWarning, match=r"image_image_1\.mp4: is left as it was, for 3 of 8 frames are on disk"):
        run(again, ckpt_path=tmp_path / "checkpoints" / "step=5.ckpt")
    assert again.written == films[1:]
    assert films[0].stat().st_mtime_ns == stamps[0]
    assert films[1].stat().st_mtime_ns > stamps[1]
    assert np.array_equal(before[1], read(films[1]).pictures)
    assert not (tmp_path / "frames").exists()
    run(VideoWriter(), ckpt_path=tmp_path / "checkpoints" / "step=16.ckpt")  # of a run that is over
    assert np.array_equal(before[1], read(films[1]).pictures)


def test_a_film_begun_by_a_resume_says_what_it_lacks(run: Run, tmp_path: Path) -> None:
    run(checkpoints(tmp_path))
    with pytest.warns(UserWarning, match=r"image_image_2\.mp4: lacks its beginning, for 5 of 8 frames are on disk"):
        run(VideoWriter(), ckpt_path=tmp_path / "checkpoints" / "step=11.ckpt")
    assert read(tmp_path / f"{NAMES[1]}.mp4").told == 5 + HOLD
    with pytest.warns(
        UserWarning,
        match=r"image_image_2\.webp: is left as it was, for 1 of 8 frames are on disk, and a film has at least 2",
    ):
        run(VideoWriter("webp"), ckpt_path=tmp_path / "checkpoints" / "step=15.ckpt")


def test_a_run_told_to_stop_has_the_film_so_far_and_can_be_resumed(run: Run, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
            trainer.should_stop = trainer.global_step == 6

    run(VideoWriter(), Stop(), checkpoints(tmp_path))
    assert read(tmp_path / f"{NAMES[0]}.mp4").told == 6 + HOLD
    run(VideoWriter(), ckpt_path=tmp_path / "checkpoints" / "step=6.ckpt")
    assert [read(tmp_path / f"{name}.mp4").told for name in NAMES] == [8 + HOLD] * 2


def test_frames_of_an_earlier_run_are_not_taken_for_those_of_this_one(run: Run, tmp_path: Path) -> None:
    stale = tmp_path / "frames" / "image_image" / "000040.jpg"
    images.write(stale, torch.zeros(3, 24, 32))
    run(VideoWriter(keep_frames=True), steps=4, **ONE_PAIR)
    assert not stale.exists()
    assert read(tmp_path / "image_image.mp4").told == 4 + HOLD


def test_a_reconstruction_has_a_film_from_its_noise_on(run: Run, tmp_path: Path) -> None:
    results = Results()
    run(VideoWriter(), results, module=Reconstruction("relu1_1", tv_weight=0.0), steps=12, **ONE_PAIR)
    film = read(tmp_path / "image_image.mp4")
    assert film.told == 12 + HOLD
    content = SMOOTH[0].permute(1, 2, 0).numpy() * 255
    assert distance(film.pictures[-1], content) < distance(film.pictures[0], content) / 2


def test_a_long_run_has_no_more_frames_than_asked_for(run: Run, tmp_path: Path) -> None:
    run(VideoWriter(frames=4, keep_frames=True), steps=12, **ONE_PAIR)
    names = sorted(path.stem for path in (tmp_path / "frames" / "image_image").iterdir())
    assert names == ["000001", "000002", "000005", "000012"]
    assert read(tmp_path / "image_image.mp4").told == 4 + HOLD


# ---- without PyAV ----


def test_without_pyav_the_film_is_a_webp_and_one_line_says_why(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    results = Results()
    with pytest.warns(UserWarning, match=r"not installed.*WebP.*pip install 'nst-lightning\[video\]'"):
        run(VideoWriter(), results, steps=4, **ONE_PAIR)
    pictures, durations = read_pillow(tmp_path / "image_image.webp")
    assert durations == [40, 40, 40, 1000]
    assert distance(pictures[0], results.images[0]) < 6 < distance(pictures[0], results.images[-1])
    assert not (tmp_path / "image_image.mp4").exists()


def test_mp4_by_name_without_pyav_is_an_error_before_the_first_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    results = Results()
    with pytest.raises(
        InputError, match=r"^video: mp4 needs PyAV: pip install 'nst-lightning\[video\]'; webp does without$"
    ):
        run(VideoWriter("mp4"), results)
    assert results.images == []


# ---- which steps become frames ----


@pytest.mark.parametrize("frames", [2, 3, 10, 59, 60, 300])
@pytest.mark.parametrize("total", [1, 2, 3, 10, 59, 60, 61, 300, 1000, 12345])
def test_frames_are_dense_at_first_and_never_more_than_asked_for(total: int, frames: int) -> None:
    steps = frame_steps(total, frames)
    assert len(steps) == min(total, frames)
    assert (steps[0], steps[-1]) == (1, total)
    assert steps == tuple(sorted(set(steps)))
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    assert all(later >= gap - 1 for gap, later in itertools.pairwise(gaps))  # but for rounding, they only grow
    if total > frames:
        every_one = frames**2 // total // 2  # the docstring's, with some reserve
        assert steps[:every_one] == tuple(range(1, every_one + 1))
        assert max(gaps) <= 2 * (total - 1) / (frames - 1) + 1


def test_frame_steps_of_a_small_case_by_hand() -> None:
    assert frame_steps(100, 10) == (1, 2, 5, 12, 20, 31, 45, 60, 79, 100)


@pytest.mark.parametrize(
    ("stages", "frames", "expected"),
    [
        ([3, 4], 300, (1, 2, 3, 4, 5, 6, 7)),
        ([30, 30], 8, (1, 4, 13, 30, 31, 34, 43, 60)),
        ([1, 1, 100], 2, (1, 2, 3, 102)),
        ([50], 3, (1, 13, 50)),
    ],
)
def test_every_stage_begins_densely(stages: list[int], frames: int, expected: tuple[int, ...]) -> None:
    assert staged_frame_steps(stages, frames) == expected


# ---- encoding ----


@pytest.mark.parametrize(("size", "even"), [((24, 33), (24, 34)), ((25, 32), (26, 32)), ((1, 1), (2, 2))])
def test_odd_sides_of_an_mp4_are_made_even_by_doubling_the_last_row(
    size: tuple[int, int], even: tuple[int, int], tmp_path: Path
) -> None:
    pictures = plain(10, *size)
    write_film(frames_in(tmp_path, pictures), tmp_path / "film.mp4", 25, size)
    film = read(tmp_path / "film.mp4")
    assert film.size == even
    for shown, picture in zip(film.pictures, pictures, strict=False):
        assert np.abs(shown - picture[0, 0]).max() <= 4  # the matrix and the range are right, at the edges too


def test_colours_of_large_mp4s_are_right_too(tmp_path: Path) -> None:
    pictures = plain(2, 720, 1280)  # where a player that is told nothing changes the matrix
    write_film(frames_in(tmp_path, pictures), tmp_path / "film.mp4", 25, (720, 1280))
    with av.open(str(tmp_path / "film.mp4")) as container:
        frame = next(container.decode(video=0))
    assert np.abs(rgb(frame.to_ndarray(), 720) - pictures[0][0, 0]).max() <= 4
    assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)


def test_webp_keeps_odd_sizes_order_and_time(tmp_path: Path) -> None:
    pictures = plain(7, 25, 33)
    path = tmp_path / "film.WEBP"
    write_film(frames_in(tmp_path, pictures), path, 30, (25, 33))
    shown, durations = read_pillow(path)
    assert [picture.shape for picture in shown] == [(25, 33, 3)] * 7
    assert all(np.abs(one - other).max() <= 12 for one, other in zip(shown, pictures, strict=True))
    assert sum(durations[:-1]) == 200  # not 6 times 33
    assert durations[-1] == 1000


def test_frames_of_other_sizes_are_resized_and_rates_are_kept(tmp_path: Path) -> None:
    frames = frames_in(tmp_path, [*plain(1, 6, 8), *plain(2, 24, 32), *plain(3, 48, 64)])
    write_film(frames, tmp_path / "film.mp4", 12.5, (24, 32))
    film = read(tmp_path / "film.mp4")
    assert film.size == (24, 32)
    assert film.seconds == pytest.approx((6 + 11) / 12.5, abs=0.001)


def test_strange_names_are_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"pipe:1%03d é {'n' * 230}.mp4")  # as long as a name can be, and to FFmpeg another protocol
    write_film(frames_in(tmp_path, plain(2, 24, 32)), path, 25, (24, 32))
    assert read(tmp_path / path).told == 2 + HOLD


class Frames(list[Path]):
    """Three hundred frames, out of ten files, and the process's `sizes` in MiB as each is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(sorted(folder.glob("*.png")))
        self.sizes: list[float] = []

    def __len__(self) -> int:
        return 300

    def __iter__(self) -> Iterator[Path]:
        return (self[index] for index in range(300))

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - a list's
        self.sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20)
        return super().__getitem__(index % 10)


def measure(folder: Path) -> None:
    """Writes how large the process is as it writes films."""
    found = {}
    for suffix in (".webp", ".mp4"):
        frames = Frames(folder)
        write_film(frames, folder / f"film{suffix}", 25, (240, 320))
        found[suffix] = frames.sizes
    (folder / "sizes.json").write_text(json.dumps(found))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's size as Linux gives it")
def test_a_film_of_300_frames_takes_the_memory_of_one_of_100(tmp_path: Path) -> None:
    frames_in(tmp_path, plain(10, 240, 320))
    assert apart(measure, tmp_path) == 0
    told = json.loads((tmp_path / "sizes.json").read_text())
    assert [*told] == [".webp", ".mp4"]
    for suffix, sizes in told.items():
        assert len(sizes) >= 300
        # 200 more frames are 44 MiB decoded; what a WebP's encoder keeps of them is compressed.
        assert max(sizes) - max(sizes[:101]) < 12, suffix


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "gif"}, r"^video must be true, mp4 or webp, got 'gif'$"),
        ({"frames": 1}, r"^video: frames must be at least 2, got 1$"),
        ({"fps": 0}, r"^video: fps must be from 0\.1 to 120, got 0$"),
        ({"fps": float("nan")}, r"^video: fps must be from 0\.1 to 120, got nan$"),
    ],
)
def test_refuses_what_makes_no_film_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VideoWriter(**options)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("film.webp", (1, 20000), r"film\.webp: the film cannot be written \(.+\)$"),
        ("0.png/film.mp4", (24, 32), r"film\.mp4: the film cannot be written \(.*File exists"),
        ("0.png/film.webp", (24, 32), r"film\.webp: the film cannot be written \(.*File exists"),
    ],
)
def test_refuses_what_cannot_be_encoded_in_one_line(
    name: str, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    frames = frames_in(tmp_path, plain(2, 24, 32))
    with pytest.raises(InputError, match=message) as caught:
        write_film(frames, tmp_path / name, 25, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_a_damaged_frame_is_an_error_and_the_film_before_stays(suffix: str, tmp_path: Path) -> None:
    frames = frames_in(tmp_path, plain(3, 24, 32))
    frames[2].write_bytes(frames[2].read_bytes()[:60])
    film = tmp_path / f"film{suffix}"
    film.write_bytes(b"earlier")
    with pytest.raises(InputError, match=re.escape(f"{film}: the film cannot be written (")):
        write_film(frames, film, 25, (24, 32))
    assert film.read_bytes() == b"earlier"
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".nst*"))

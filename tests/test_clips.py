"""Films read and written: times, colours, sound packet by packet, and what is no film."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from nst_lightning import clips
from nst_lightning.clips import Clock
from nst_lightning.errors import InputError
from tests.benchmarks.film import clip

SIZE = (24, 32)


def plain(colours: Sequence[tuple[int, int, int]]) -> list[Image.Image]:
    return [Image.new("RGB", SIZE[::-1], colour) for colour in colours]


def read(path: Path, side: int = 100) -> tuple[Clock, list[Image.Image]]:
    found: dict[int, Image.Image] = {}
    clock = clips.unpack(path, side, found.__setitem__)
    assert [*found] == [*range(1, len(found) + 1)]
    return clock, [*found.values()]


def seconds(clock: Clock) -> list[Fraction]:
    return [time * clock.base for time in clock.times]


def sound_of(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.dts is not None]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        assert container.duration is not None
        return float(container.duration) / 1e6


@pytest.mark.parametrize("suffix", clips.FORMATS)
def test_a_film_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
    path = tmp_path / f"film{suffix}"
    clips.write(plain(colours), path, clips.FORMATS[suffix], Clock.even(Fraction(30000, 1001), 3), SIZE)
    clock, pictures = read(path)
    assert float(clock.rate) == pytest.approx(30000 / 1001, rel=1e-3)
    assert [float(time) for time in seconds(clock)] == pytest.approx([0, 1001 / 30000, 2002 / 30000], abs=6e-4)
    for picture, colour in zip(pictures, colours, strict=True):
        assert picture.size == SIZE[::-1]
        assert np.abs(np.asarray(picture, float).mean(axis=(0, 1)) - colour).max() < 4


def test_sound_times_and_duration_are_kept(tmp_path: Path) -> None:
    source = clip(tmp_path / "clip.mp4", 12, 64)
    clock, pictures = read(source, side=32)
    assert clips.has_sound(source, "mp4")
    for suffix, form in clips.FORMATS.items():
        path = tmp_path / f"copy{suffix}"
        clips.write(pictures, path, form, clock, SIZE, source)
        assert [data for _, data in sound_of(path)] == [data for _, data in sound_of(source)]
        again, _ = read(path)
        # In Matroska times are whole milliseconds, and none is below 0, as that of what AAC begins with.
        late, apart = (float(sound_of(path)[0][0] - sound_of(source)[0][0]), 1e-3) if suffix == ".mkv" else (0, 0)
        expected = [float(time) + late for time in seconds(clock)]
        assert [float(time) for time in seconds(again)] == pytest.approx(expected, abs=apart)
        assert duration(path) == pytest.approx(duration(source), abs=0.03)
        if apart == 0:
            assert sound_of(path) == sound_of(source)


def test_frames_at_uneven_times_stay_there(tmp_path: Path) -> None:
    clock = Clock(Fraction(10), Fraction(1, 1000), (0, 100, 350, 400))
    clips.write(plain([(50 * i, 100, 100) for i in range(4)]), tmp_path / "film.mp4", "mp4", clock, SIZE)
    again, _ = read(tmp_path / "film.mp4")
    assert seconds(again) == seconds(clock)


def test_frames_are_reduced_to_the_side_and_not_enlarged(tmp_path: Path) -> None:
    clips.write(plain([(1, 2, 3)] * 2), tmp_path / "film.mp4", "mp4", Clock.even(25, 2), SIZE)
    assert {picture.size for picture in read(tmp_path / "film.mp4", side=16)[1]} == {(16, 12)}
    assert {picture.size for picture in read(tmp_path / "film.mp4", side=64)[1]} == {(32, 24)}


def test_what_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film\n" * 100)
    with pytest.raises(InputError, match=r"text\.mp4: cannot be decoded \(.*\); expected a film"):
        read(tmp_path / "text.mp4")
    with pytest.raises(InputError, match=r"gone\.mp4: cannot be decoded"):
        read(tmp_path / "gone.mp4")
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match=r"photo\.png: has 1 frames; expected a film, or --walk N"):
        read(tmp_path / "photo.png")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", 8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match=r"sound\.wav: has no pictures; expected a film"):
        read(tmp_path / "sound.wav")


def test_pictures_that_there_is_no_decoder_for(tmp_path: Path) -> None:
    source = clip(tmp_path / "clip.mp4", 3, 64)
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(source.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(InputError, match=r"odd\.mp4: there is no decoder for its pictures"):
        read(odd)


def test_a_film_that_breaks_off(tmp_path: Path) -> None:
    source = clip(tmp_path / "clip.mp4", 12, 64)
    (tmp_path / "cut.mp4").write_bytes(source.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cut\.mp4: cannot be decoded"):
        read(tmp_path / "cut.mp4")


def test_sound_that_the_format_cannot_hold_is_told_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", 25)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 24, "yuv420p"
        sound = container.add_stream("pcm_u8", 44100, layout="mono")
        for picture in plain([(1, 2, 3)] * 2):
            container.mux(pictures.encode(av.VideoFrame.from_image(picture)))  # type: ignore[no-untyped-call]
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.uint8), "u8", "mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux([*pictures.encode(None), *sound.encode(None)])
    with pytest.raises(InputError, match=r"its sound \(pcm_u8\) cannot be kept in mp4; let --output end in \.mkv"):
        clips.has_sound(path, "mp4")
    assert clips.has_sound(path, "matroska")

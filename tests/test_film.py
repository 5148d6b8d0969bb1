"""Which frame is painted from what: chunks, walks, and what is shown where chunks overlap."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from nst_lightning.clips import Clock
from nst_lightning.errors import InputError
from nst_lightning.film import Chunk, Film, walked
from nst_lightning.pairs import read_pairs


@pytest.mark.parametrize(("count", "chunks", "overlap"), [(48, 1, 8), (48, 4, 8), (50, 7, 3), (9, 4, 1), (5, 5, 0)])
def test_chunks_cover_all_frames_and_overlap(count: int, chunks: int, overlap: int) -> None:
    dealt = Chunk.deal(count, chunks, overlap)
    assert len(dealt) == chunks
    assert (dealt[0].first, dealt[0].fades, dealt[-1].last) == (1, 0, count)
    for one, other in pairwise(dealt):
        assert other.first == one.last + 1 - overlap
        assert other.fades == overlap
    own = [chunk.last - chunk.first + 1 - chunk.fades for chunk in dealt]
    assert sum(own) == count
    assert max(own) - min(own) <= 1
    names = [chunk.name(number) for chunk in dealt for number in range(chunk.first, chunk.last + 1)]
    assert len({*names}) == len(names)


@pytest.mark.parametrize(
    ("chunks", "overlap", "told"),
    [
        (0, 8, "chunks must be at least 1, got 0"),
        (2, -1, "overlap must be at least 0, got -1"),
        (6, 8, "chunks must be longer than their overlap of 8, got 6 of 48 frames"),
    ],
)
def test_chunks_that_cannot_be(chunks: int, overlap: int, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Chunk.deal(48, chunks, overlap)


def test_a_walk_goes_in_even_steps_from_each_style_to_the_next() -> None:
    assert [walked(index, 5, 2) for index in range(5)] == [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]]
    three = [walked(index, 5, 3) for index in range(5)]
    assert three == [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]


def film_of(folder: Path, count: int, chunks: int = 1, overlap: int = 0) -> Film:
    parts = tuple(Chunk.deal(count, chunks, overlap))
    return Film(folder, Clock.even(Fraction(24), count), parts, None, folder / "film.mp4")


def test_each_frame_is_painted_from_the_one_before(tmp_path: Path, content_png: Path, style_png: Path) -> None:
    film = film_of(tmp_path, 6, 2, 1)
    film.unpacked(tmp_path, 0).parent.mkdir()
    for number in range(1, 7):
        Image.open(content_png).save(film.unpacked(tmp_path, number))
    pairs = read_pairs(film.rows(None, [style_png, style_png], 12))
    assert [pair.name for pair in pairs] == [
        *(f"frame_00000{n}" for n in (1, 2, 3)),
        *(f"frame_00000{n}_from_000003" for n in (3, 4, 5, 6)),
    ]
    assert [pair.before is None for pair in pairs] == [True, False, False, True, False, False, False]
    assert [pair.steps for pair in pairs] == [None, 12, 12, None, 12, 12, 12]
    assert pairs[4].content == film.unpacked(tmp_path, 4)
    assert pairs[4].before == (film.run.picture("frame_000003_from_000003"), film.unpacked(tmp_path, 3))
    assert {pair.style_weights for pair in pairs} == {()}
    again = read_pairs([pairs[4].row])  # as a picture's recipe has it
    assert (again[0].before, again[0].steps, again[0].name) == (pairs[4].before, 12, pairs[4].name)


def test_frames_of_a_walk_are_of_one_photograph(tmp_path: Path, content_png: Path, style_png: Path) -> None:
    film = film_of(tmp_path, 3)
    pairs = read_pairs(film.rows(content_png, [style_png, content_png], 5))
    assert [pair.style_weights for pair in pairs] == [(1, 0), (0.5, 0.5), (0, 1)]
    assert pairs[2].before == (film.run.picture("frame_000002"), content_png)


def test_a_chunk_fades_into_the_next(tmp_path: Path) -> None:
    film = film_of(tmp_path, 8, 2, 3)
    film.run.folder.mkdir()
    for chunk, grey in zip(film.chunks, (0, 200), strict=True):
        for number in range(chunk.first, chunk.last + 1):
            Image.new("RGB", (16, 16), (grey, grey, grey)).save(film.run.picture(chunk.name(number)))
    shown = [int(picture.getpixel((0, 0))[0]) for picture in film.pictures()]  # type: ignore[index]
    assert shown == [0, 50, 100, 150, 200, 200, 200, 200]


def test_a_film_is_read_as_it_was_noted(tmp_path: Path) -> None:
    film = film_of(tmp_path, 8, 2, 3)
    film.write()
    assert Film.read(tmp_path) == film
    (tmp_path / "film.json").write_text("{}")
    with pytest.raises(InputError, match=r"is not the folder of a film, for it has no film\.json of nst film"):
        Film.read(tmp_path)

"""Lists of pairs: cells of all kinds under columns of all kinds, and mutated lists."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from nst_lightning.pairs import COLUMNS, read_pairs
from tests.fuzzers.mutations import mutated
from tests.fuzzers.texts import NUMBERS, odd

_WHOLE = (
    b"content,style\ntemple,night_cafe\n",
    b"content;style;name;size;steps;seed\nphoto.png;photo.png|photo.png;a;64;9;3\n# no pair\n\n",
    b"\xef\xbb\xbfcontent\tstyle\tname\tcontent_weight\tstyle_weight\ttv_weight\n"
    b'photo.png\tphoto.png\t"a ""b"""\t1\t2.5\t1e-3\n',
    b"content,style,name,style_weights,init,size\r\nphoto.png,photo.png|photo.png,x,1|0.5,gaussian,48\r\n",
)

_CELL = st.sampled_from(["photo.png", "a|b", "photo.png|photo.png", "1|2", "-1", "nan"]) | NUMBERS | NUMBERS | odd(20)
_OTHERS = st.lists(st.sampled_from([*COLUMNS[2:], "Size"]), max_size=4, unique=True)


def feed(path: Path) -> None:
    """Reads a list of pairs."""
    path.with_name("photo.png").touch()  # images are looked up, not read
    pairs = read_pairs(path)
    names = [pair.name for pair in pairs]
    assert len({name.casefold() for name in names}) == len(names), "two pairs of one name"
    for pair in pairs:
        str(pair.settings)


@st.composite
def _made(draw: st.DrawFn) -> bytes:
    delimiter = draw(st.sampled_from(",;\t"))
    others = draw(_OTHERS)
    columns = ["content", "style", *others]
    lines = [delimiter.join(columns)]
    for _ in range(draw(st.integers(1, 2))):
        cells = [
            "photo.png",
            draw(st.sampled_from(["photo.png", "photo.png|photo.png"])),
            *(draw(_CELL) for _ in others),
        ]
        lines.append(delimiter.join(cells))
    return (
        draw(st.sampled_from(["\n", "\r\n", "\r"]))
        .join(lines)
        .encode(draw(st.sampled_from(["utf-8"] * 3 + ["utf-16"])), "surrogatepass")
    )


def inputs() -> st.SearchStrategy[tuple[str, bytes]]:
    """Returns what a list may hold."""
    return st.tuples(st.just(".csv"), _made() | mutated(_WHOLE) | st.binary(max_size=60))

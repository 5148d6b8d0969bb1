"""Pairs of content and style images: the files they are read from, their names, and what each sets for itself."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nst_lightning import images, initializers
from nst_lightning.cards import is_card
from nst_lightning.colors import COLORS
from nst_lightning.errors import InputError
from nst_lightning.files import CONTENT_FOLDER, MASK_FOLDER, STYLE_FOLDER, Images, find, known_names, sample
from nst_lightning.recipe import portable
from nst_lightning.regions import ALPHA, WHOLE, Mask, check_colour
from nst_lightning.runs import regular

Pairing: TypeAlias = Literal["zip", "product"]
GROUPS = ("content", "style", "tv", "temporal")
_WEIGHTS = tuple(f"{group}_weight" for group in GROUPS)
_OF_REGIONS = ("content_mask", "style_mask", "regions", "content_weights")
COLUMNS = (
    *("content", "style", "name", *_WEIGHTS, "strength", "style_weights", "style_scale"),
    *("size", "steps", "init", "seed", "before", "colors", *_OF_REGIONS),
)
"""The columns that `read_pairs` knows; the first two are required."""
MAX_NAME = 200  # bytes of UTF-8; file systems allow 255, and outputs add a suffix or a number

_RESERVED = frozenset('/\\<>:"|?*')  # on Windows; the first of them everywhere
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows, whatever the suffix
_CONTROLS = frozenset({"Cc", *"LRE RLE LRO RLO PDF LRI RLI FSI PDI".split()})  # the latter turn the reading direction
_STYLE_WEIGHTS = "a finite number, 0 or above, for each style, and one of them above 0"
_MASK_WORDS = (ALPHA, WHOLE)
_STYLE_SCALES = "a finite number above 0 for each style"
_WHOLE = (int, lambda value: 1 <= value < 2**31, "a whole number from 1 to 2**31 - 1")
_SEED = (int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2**63 - 1")
_WEIGHT = (float, lambda value: 0 <= value < math.inf, "a finite number, 0 or above")
_STRENGTH = (float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


@dataclass(frozen=True, eq=False)  # comparing tensors with == has no single truth value
class Pair:
    """One content image, the style images that it is painted in, and what it has of its own instead of the run's.

    Attributes:
        content: The content image: a file, a PIL image or a tensor, see `images.read`.
        styles: The style images or cards, at least one; their statistics are merged by weight.
        name: What the outputs are called.
        weights: Weights by group, one of `GROUPS`; finite, >= 0. A group that is missing has the run's.
        size: Long side of the output in pixels, >= 1; None for the run's, as below.
        steps: Number of optimiser steps, >= 1.
        init: What the optimisation starts from, one of `initializers.INITIALIZERS` or a picture's file.
        seed: Seed of the noise, in [0, 2**63 - 1].
        style_weights: The weight of each style image, finite and >= 0 with a sum above 0; empty for equal ones. Of
            styles in regions, a factor of the style's weight in its own.
        before: Of a frame of a film, the one before: the file of its picture, which need not be there before this pair
            begins, and its content image. The optimisation starts from it, at the last stage.
        colors: Whose colours the picture is in, one of `colors.COLORS`.
        strength: How far to go from the photograph, 0, to the painting, 1: what the weight `style` is found by, where
            there is none; None where it is not.
        content_mask: Where each style counts in the content image: a grey image for each, or one with a colour for
            each, or `alpha`; none for all styles everywhere, merged.
        style_mask: Where each style is taken from, likewise, or `none` for all of it; none for all of all.
        regions: The colour of each style's region in masks that are in colours.
        content_weights: A factor of the content's weight in each region, finite and >= 0; empty for 1.
        style_scales: The long side of each style image as a multiple of the output's, finite, > 0; empty for the run's.

    Raises:
        InputError: If the weights or scales of the style images, the strength or the masks are not as above.
    """

    content: images.Source
    styles: tuple[images.Source, ...]
    name: str
    # Not a MappingProxyType: it can be neither pickled nor deep-copied.
    weights: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None
    steps: int | None = None
    init: str | None = None
    seed: int | None = None
    style_weights: tuple[float, ...] = ()
    before: tuple[Path, images.Source] | None = None
    colors: str | None = None
    strength: float | None = None
    content_mask: tuple[images.Source, ...] = ()
    style_mask: tuple[images.Source, ...] = ()
    regions: tuple[str, ...] = ()
    content_weights: tuple[float, ...] = ()
    style_scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.style_weights != () and not _can_weigh(len(self.styles), self.style_weights):
            raise InputError(f"pair {self.name}: style_weights must be {_STYLE_WEIGHTS}, got {self.style_weights}")
        if self.style_scales != () and not _can_scale(len(self.styles), self.style_scales):
            raise InputError(f"pair {self.name}: style_scale must be {_STYLE_SCALES}, got {self.style_scales}")
        if self.strength is not None and not _STRENGTH[1](self.strength):
            raise InputError(f"strength must be {_STRENGTH[2]}, got {self.strength}")
        if told := self._wrong_regions():
            raise InputError(f"pair {self.name}: {told}")

    def _wrong_regions(self) -> str:
        """Returns what is wrong with the regions, empty where nothing is."""
        count, masks, of_styles = len(self.styles), len(self.content_mask), len(self.style_mask)
        if self.regions:
            for colour in self.regions:
                check_colour(colour)
            if masks + of_styles == 0:
                return "regions are colours in masks: name those with content_mask"
            if len(self.regions) != count or len(set(self.regions)) != count:
                return f"regions must name a colour for each of {count} styles, got {', '.join(self.regions)}"
            if masks > 1 or of_styles not in (0, 1, count):
                return f"masks in colours must be one for the content, and one a style, got {masks} and {of_styles}"
        elif masks not in (0, count) or of_styles not in (0, count):
            return f"masks must be one for each of {count} styles, or in colours, see regions; got {masks or of_styles}"
        if any(mask is not None and is_card(style) for style, mask in self.masked_styles):
            return "style_mask is of a painting, which a style card does not hold: say none for it"
        weights = self.content_weights
        if weights and not (masks > 0 and len(weights) == count and all(0 <= each < math.inf for each in weights)):
            return f"content_weights must be a finite number, 0 or above, for each region, got {weights}"
        return ""

    @property
    def regions_of_content(self) -> tuple[Mask, ...]:
        """The region of each style; none where all count everywhere."""
        return self._masks(self.content_mask) if self.content_mask else ()

    @property
    def masked_styles(self) -> tuple[tuple[images.Source, Mask | None], ...]:
        """The style images, each with the part of it that is looked at, None for all."""
        masks = self._masks(self.style_mask) if self.style_mask else [None] * len(self.styles)
        of_part = [None if mask is None or _is(mask.source, WHOLE) else mask for mask in masks]
        return tuple(zip(self.styles, of_part, strict=True))

    @property
    def masked(self) -> tuple[tuple[images.Source, Mask], ...]:
        """The images that have masks, with each of these."""
        of_content = [(self.content, mask) for mask in self.regions_of_content]
        return (*of_content, *((style, mask) for style, mask in self.masked_styles if mask is not None))

    def _masks(self, sources: tuple[images.Source, ...]) -> tuple[Mask, ...]:
        if self.regions == ():
            return tuple(Mask(source) for source in sources)
        each = sources * len(self.regions) if len(sources) == 1 else sources
        return tuple(Mask(*mask, self.regions) for mask in zip(each, self.regions, strict=True))

    @property
    def mask_files(self) -> tuple[images.Source, ...]:
        """The masks that are images of their own."""
        return tuple(mask for mask in (*self.content_mask, *self.style_mask) if not _is(mask, *_MASK_WORDS))

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What the pair has of its own beside its size and steps, by the name that the run's setting has."""
        of_styles = {"style_weights": self.style_weights, "style_scale": self.style_scales}
        listed = {name: "|".join(map(str, values)) or None for name, values in of_styles.items()}
        optional = {"strength": self.strength, **listed, "init": self.init, "seed": self.seed, "colors": self.colors}
        optional |= self._of_regions
        weights = {f"{group}_weight": weight for group, weight in self.weights.items()}
        return {**weights, **{name: value for name, value in optional.items() if value is not None}}

    def of_strength(self, strength: float) -> Pair:
        """Returns the pair of a run's strength, unless it has one, or a style weight, of its own."""
        return self if self.strength is not None or "style" in self.weights else replace(self, strength=strength)

    @property
    def _of_regions(self) -> dict[str, str | None]:
        """The cells of a row that say where the styles count, None where they are empty."""
        files = [[_told(mask) for mask in masks] for masks in (self.content_mask, self.style_mask)]
        cells = [*files, self.regions, self.content_weights]
        return {name: "|".join(map(str, cell)) or None for name, cell in zip(_OF_REGIONS, cells, strict=True)}

    @property
    def row(self) -> dict[str, str]:
        """The pair as a row for `read_pairs`, for other folders and machines too; its images must be files."""
        images = [_path(each) for each in (self.content, *self.styles)]
        own = {"size": self.size, "steps": self.steps, **self.settings}
        if self.name != _draft(*images):
            own["name"] = self.name
        if self.init is not None and self.init not in initializers.INITIALIZERS:
            own["init"] = portable(self.init)
        if self.before is not None:
            own["before"] = "|".join(portable(_path(each)) for each in self.before)
        if any("#" in colour for colour in self.regions):  # which YAML takes for a comment
            own["regions"] = "|".join(f'"{colour}"' for colour in self.regions)
        content, *styles = map(portable, images)
        cells = {name: str(value) for name, value in own.items() if value is not None}
        return {"content": content, "style": "|".join(styles), **cells}


def _is(mask: images.Source, *words: str) -> bool:
    return isinstance(mask, str) and mask in words


def _told(mask: images.Source) -> str:
    if _is(mask, *_MASK_WORDS):
        return str(mask)
    return portable(mask) if isinstance(mask, (str, os.PathLike)) else "image"


def _path(source: images.Source) -> str | os.PathLike[str]:
    assert isinstance(source, (str, os.PathLike))
    return source


def _can_weigh(styles: int, weights: Sequence[float]) -> bool:
    return len(weights) == styles and all(weight >= 0 for weight in weights) and 0 < sum(weights) < math.inf


def _can_scale(styles: int, scales: Sequence[float]) -> bool:
    return len(scales) == styles and all(0 < scale < math.inf for scale in scales)


def chosen(
    content: Images,
    style: Images,
    pairing: Pairing = "zip",
    listed: str | os.PathLike[str] | Sequence[Mapping[str, object]] | tuple[Pair, ...] | None = None,
    of_styles: Mapping[str, Any] | None = None,
) -> tuple[Pair, ...]:
    """Returns the pairs that a run's options name: of the images that `find` finds, see `pair_up`, or those of a list.

    A tuple is of pairs as they are. `of_styles` are lists of what each style has, see `Pair`, None where it has not:
    with anything but a `style_scale`, every content is painted in all styles together.

    Raises:
        InputError: If the images are named twice, or cannot be found, paired or read from the list.
    """
    given = {name: value for name, value in ({} if of_styles is None else of_styles).items() if value is not None}
    if listed is not None:
        if content is not None or style is not None:
            raise InputError(f"pairs {listed} names the images already: leave out content and style")
        if given:
            msg = "names the styles, which have columns for it: leave out"
            raise InputError(f"pairs {listed} {msg} {' and '.join(given)}")
        return listed if isinstance(listed, tuple) else read_pairs(listed)
    contents, styles = find("content", content, CONTENT_FOLDER), find("style", style, STYLE_FOLDER)
    own: dict[str, Any] = {name: _as_given(name, value) for name, value in given.items()}
    if "style_weights" in own and not _can_weigh(len(styles), own["style_weights"]):
        raise InputError(f"style_weights must be {_STYLE_WEIGHTS}, got {given['style_weights']} for {len(styles)}")
    scales = own.pop("style_scale", ())
    if scales and not _can_scale(len(styles), scales):
        raise InputError(f"style_scale must be {_STYLE_SCALES}, got {given['style_scale']} for {len(styles)}")
    if own:
        return _together(contents, styles, pairing, {**own, "style_scales": scales})
    pairs = pair_up(contents, styles, pairing)
    if not scales:
        return pairs
    # As in `pair_up`: a product, or a single one with all, goes through the styles again and again.
    every = [*scales] * (len(pairs) // len(styles))
    return tuple(replace(pair, style_scales=(scale,)) for pair, scale in zip(pairs, every, strict=True))


def _together(
    contents: Sequence[images.Source], styles: Sequence[images.Source], pairing: Pairing, own: Mapping[str, Any]
) -> tuple[Pair, ...]:
    """Returns a pair a content image, each of all styles, with what these have of their own."""
    if pairing == "product":
        raise InputError(f"pairing product paints a picture in each style, {min(own)} one in all: leave out one")
    masks = [name for name in own if name in _OF_REGIONS]
    if masks and len(contents) > 1:
        msg = f"{', '.join(masks)}: masks are of one content image, got {len(contents)}"
        raise InputError(f"{msg}: name each with its own in a list of pairs")
    names = _unique([_draft(content, *styles) for content in contents])
    return tuple(Pair(content, tuple(styles), name, **own) for content, name in zip(contents, names, strict=True))


def _as_given(name: str, value: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Returns what an option says of the styles as a pair has it."""
    if name in ("content_mask", "style_mask"):
        return tuple(find_masks(name, value))
    several = value if isinstance(value, (list, tuple)) else [value]
    if name == "regions":
        return tuple(part.strip(' "') for each in several for part in str(each).split(","))
    return tuple(map(float, several))


def find_masks(name: str, given: Images) -> list[images.Source]:
    """Returns the masks that were named, see `find`; those with a word for a mask as they are."""
    several: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    return [mask for each in several for mask in ([each] if _is(each, *_MASK_WORDS) else find(name, each, MASK_FOLDER))]


def pair_up(
    contents: Sequence[images.Source], styles: Sequence[images.Source], pairing: Pairing = "zip"
) -> tuple[Pair, ...]:
    """Returns the pairs of content and style images, under names of which no two are one file on any file system.

    `zip` pairs each content image with the style image at its place, and a single one with all; `product` pairs every
    content image with every style image, all styles of the first content first.

    Raises:
        InputError: If there is no such pairing; or, for `zip`, if there are several of both and not equally many.
    """
    if pairing not in ("zip", "product"):
        raise InputError(f"unknown pairing {pairing!r}; known are zip, product")
    every = pairing == "product" or 1 in (len(contents), len(styles))
    if not every and len(contents) != len(styles):
        given = f"{len(contents)} content images and {len(styles)} style images"
        raise InputError(f"{given}: as many of both, or one of either")
    chosen = list(product(contents, styles) if every else zip(contents, styles, strict=True))
    names = _unique([_draft(content, style) for content, style in chosen])
    return tuple(Pair(content, (style,), name) for (content, style), name in zip(chosen, names, strict=True))


def _draft(*sources: images.Source) -> str:
    return "_".join(Path(each).stem if isinstance(each, (str, os.PathLike)) else "image" for each in sources)


def _unique(names: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Shortens what is too long and numbers what occurs more than once, without taking the name of another."""
    names = [_shortened(name) for name in names]
    counts = Counter(map(_key, [*names, *reserved]))
    taken, numbers, unique = set(counts), {key: count(1) for key in counts}, []
    for name in names:
        key = _key(name)
        if counts[key] > 1:
            name = next(free for n in numbers[key] if _key(free := _shortened(name, f"_{n}")) not in taken)
            taken.add(_key(name))
        unique.append(name)
    return unique


def _key(name: str) -> str:
    """What two names share that are one file on some file system: case, Unicode's forms and last dots are ignored."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold()).rstrip(". ")


def _shortened(name: str, ending: str = "") -> str:
    room = MAX_NAME - len(ending)
    return (name if _bytes(name) <= room else name.encode(errors="ignore")[:room].decode(errors="ignore")) + ending


def _bytes(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))  # Python's stand-in for what is not UTF-8 in a file's name


def read_pairs(listed: str | os.PathLike[str] | Sequence[Mapping[str, object]]) -> tuple[Pair, ...]:
    """Reads a list of pairs: a CSV file whose first line names its columns, which are among `COLUMNS`, or such rows.

    It is UTF-8, its cells separated by comma, semicolon or tab. Empty lines and those that begin with # are skipped; an
    empty cell means the run's value, an empty `name` one made up of the files' names. Several styles, their weights in
    `style_weights` and their scales in `style_scale`, are separated by |. Files are looked up as in `find`, from the
    list's folder, or that of work.

    Raises:
        InputError: If the file cannot be read, has no pairs, or a line is not as above; it names the line.
    """
    if isinstance(listed, (str, os.PathLike)):
        path = Path(os.path.expanduser(listed))
        lines = _lines(path)
    else:
        path, lines = Path("pairs"), _as_lines(listed)
    if not lines:
        raise InputError(f"{path}: is empty; expected a line with the columns, e.g. {','.join(COLUMNS[:3])}")
    delimiter = max(",;\t", key=next(iter(lines.values())).count)
    columns: list[str] | None = None
    pairs: list[Pair] = []
    lines_of: dict[str, tuple[int, str]] = {}
    for number, line in lines.items():
        try:
            cells = _split(line, delimiter)
            if columns is None:
                columns = _checked_columns(cells)
            elif any(cells):  # else it is how a spreadsheet stores an empty row
                pairs.append(_pair(_by_column(columns, cells, delimiter), path.parent))
                _check_name(pairs[-1].name, number, lines_of)
        except InputError as err:
            raise InputError(f"{path} line {number}: {err}") from err
    if not pairs:
        raise InputError(f"{path}: has no pairs; expected a line for each below that of the columns")
    drafts = [_draft(pair.content, *pair.styles) for pair in pairs if pair.name == ""]
    made_up = iter(_unique(drafts, [pair.name for pair in pairs]))
    return tuple(replace(pair, name=pair.name or next(made_up)) for pair in pairs)


def _lines(path: Path) -> dict[int, str]:
    """The lines of a list by their numbers, without those that are empty or a comment."""
    try:
        text = regular(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        byte = f"byte 0x{err.object[err.start]:02x}"
        raise InputError(f"{path} line {line}: {byte} is not UTF-8; save the file as UTF-8") from err
    except (OSError, ValueError) as err:  # ValueError: a null character in the path
        reason = err.strerror if isinstance(err, OSError) else err
        raise InputError(f"{path}: cannot be opened ({reason}); expected a CSV file of pairs") from err
    # Not csv's own way over lines: a quote in a comment would swallow what follows.
    numbered = enumerate(io.StringIO(text, newline=None), start=1)
    return {number: line for number, line in numbered if line.strip() != "" and not line.lstrip().startswith("#")}


def _as_lines(rows: Sequence[Mapping[str, object]]) -> dict[int, str]:
    """Rows as the lines of a list, of which the first names the columns."""
    stream = io.StringIO()
    columns = dict.fromkeys(str(column) for row in rows for column in row)
    writer = csv.DictWriter(stream, [*columns], quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return dict(enumerate(stream.getvalue().splitlines()))


def _split(line: str, delimiter: str) -> list[str]:
    if "\0" in line:  # as Python 3.11 no longer does
        raise InputError("has a null character, which no name has")
    try:
        (cells,) = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error as err:
        raise InputError(f"cannot be split into cells ({err}); is a double quote left open?") from err
    return [cell.strip() for cell in cells]


def _checked_columns(columns: list[str]) -> list[str]:
    for column in columns:
        if column not in COLUMNS:
            raise InputError(f"unknown column {column!r}; known are {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise InputError(f"column {column!r} occurs {columns.count(column)} times; expected it once")
    for required in COLUMNS[:2]:
        if required not in columns:
            raise InputError(f"column {required!r} is missing; content and style are required")
    return columns


def _by_column(columns: Sequence[str], cells: Sequence[str], delimiter: str) -> dict[str, str]:
    """The cells of a line that are not empty."""
    if len(cells) != len(columns):
        expected = f"expected {len(columns)} cells separated by {delimiter!r}, as in the header"
        raise InputError(f"{expected}, got {len(cells)}")
    return {column: cell for column, cell in zip(columns, cells, strict=True) if cell != ""}


def _pair(cells: Mapping[str, str], base: Path) -> Pair:
    """The pair of a line; its name is empty where the line has none."""
    named = cells.get("style", "")
    styles = tuple(_file("style", name.strip(), named, base, STYLE_FOLDER) for name in named.split("|"))
    init = cells.get("init")
    if init is not None and init not in initializers.INITIALIZERS:
        init = os.path.abspath(base / os.path.expanduser(init))
        initializers.check(init)
    weights = {group: _value(cells, f"{group}_weight", *_WEIGHT) for group in GROUPS}
    strength = _value(cells, "strength", *_STRENGTH)
    if strength is not None and weights["style"] is not None:
        raise InputError("strength finds the style_weight: leave out one of them")
    weighed = (_numbers, partial(_can_weigh, len(styles)), _STYLE_WEIGHTS)
    scaled = (_numbers, partial(_can_scale, len(styles)), _STYLE_SCALES)
    factors = (_numbers, lambda weights: len(weights) == len(styles), "a number for each region")
    colours = cells.get("regions")
    return Pair(
        _file("content", cells.get("content", ""), "", base, CONTENT_FOLDER),
        styles,
        cells.get("name", ""),
        {group: weight for group, weight in weights.items() if weight is not None},
        _value(cells, "size", *_WHOLE),
        _value(cells, "steps", *_WHOLE),
        init,
        _value(cells, "seed", *_SEED),
        _value(cells, "style_weights", *weighed) or (),
        _before(cells.get("before"), base),
        _value(cells, "colors", str, COLORS.__contains__, f"one of {', '.join(COLORS)}"),
        strength,
        _masks("content_mask", cells, base),
        _masks("style_mask", cells, base),
        () if colours is None else tuple(colour.strip(' "') for colour in colours.split("|")),
        _value(cells, "content_weights", *factors) or (),
        _value(cells, "style_scale", *scaled) or (),
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split("|")))


def _masks(column: str, cells: Mapping[str, str], base: Path) -> tuple[images.Source, ...]:
    if column not in cells:
        return ()
    names = (name.strip() for name in cells[column].split("|"))
    return tuple(
        name if _is(name, *_MASK_WORDS) else _file(column, name, cells[column], base, MASK_FOLDER) for name in names
    )


def _before(cell: str | None, base: Path) -> tuple[Path, Path] | None:
    """The picture and the content image of the frame before."""
    if cell is None:
        return None
    picture, _, content = cell.partition("|")
    return base / os.path.expanduser(picture.strip()), _file("before", content.strip(), cell, base, CONTENT_FOLDER)


def _value(
    cells: Mapping[str, str], column: str, convert: Callable[[str], Any], fits: Callable[[Any], bool], allowed: str
) -> Any:  # noqa: ANN401
    """The number or numbers in a cell, None where it is empty."""
    if column not in cells:
        return None
    with contextlib.suppress(ValueError):
        value = convert(cells[column])
        if fits(value):
            return value
    raise InputError(f"{column} must be {allowed}, got {cells[column]!r}")


def _file(column: str, name: str, cell: str, base: Path, folder: Path) -> Path:
    if name == "":
        raise InputError(f"{column} must name an image, got {cell!r}")
    name = os.path.expanduser(name)
    found = base / name if os.path.isfile(base / name) else sample(Path(name), folder)
    if found is not None:
        return found
    if Path(name).parent != Path():
        raise InputError(f"{column} must name an image, got {name!r}; there is no file {str(base / name)!r}")
    raise InputError(f"{column} image {name!r} is neither in {base} nor in {folder}{known_names(folder)}")


def _check_name(name: str, number: int, lines: dict[str, tuple[int, str]]) -> None:
    """Refuses a name that cannot be a file's on every file system, or that an earlier line has."""
    kinds = {kind for each in name for kind in (unicodedata.category(each), unicodedata.bidirectional(each))}
    plain = _RESERVED.isdisjoint(name) and kinds.isdisjoint(_CONTROLS)
    taken = name.startswith("_run") or _DEVICES.fullmatch(name)  # by the run's own curves, or by a system
    if not plain or taken or name.startswith(".") or name.endswith(".") or _bytes(name) > MAX_NAME:
        allowed = (
            f"at most {MAX_NAME} bytes, no device's name, without control characters and {' '.join(sorted(_RESERVED))}"
        )
        raise InputError(f"name must be {allowed}, and neither begin with _run or a dot nor end with one, got {name!r}")
    first, same = lines.setdefault(_key(name), (number, name))
    if name != "" and first != number:
        got = f"{name!r} after {same!r} on line {first}"
        raise InputError(f"name must differ from every other by more than case, got {got}")

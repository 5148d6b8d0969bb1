"""An estimate in words, and times as people write them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import lightning as L
import torch

from nst_lightning import memory
from nst_lightning.batches import Batch
from nst_lightning.data import memory_for
from nst_lightning.errors import InputError
from nst_lightning.parallel import TileParallel
from nst_lightning.planning.estimate import Estimate, Row


def duration(text: str) -> float:
    """Returns the seconds in a text such as `90`, `90s`, `30m`, `1h` or `1h30m`.

    Raises:
        InputError: If it is no such text, or nothing at all.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip().replace(" ", ""))
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        msg = f"within must be a time above 0, as 90s, 30m or 1h30m, got {text!r}"
        raise InputError(msg)
    return float(total)


def text(estimate: Estimate, asked: L.Trainer, pictures: str, within: float | None = None) -> str:
    """Returns an estimate in words and a table.

    Args:
        estimate: The estimate.
        asked: The trainer of the run.
        pictures: Where the pictures would go.
        within: A wish in seconds that a number of devices is looked for to meet; None for no wish.
    """
    if not estimate.rows:
        return "nothing left to do"
    ranks, shared = asked.world_size, isinstance(asked.strategy, TileParallel)
    root = asked.strategy.root_device
    lines = [*_facts(estimate, asked, pictures), "", *_table(estimate.rows, memory_for(asked)), ""]
    times = {"time on 1 process": span(estimate.total)}
    if ranks > 1 and shared:
        times[f"time on {ranks} processes"] = f"{span(estimate.total / ranks)} at best, without what they exchange"
    elif ranks > 1:
        times[f"time on {ranks} processes"] = span(estimate.on(ranks))
    if within is not None:
        times[f"within {span(within)}"] = _shared(estimate, within) if shared else _dealt(estimate, within)
    lines += _aligned(times)
    lines.append("Starting up, and writing pictures and films, are not counted.")
    if root.type == "cpu" and (ranks > 1 or within is not None):
        threads = torch.get_num_threads()
        lines.append(f"Processes on one CPU share its cores; these times take {_many(threads, 'core')} for each.")
    return "\n".join(lines)


def span(seconds: float) -> str:
    """Returns a time in words, e.g. `3.4 s`, `12 min 05 s` or `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    (whole, part), units = divmod(round(seconds), 60), ("min", "s")
    if whole >= 60:
        (whole, part), units = divmod(round(seconds / 60), 60), ("h", "min")
    return f"{whole} {units[0]}" + (f" {part:02d} {units[1]}" if part else "")


def _facts(estimate: Estimate, asked: L.Trainer, pictures: str) -> list[str]:
    root = asked.strategy.root_device
    names = list(estimate.seconds)
    strategy = "tile_parallel" if isinstance(asked.strategy, TileParallel) else "pair_parallel"
    facts = {
        "pairs": f"{len(names)}" if len(names) > 1 else f"1 ({names[0]})",
        "batches": _batches(estimate.batches),
        "steps": f"{sum(row.batches * row.steps for row in estimate.rows)}",
        "processes": f"{asked.world_size}{f', {strategy}' if asked.world_size > 1 else ''}, on {root.type}",
        "memory": f"{_bytes(memory.available(root))} free; a process plans with {_bytes(memory_for(asked))}",
        "pictures": pictures,
    }
    return _aligned(facts)


def _batches(batches: Sequence[Batch]) -> str:
    alike = Counter((len(batch.pairs), batch.output_size(batch.stages[-1])) for batch in batches)
    kinds = [f"{number} of {_many(pairs, 'pair')} ({size[1]}x{size[0]} px)" for (pairs, size), number in alike.items()]
    hidden = [f"{len(kinds) - _KINDS_TOLD} more sizes"] if len(kinds) > _KINDS_TOLD else []
    return f"{len(batches)}: {', '.join(kinds[:_KINDS_TOLD] + hidden)}"


_KINDS_TOLD = 4  # on one line; the table has them all
_HEADS = (
    *("stage", "size", "batches x pairs", "steps", "tile", "halo", "overhead"),
    *("network", "state", "memory", "of free", "s/step", "time"),
)


def _table(rows: Sequence[Row], free: int) -> list[str]:
    """Returns the lines of the table, and what has to be said of it.

    Args:
        rows: The rows.
        free: The bytes that a process plans with.
    """
    cells = [_HEADS, *(_cells(row, free) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells]
    origins = {row.cost.measured_on: None for row in rows if row.cost.measured_on != row.kind}
    if origins:
        of = ", ".join(f"{_many(kind.count, 'image')} of {kind.width}x{kind.height} px" for kind in origins)
        lines.append(f"* not measured, but by the number of pixels from {of}")
    if any(row.needs.network + row.needs.state > free for row in rows):
        lines.append("! takes more memory than a process plans with: a smaller size, or --tile auto, would help")
    return lines


def _cells(row: Row, free: int) -> tuple[str, ...]:
    kind, needs = row.kind, row.needs
    taken = needs.network + needs.state
    if needs.tiles is None:
        tile, halo, overhead = "off", "-", "-"
    else:
        # Of the last of a row or column only one side counts, so the halo is that between two tiles.
        tile, halo = f"{needs.tiles.tile} px", f"{needs.tiles.before}+{needs.tiles.after} px"
        overhead = f"{needs.tiles.overhead(kind.height, kind.width):.2f}"
    return (
        str(row.stage),
        f"{kind.width}x{kind.height}",
        f"{row.batches} x {kind.count}",
        str(row.steps),
        *(tile, halo, overhead),
        *(_bytes(needs.network), _bytes(needs.state), _bytes(taken)),
        f"{100 * taken / max(1, free):.0f} %" + ("!" if taken > free else ""),
        f"{row.cost.step:.3g}" + ("*" if row.cost.measured_on != kind else ""),
        span(row.seconds),
    )


def _dealt(estimate: Estimate, within: float) -> str:
    ranks = estimate.ranks_within(within)
    longest = estimate.longest
    if ranks is None and longest is not None:
        alone = f"{', '.join(longest.names)} alone takes {span(estimate.of(longest))}"
        help = "fewer steps, a smaller size, or --strategy tile_parallel with --tile auto would help"
        return f"not with whole pairs on any number of devices: {alone}; {help}"
    assert ranks is not None
    how = " with --strategy pair_parallel" if ranks > 1 else ""
    return f"{_many(ranks, 'device')}{how} ({span(estimate.on(ranks))})"


def _shared(estimate: Estimate, within: float) -> str:
    ranks = max(1, math.ceil(estimate.total / within))
    return f"{_many(ranks, 'device')} at best ({span(estimate.total / ranks)})"


def _aligned(facts: Mapping[str, str]) -> list[str]:
    width = max(map(len, facts)) + 2
    return [f"{name:<{width}}{fact}" for name, fact in facts.items()]


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"

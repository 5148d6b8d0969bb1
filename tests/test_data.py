"""The data module: which pairs a run has, their stages, and the batches that each process takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_lightning import images, memory
from nst_lightning.data import PairDataModule, Worker, is_writer
from nst_lightning.errors import InputError
from nst_lightning.files import Images
from nst_lightning.image_files import ImageError
from nst_lightning.pairs import Pair
from nst_lightning.progress import Progress, Saved
from nst_lightning.schedule import Stage

STAGES = (Stage(32, 2), Stage(64, 1), Stage(96, 3))


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def module_of(content: Images, style: Images, **options: Any) -> PairDataModule:
    """Its annotations are those of the command line, which has no images in memory."""
    sources: dict[str, Any] = {"content": content, "style": style}
    return PairDataModule(**sources, **options)


def attach(data: PairDataModule, ranks: int = 1, rank: int = 0, **others: Any) -> None:
    """Gives the data module a trainer that is this process of so many."""
    shard = {"num_replicas": ranks, "rank": rank}
    trainer: Any = SimpleNamespace(global_step=0, distributed_sampler_kwargs=shard, **others)
    data.trainer = trainer


def names(data: PairDataModule) -> list[tuple[str, ...]]:
    return [batch.names for batch in data.batches]


# ---- which pairs ----


def test_names_are_looked_up_in_the_folders_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style_png: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in (("content-images", "a.jpg"), ("style-images", "x.png")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        shutil.copyfile(style_png, tmp_path / "data" / folder / name)
    (pair,) = PairDataModule("a", "x").pairs
    assert (pair.content, pair.styles) == (Path("data/content-images/a.jpg"), (Path("data/style-images/x.png"),))
    with pytest.raises(InputError, match=r"^content image x is neither here nor in data/content-images; .* a\.jpg$"):
        PairDataModule("x", "x")
    with pytest.raises(InputError, match=r"^no style image was given; name a file with --style"):
        PairDataModule("a")


def test_a_product_takes_every_content_with_every_style() -> None:
    contents, styles = [noise(32, 32), noise(32, 32)], [noise(32, 32), noise(32, 32), noise(32, 32)]
    data = module_of(contents, styles, pairing="product")
    assert [(id(pair.content), id(pair.styles[0])) for pair in data.pairs] == [
        (id(content), id(style)) for content in contents for style in styles
    ]
    with pytest.raises(InputError, match=r"^2 content images and 3 style images: as many"):
        module_of(contents, styles)


def test_pairs_are_read_from_a_list(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    content, style = pictures / "content.png", pictures / "style.png"
    path.write_text(
        f"content,style,name,size,steps,tv_weight\n{content},{style},one,,,\n{content},{style},two,32,5,3\n"
    )
    data = PairDataModule(pairs=str(path), size=64, steps=7, stages=1)
    assert [(pair.name, pair.content, pair.styles, pair.settings) for pair in data.pairs] == [
        ("one", content, (style,), {}),
        ("two", content, (style,), {"tv_weight": 3.0}),
    ]
    data.setup("fit")
    assert [(batch.names, batch.stages) for batch in data.batches] == [
        (("one",), (Stage(64, 7),)),
        (("two",), (Stage(32, 5),)),
    ]
    for given in ((str(content), None), (None, str(style))):
        with pytest.raises(InputError, match=r"pairs\.csv names the images already: leave out content and style$"):
            PairDataModule(content=given[0], style=given[1], pairs=str(path))


# ---- stages ----


def test_stages_come_from_size_and_steps_or_are_given() -> None:
    given = partial(module_of, noise(32, 32), noise(32, 32), size=64, steps=7)
    assert given().stages == (Stage(32, 3), Stage(64, 4))
    assert given(stages=1).stages == (Stage(64, 7),)
    listed = module_of(noise(32, 32), noise(32, 32), stages=list(STAGES))
    assert listed.stages == STAGES
    assert given(stages=list(STAGES), size=3 * 96, steps=15).stages == (Stage(96, 5), Stage(192, 3), Stage(288, 7))
    stages = "32 px x 2, 64 px x 1, 96 px x 3"
    assert listed.settings == {"stages": stages, "style_scale": 1.0, "colors": "style", "upscale": False}


@pytest.mark.parametrize(
    ("size", "steps", "expected"),
    [
        (None, None, STAGES),
        (96, 6, STAGES),
        (48, None, (Stage(16, 2), Stage(32, 1), Stage(48, 3))),
        (50, None, (Stage(17, 2), Stage(33, 1), Stage(50, 3))),
        (192, 12, (Stage(64, 4), Stage(128, 2), Stage(192, 6))),
        (1, None, (Stage(1, 2), Stage(1, 1), Stage(1, 3))),
        (None, 3, (Stage(32, 1), Stage(64, 1), Stage(96, 1))),
        (None, 60, (Stage(32, 20), Stage(64, 10), Stage(96, 30))),
    ],
)
def test_a_pairs_own_size_and_steps_scale_the_stages(
    size: int | None, steps: int | None, expected: tuple[Stage, ...]
) -> None:
    data = module_of(noise(32, 32), noise(32, 32), stages=list(STAGES))
    assert data.stages_of(Pair("c", ("s",), "p", size=size, steps=steps)) == expected


@pytest.mark.parametrize("shares", [(1, 1), (2, 1, 3), (1, 1, 1, 1, 96), (100, 1, 1), (1, 300, 2, 7)])
def test_a_pairs_own_steps_are_dealt_out_exactly(shares: tuple[int, ...]) -> None:
    data = module_of(noise(32, 32), noise(32, 32), stages=[Stage(32, steps) for steps in shares])
    for wanted in range(len(shares), 120):
        stages = data.stages_of(Pair("c", ("s",), "p", steps=wanted))
        assert sum(stage.steps for stage in stages) == wanted
        assert min(stage.steps for stage in stages) >= 1
        if wanted >= len(shares) * sum(shares) / min(shares):  # enough that none is held up by that
            for stage, share in zip(stages, shares, strict=True):
                assert abs(stage.steps - wanted * share / sum(shares)) <= 1


def test_a_pair_with_too_few_steps_is_refused_as_the_data_are_made(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"content,style,name,steps\n{pictures / 'content.png'},{pictures / 'style.png'},short,2\n")
    message = r"^pair short: steps must be at least the number of stages \(3\), got 2$"
    with pytest.raises(InputError, match=message):
        PairDataModule(pairs=str(path), stages=list(STAGES))


# ---- batches ----

SQUARE, TALL, WIDE = (32, 32), (48, 32), (32, 48)


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (1, [[0], [1], [2], [3], [4], [5]]),
        (2, [[0, 2], [4], [1], [3, 5]]),
        (3, [[0, 2, 4], [1], [3, 5]]),
        (9, [[0, 2, 4], [1], [3, 5]]),
    ],
)
def test_pairs_of_one_size_share_batches(batch_size: int, expected: list[list[int]]) -> None:
    sizes = [SQUARE, WIDE, SQUARE, TALL, SQUARE, TALL]
    data = module_of([noise(*size) for size in sizes], noise(40, 40), batch_size=batch_size, style_scale=0.5)
    assert not data.batches
    data.setup("fit")
    numbers = [[data.pairs.index(pair) for pair in batch.pairs] for batch in data.batches]
    assert sorted(numbers) == sorted(expected)
    if batch_size == 1:
        assert numbers == expected
    for batch, (first, *_) in zip(data.batches, numbers, strict=True):
        assert (batch.source_size, batch.style_scale, batch.upscale) == (sizes[first], 0.5, False)
        assert (batch.stages, batch.saved, batch.gallery) == (data.stages, None, data.gallery)


def test_outputs_of_one_size_share_batches_whatever_the_sources() -> None:
    # At 16 and 32 px, 64 x 96, 128 x 192 and 65 x 97 give the same; 68 x 96 does at 16 px only.
    sizes = [(64, 96), (68, 96), (128, 192), (65, 97), (68, 96)]
    data = module_of([noise(*size) for size in sizes], noise(40, 40), size=32, steps=4, batch_size=8)
    data.setup("fit")
    numbers = sorted([data.pairs.index(pair) for pair in batch.pairs] for batch in data.batches)
    assert numbers == [[0, 2, 3], [1, 4]]
    for batch in data.batches:
        for stage in batch.stages:
            contents = batch.contents(stage)
            assert contents.shape == (len(batch.pairs), 3, *batch.output_size(stage))
            for pair, content in zip(batch.pairs, contents, strict=True):
                height, width = images.read(pair.content).rgb.shape[-2:]
                assert images.fit(height, width, stage.size) == tuple(content.shape[-2:])


def listing(folder: Path, lines: Sequence[str], pictures: Path) -> str:
    """A list of pairs named a, b, ... of the same images, each with its own size and steps."""
    rows = [
        f"{pictures / 'content.png'},{pictures / 'style.png'},{name},{own}"
        for name, own in zip("abcde", lines, strict=False)
    ]
    path = folder / "pairs.csv"
    path.write_text("\n".join(["content,style,name,size,steps", *rows]))
    return str(path)


def test_pairs_of_their_own_sizes_and_steps_share_batches_with_their_like(pictures: Path, tmp_path: Path) -> None:
    path = listing(tmp_path, ["32,", ",", "32,4", "64,8", ",4"], pictures)
    data = PairDataModule(pairs=path, size=64, steps=8, batch_size=8)
    data.setup("fit")
    assert {batch.names: batch.stages for batch in data.batches} == {
        ("a",): (Stage(16, 4), Stage(32, 4)),
        ("b", "d"): (Stage(32, 4), Stage(64, 4)),
        ("c",): (Stage(16, 2), Stage(32, 2)),
        ("e",): (Stage(32, 2), Stage(64, 2)),
    }


def test_pairs_whose_styles_are_painted_at_other_sizes_share_no_batch(pictures: Path, tmp_path: Path) -> None:
    # The content, 96 px wide, is not enlarged: the outputs are of one size. The style's long side follows the stage's.
    path = listing(tmp_path, ["96,", "200,"], pictures)
    data = PairDataModule(pairs=path, stages=1, steps=4, style_scale=0.5, batch_size=8)
    data.setup("fit")
    assert [batch.output_size(batch.stages[0]) for batch in data.batches] == [(64, 96), (64, 96)]
    sides = {batch.names: batch.styles(batch.stages[0])[0][0].side for batch in data.batches}
    assert sides == {("a",): 48, ("b",): 100}


@pytest.mark.parametrize(
    ("free", "together"),
    # 0.8 of what is free, over 100 bytes for each of the largest stage's 32 x 32 pixels.
    [(10**9, [6]), (515_000, [4, 2]), (500_000, [3, 3]), (100_000, [1] * 6), (0, [1] * 6)],
)
def test_auto_takes_as_many_as_the_memory_holds(
    monkeypatch: pytest.MonkeyPatch, free: int, together: list[int]
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: free)
    data = module_of([noise(32, 32) for _ in range(6)], noise(32, 32), batch_size="auto", size=32, steps=2)
    module = SimpleNamespace(bytes_of_step=lambda worker, pixels: 100 * pixels)
    strategy = SimpleNamespace(root_device=torch.device("cpu"), broadcast=None)
    plugin = SimpleNamespace(forward_context=None)
    attach(
        data, lightning_module=module, strategy=strategy, num_devices=1, precision="32-true", precision_plugin=plugin
    )
    data.setup("fit")
    assert [len(batch.pairs) for batch in data.batches] == together


@pytest.mark.parametrize(("kind", "expected"), [("cpu", 200), ("cuda", 800)])
def test_processes_share_the_memory_of_a_cpu(monkeypatch: pytest.MonkeyPatch, kind: str, expected: int) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(kind), broadcast=None),
        num_devices=4,
        precision="32-true",
        precision_plugin=SimpleNamespace(forward_context=None),
    )
    assert Worker.of(trainer).memory == expected


# ---- several processes ----


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3, 9])
def test_every_pair_is_dealt_to_one_process(ranks: int, batch_size: int) -> None:
    sizes = [SQUARE, WIDE, SQUARE, TALL, SQUARE, TALL, WIDE]
    contents = [noise(*size) for size in sizes]
    taken, dealt = [], set()
    for rank in range(ranks):
        data = module_of(contents, noise(32, 32), batch_size=batch_size)
        attach(data, ranks, rank)
        data.setup("fit")
        taken += [name for batch in data.batches for name in batch.names]
        assert sorted(name for batch in data.batches for name in batch.names) == sorted(data.dealt[rank])
        assert all(len(batch.pairs) <= batch_size for batch in data.batches)
        dealt.add(data.dealt)
    assert sorted(taken) == sorted(pair.name for pair in data.pairs)
    assert len(dealt) == 1  # every process finds the same
    assert len(data.dealt) == ranks
    costs = [sum(sizes[int(name.rpartition("_")[2]) - 1][0] for name in share) for share in data.dealt]
    assert max(costs) - min(costs) <= 48


def test_without_a_shard_a_process_takes_all() -> None:
    data = module_of([noise(32, 32), noise(32, 32)], noise(32, 32))
    trainer: Any = SimpleNamespace(global_step=0, distributed_sampler_kwargs=None)
    data.trainer = trainer
    data.setup("fit")
    assert data.dealt == (("image_image_1", "image_image_2"),)
    assert names(data) == [("image_image_1",), ("image_image_2",)]


@pytest.mark.parametrize(
    ("is_zero", "world", "shard", "expected"),
    [
        (True, 1, None, True),
        (True, 2, {"num_replicas": 1, "rank": 0}, True),
        (False, 2, {"num_replicas": 1, "rank": 0}, False),  # tiles: all have the same picture
        (False, 2, {"num_replicas": 2, "rank": 1}, True),
        (True, 2, {"num_replicas": 2, "rank": 0}, True),
        (False, 2, None, False),
    ],
)
def test_one_process_writes_each_result(is_zero: bool, world: int, shard: object, expected: bool) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=is_zero, world_size=world, distributed_sampler_kwargs=shard)
    assert is_writer(trainer) is expected


# ---- what an earlier run has done ----


def four(**options: Any) -> PairDataModule:
    """Four pairs, image_image_1 to image_image_4, of three stages."""
    return module_of([noise(32, 32, seed) for seed in range(4)], noise(32, 32), stages=list(STAGES), **options)


def numbered(*numbers: int) -> tuple[str, ...]:
    return tuple(f"image_image_{number}" for number in numbers)


def saved_of(*numbers: int, stages: tuple[Stage, ...] = STAGES, taken: int = 4) -> Saved:
    return Saved(Path(f"{numbers[0]}.ckpt"), numbered(*numbers), stages, taken)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_what_is_finished_is_left_out(batch_size: int) -> None:
    data = four(batch_size=batch_size)
    data.progress = Progress(finished=frozenset([*numbered(1, 3), "of another run"]))
    data.setup("fit")
    assert data.dealt == (numbered(2, 4),)
    assert names(data) == ([numbered(2), numbered(4)] if batch_size == 1 else [numbered(2, 4)])
    data.progress = Progress(finished=frozenset(numbered(1, 2, 3, 4)))
    data.setup("fit")
    assert (data.dealt, data.batches, len(data.train_dataloader())) == (((),), (), 0)


def test_saved_batches_go_on_first_and_as_they_were() -> None:
    data, saved = four(batch_size=2), saved_of(4, 2)
    data.progress = Progress(saved=(saved,))
    data.setup("fit")
    assert [(batch.names, batch.saved, batch.taken) for batch in data.batches] == [
        (numbered(4, 2), saved, 4),
        (numbered(1, 3), None, 0),
    ]
    assert [(step.index, step.position) for step in data.train_dataloader()][:3] == [
        (4, (0, 2)),
        (5, (0, 2)),
        (0, (1, 0)),
    ]


def test_saved_batches_are_dealt_as_one() -> None:
    shares = []
    for rank in (0, 1):
        data = four()
        data.progress = Progress(saved=(saved_of(2, 3, 4, taken=1),))
        attach(data, 2, rank)
        data.setup("fit")
        shares.append(names(data))
    assert shares == [[numbered(2, 3, 4)], [numbered(1)]]


def test_of_two_checkpoints_of_a_pair_the_first_counts() -> None:
    data, newer = four(), saved_of(2)
    data.progress = Progress(saved=(newer, saved_of(2, 3), saved_of(9), saved_of(1, 9)))
    data.setup("fit")
    assert [batch.saved for batch in data.batches] == [newer, None, None, None]
    assert names(data) == [numbered(2), numbered(1), numbered(3), numbered(4)]


def test_a_checkpoint_of_a_finished_pair_is_left_out() -> None:
    data = four()
    data.progress = Progress(frozenset(numbered(2)), (saved_of(2),))
    data.setup("fit")
    assert [(batch.names, batch.saved) for batch in data.batches] == [(numbered(n), None) for n in (1, 3, 4)]


def test_a_checkpoint_of_other_stages_is_left_out_with_a_warning() -> None:
    data = four()
    data.progress = Progress(saved=(saved_of(2, 3, stages=(Stage(33, 2), *STAGES[1:])),))
    with pytest.warns(
        UserWarning, match=r"^2\.ckpt: is of other stages; image_image_2, image_image_3 will begin anew$"
    ):
        data.setup("fit")
    assert [(batch.names, batch.saved) for batch in data.batches] == [(numbered(n), None) for n in (1, 2, 3, 4)]


# ---- the loader ----


def test_the_loader_goes_over_the_batches_from_the_trainers_step() -> None:
    data = module_of([noise(32, 32), noise(32, 48)], noise(32, 32), size=32, steps=4, upscale=True)
    data.setup("fit")
    assert [step.position for step in data.train_dataloader()] == [(b, s) for b in (0, 1) for s in (0, 0, 1, 1)]
    data.trainer = SimpleNamespace(global_step=5)  # type: ignore[assignment]
    loader = data.train_dataloader()
    assert [(step.position, step.index) for step in loader] == [((1, 0), 1), ((1, 1), 2), ((1, 1), 3)]
    step = loader.step(0)
    assert step.batch.upscale
    assert data.transfer_batch_to_device(step, torch.device("meta"), 0) is step


@pytest.mark.parametrize(
    ("taken", "last", "unfinished"),
    [(0, None, None), (1, (0, 0), (0, 0)), (4, (0, 3), None), (5, (1, 0), (1, 0)), (8, (1, 3), None), (9, None, None)],
)
def test_the_last_step_is_the_one_that_was_completed(
    taken: int, last: tuple[int, int] | None, unfinished: tuple[int, int] | None
) -> None:
    data = module_of([noise(32, 32), noise(32, 32)], noise(32, 32), size=32, steps=4)
    data.setup("fit")
    data.trainer = SimpleNamespace(global_step=taken)  # type: ignore[assignment]
    found = [
        None if step is None else (step.batch_index, step.index) for step in (data.last_step(), data.unfinished_step())
    ]
    assert found == [last, unfinished]


@pytest.mark.parametrize("broken", ["content", "style"])
def test_an_image_that_cannot_be_read_ends_the_run_before_it_begins(
    tmp_path: Path, content_png: Path, broken: str
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(content_png.read_bytes()[:500])
    sources: dict[str, Images] = {"content": content_png, "style": content_png, broken: [content_png, damaged]}
    data = module_of(**sources)
    with pytest.raises(ImageError, match=r"damaged\.png: cannot be decoded"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_scale": 0.0}, "style_scale must be a finite number above 0, got 0.0"),
        ({"style_scale": -1.0}, "style_scale must be a finite number above 0, got -1.0"),
        ({"style_scale": float("nan")}, "style_scale must be a finite number above 0, got nan"),
        ({"style_scale": float("inf")}, "style_scale must be a finite number above 0, got inf"),
        ({"batch_size": 0}, "batch_size must be at least 1, or auto, got 0"),
        ({"stages": []}, "stages is an empty list: there is nothing to do"),
        ({"stages": 0}, "stages must be at least 1, got 0"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"steps": 1}, r"steps must be at least the number of stages \(2\), got 1"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        module_of(noise(32, 32), noise(32, 32), **options)


def test_that_photographs_are_smaller_than_the_output_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    module_of([noise(32, 32), noise(32, 48), noise(32, 40)], noise(32, 32), size=256, steps=4).setup("fit")
    told = "image_image_1 and 2 more: as large as the photograph, 32x32 px instead of 256: --upscale enlarges"
    assert capfd.readouterr().err == f"nst: {told}\n"

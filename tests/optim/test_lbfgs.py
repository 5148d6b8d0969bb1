"""The per-image L-BFGS against torch's own, under hostile losses, and across its checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nst_lightning.backbones import Backbone
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, Content, Gram, Objective, Term, TotalVariation
from nst_lightning.optim import LBFGS, carried_state, lbfgs
from nst_lightning.tiling import Whole
from tests.questions import NoQuestions

Loss = Callable[[Tensor], Tensor]


def closure_of(optimizer: torch.optim.Optimizer, image: nn.Parameter, loss: Loss) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = loss(image)
        torch.autograd.backward(losses.sum())
        return losses.detach()

    return closure


def minimise(optimizer: torch.optim.Optimizer, image: nn.Parameter, loss: Loss, steps: int) -> list[Tensor]:
    closure = closure_of(optimizer, image, loss)
    return [torch.as_tensor(optimizer.step(closure)) for _ in range(steps)]  # type: ignore[arg-type]


def style_transfer(seeds: tuple[int, ...], style_weight: float, dtype: torch.dtype) -> tuple[Tensor, Loss]:
    """The real loss of noise images, one pair a seed, on the shallow layers of the bundled network."""
    backbone = Backbone("vgg16", ("relu1_1", "relu2_1")).to(dtype)
    goal = Objective(
        [
            Term("content", ("relu2_1",), Content(), 1.0),
            Term("style", ("relu1_1",), Gram(), 0.5),
            Term("style", ("relu2_1",), Gram(), 0.5),
            Term("tv", (IMAGE,), TotalVariation(), 1.0),
        ]
    )
    evaluator = Whole(backbone, goal)
    groups = {group: torch.tensor(weight) for group, weight in zip(goal.groups, (1e5, style_weight, 1.0), strict=True)}
    weights = goal.weights({}, groups)

    def noise(kind: int) -> Tensor:
        draws = [torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(7 * seed + kind)) for seed in seeds]
        return torch.stack(draws).to(dtype)

    targets = evaluator.targets("content", [noise(1)], [1.0], 0) | evaluator.targets("style", [noise(2)], [1.0], 0)

    def loss(image: Tensor) -> Tensor:
        return goal.total(evaluator.values(image, targets, 0), weights)

    return noise(0), loss


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (2, 0, 3)])
def test_without_safeguard_each_image_takes_torchs_steps_whatever_its_companions(seeds: tuple[int, ...]) -> None:
    start, loss = style_transfer(seeds, 3e4, torch.float64)
    image = nn.Parameter(start.clone())
    # The first step only evaluates: twenty moves take twenty-one.
    minimise(LBFGS([image], history_size=7, safeguard=False), image, loss, 21)
    for index, seed in enumerate(seeds):
        alone, loss_alone = style_transfer((seed,), 3e4, torch.float64)
        reference = nn.Parameter(alone.clone())
        theirs = torch.optim.LBFGS(
            [reference], lr=1, max_iter=20, history_size=7, tolerance_grad=-1, tolerance_change=-1
        )
        theirs.step(lambda ref=reference, f=loss_alone, o=theirs: closure_of(o, ref, lambda x: f(x).sum())())  # type: ignore[no-untyped-call]
        assert (reference - alone).abs().max() > 1e-2  # it went somewhere
        torch.testing.assert_close(image[index : index + 1], reference, rtol=0, atol=1e-10)


def test_a_hostile_start_ends_finite_and_below_its_first_loss_for_every_image() -> None:
    start, loss = style_transfer((0, 1, 2), 3e10, torch.float32)
    start = start + torch.randn(start.shape, generator=torch.Generator().manual_seed(9)) * torch.tensor(
        [0.1, 3.0, 30.0]
    ).view(3, 1, 1, 1)
    image = nn.Parameter(start.clone())
    first = loss(start)
    minimise(LBFGS([image]), image, loss, 40)
    with torch.no_grad():
        last = loss(image)
    assert image.isfinite().all()
    assert (last < first).all(), (first, last)


def rosenbrock(image: Tensor) -> Tensor:
    odd, even = image[:, ::2], image[:, 1::2]
    return (100 * (even - odd**2) ** 2 + (1 - odd) ** 2).sum(dim=1)


def test_the_safeguard_never_lets_an_accepted_image_get_worse() -> None:
    image = nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    optimizer = LBFGS([image])
    closure = closure_of(optimizer, image, rosenbrock)
    before = torch.full((4,), torch.inf, dtype=torch.float64)
    rejections = 0
    for _ in range(250):
        trial = optimizer.step(closure)
        now = rosenbrock(image.detach())
        assert (now <= before).all()
        torch.testing.assert_close(now[optimizer.accepted], trial[optimizer.accepted])
        torch.testing.assert_close(now[~optimizer.accepted], before[~optimizer.accepted])
        rejections += int((~optimizer.accepted).sum())
        before = now
    assert rejections > 0  # else the test has not seen the safeguard
    assert (before < 1e-8).all()


def test_a_loss_that_is_rounded_does_not_end_a_run() -> None:
    # As bfloat16 leaves it: off by up to 4e-4 of it, while the gradient is right.
    def rounded(image: Tensor) -> Tensor:
        loss = 1 + rosenbrock(image)
        return loss + (4e-4 * loss * (1e7 * image.sum(dim=1)).sin()).detach()

    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = []
    for loss in (rosenbrock, rounded):
        image = nn.Parameter(start.clone())
        minimise(LBFGS([image]), image, loss, 250)
        ends.append(rosenbrock(image.detach()))
    assert (ends[0] < 1e-8).all()
    assert (ends[1] < 1e-6).all(), ends


@pytest.mark.parametrize(("rise", "accepted"), [(9e-4, True), (1.1e-3, False)])
@pytest.mark.parametrize("downhill", [True, False])
def test_a_small_rise_is_accepted_only_where_the_slopes_say_that_the_loss_fell(
    rise: float, accepted: bool, downhill: bool
) -> None:
    place = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
    optimizer = LBFGS([place])
    answers = iter([(1.0, -1.0), (1 + rise, -0.5 if downhill else 1.5)])

    def closure() -> Tensor:
        loss, slope = next(answers)
        place.grad = torch.full_like(place, slope)
        return torch.tensor([loss], dtype=torch.float64)

    optimizer.step(closure)
    optimizer.step(closure)
    assert optimizer.accepted.item() == (accepted and downhill)
    assert (place.item() != 0) == (accepted and downhill)


def test_one_images_rejected_step_leaves_its_companions_alone() -> None:
    start = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    together = nn.Parameter(start.clone())
    optimizer = LBFGS([together])
    closure = closure_of(optimizer, together, rosenbrock)
    unlike = False
    for _ in range(30):
        optimizer.step(closure)
        unlike |= bool(optimizer.accepted.any() and not optimizer.accepted.all())
    assert unlike
    for index in range(3):
        alone = nn.Parameter(start[index : index + 1].clone())
        minimise(LBFGS([alone]), alone, rosenbrock, 30)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-9)


def test_a_trial_that_is_not_finite_is_taken_back() -> None:
    def pole(image: Tensor) -> Tensor:
        return (image.square() - 3 * image.log()).sum(dim=1)  # NaN at and below 0, least at sqrt(1.5)

    image = nn.Parameter(torch.tensor([[4.0], [0.01]], dtype=torch.float64))
    minimise(LBFGS([image], lr=2.0), image, pole, 60)
    torch.testing.assert_close(image, torch.full_like(image, 1.5**0.5), rtol=0, atol=1e-6)


def test_a_step_asks_no_tensor_for_its_value() -> None:
    image = nn.Parameter(torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    optimizer = LBFGS([image], history_size=3)
    closure = closure_of(optimizer, image, rosenbrock)
    rejected = 0
    for _ in range(30):
        with NoQuestions():  # type: ignore[no-untyped-call]
            optimizer.step(closure)
        rejected += int((~optimizer.accepted).sum())
    assert rejected > 0
    with pytest.raises(AssertionError, match="asks a tensor for its values"), NoQuestions():  # type: ignore[no-untyped-call]
        bool(image.sum() > 0)


def test_a_stationary_image_stays_where_it_is() -> None:
    image = nn.Parameter(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    minimise(LBFGS([image]), image, lambda x: x.square().sum(dim=1), 10)
    assert image.isfinite().all()
    assert torch.equal(image[0], torch.zeros(2))
    torch.testing.assert_close(image[1], torch.zeros(2), rtol=0, atol=1e-6)


def uneven(image: Tensor) -> Tensor:
    """A loss of images that bends a hundred times less for colours than for grey."""
    grey = image.mean(dim=1, keepdim=True)
    return 100 * (grey - 0.4).square().sum(dim=(1, 2, 3)) + (image - grey - 0.1).square().sum(dim=(1, 2, 3))


def colourful(image: Tensor) -> Tensor:
    """Enlarges the colours of images (N, C, H, W) tenfold and leaves their grey."""
    return 10 * image - 9 * image.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("size", "loss", "options"),
    [
        ((2, 6), rosenbrock, {"safeguard": True}),
        ((2, 6), rosenbrock, {"safeguard": False}),
        ((2, 3, 8, 8), uneven, {"precondition": colourful}),
    ],
)
def test_goes_on_bitwise_from_its_state_dict_after_every_step(
    size: tuple[int, ...], loss: Loss, options: dict[str, Any]
) -> None:
    start = torch.randn(size, generator=torch.Generator().manual_seed(3))
    reference = nn.Parameter(start.clone())
    optimizer = LBFGS([reference], history_size=3, **options)
    closure = closure_of(optimizer, reference, loss)
    saved = []
    for _ in range(12):
        saved.append((reference.detach().clone(), copy.deepcopy(optimizer.state_dict())))
        optimizer.step(closure)
    for done, (image, state) in enumerate(saved):
        resumed = nn.Parameter(image)
        again = LBFGS([resumed], history_size=3, **options)
        again.load_state_dict(state)
        minimise(again, resumed, loss, 12 - done)
        assert torch.equal(resumed, reference), done


def test_an_interrupted_evaluation_leaves_image_and_state_as_they_were() -> None:
    image = nn.Parameter(torch.randn(2, 6, generator=torch.Generator().manual_seed(4)))
    optimizer = LBFGS([image])
    minimise(optimizer, image, rosenbrock, 3)
    before, state = image.detach().clone(), copy.deepcopy(optimizer.state_dict())

    def interrupted() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(interrupted)
    assert torch.equal(image, before)
    torch.testing.assert_close(optimizer.state_dict(), state, rtol=0, atol=0)


def test_memory_that_runs_out_behind_the_evaluation_leaves_the_image_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    image = nn.Parameter(torch.randn(2, 6, generator=torch.Generator().manual_seed(4)))
    optimizer = LBFGS([image])
    minimise(optimizer, image, rosenbrock, 3)
    before = image.detach().clone()
    monkeypatch.setattr("nst_lightning.optim.lbfgs._store_pair", full)
    with pytest.raises(torch.OutOfMemoryError):
        minimise(optimizer, image, rosenbrock, 1)
    assert torch.equal(image, before)


def test_evaluates_once_a_step() -> None:
    image = nn.Parameter(torch.randn(2, 6, generator=torch.Generator().manual_seed(5)))
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return rosenbrock(x)

    minimise(LBFGS([image]), image, counted, 25)
    assert calls == 25


def test_arguments_out_of_range_are_refused() -> None:
    image = nn.Parameter(torch.zeros(1, 2))
    with pytest.raises(InputError, match="lr must be above 0, got 0"):
        LBFGS([image], lr=0)
    with pytest.raises(InputError, match="history_size must be at least 1, got 0"):
        LBFGS([image], history_size=0)
    with pytest.raises(InputError, match="optimises one parameter"):
        LBFGS([image, nn.Parameter(torch.zeros(1))])
    with pytest.raises(InputError, match="needs a closure"):
        LBFGS([image]).step()
    with pytest.raises(InputError, match="one loss an image: 1 images, 2 losses"):
        LBFGS([image]).step(lambda: torch.zeros(2))


def half(tensor: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(tensor, 2)


@pytest.mark.parametrize("make", [LBFGS, torch.optim.LBFGS])
def test_curvature_pairs_are_forgotten_at_another_size(make: type[torch.optim.Optimizer]) -> None:
    image = nn.Parameter(torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(6)))
    optimizer = make([image])  # type: ignore[call-arg]
    minimise(optimizer, image, lambda x: x.square().sum(dim=(1, 2, 3)), 3)
    assert carried_state(optimizer.state[image], image.shape, half) is None
    assert carried_state({}, image.shape, half) is None


def test_a_closure_may_return_a_number_for_a_single_image() -> None:
    ends = []
    for convert in (Tensor.item, Tensor.detach):
        image = nn.Parameter(torch.randn(1, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        optimizer = LBFGS([image])
        closure = closure_of(optimizer, image, rosenbrock)

        def converted(closure: Callable[[], Tensor] = closure, convert: Callable[[Tensor], Any] = convert) -> Any:  # noqa: ANN401
            return convert(closure().squeeze())

        for _ in range(20):
            assert optimizer.step(converted).dtype == torch.float64
        ends.append(image.detach())
    assert torch.equal(*ends)


# ---- preconditioning, and steps without a history ----


def test_preconditioning_is_a_change_of_coordinates() -> None:
    # With x = 3 y along every second axis, the steps of y are those of x preconditioned by 3 x 3.
    scale = torch.tensor([1.0, 3.0] * 3, dtype=torch.float64)

    def loss(image: Tensor) -> Tensor:
        return 1e-5 * rosenbrock(image)  # a gradient short enough for first steps of its own length

    start = 0.1 * torch.randn(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    image, scaled = nn.Parameter(start.clone()), nn.Parameter(start / scale)
    minimise(LBFGS([image], safeguard=False, precondition=lambda x: scale**2 * x), image, loss, 15)
    minimise(LBFGS([scaled], safeguard=False), scaled, lambda y: loss(scale * y), 15)
    assert (image - start).abs().max() > 1e-2
    torch.testing.assert_close(image, scale * scaled, rtol=1e-8, atol=1e-10)


def test_where_the_loss_is_concave_steps_grow_until_it_is_not() -> None:
    # Below pi / 2 the cosine is concave, so that no step teaches its curvature.
    angle = nn.Parameter(torch.tensor([[1e-4]], dtype=torch.float64))
    optimizer = LBFGS([angle])
    closure = closure_of(optimizer, angle, lambda x: x.cos().sum(dim=1))
    angles = []
    for _ in range(40):
        optimizer.step(closure)
        angles.append(angle.item())
    lengths = [(after - before) / np.sin(before) for before, after in pairwise(angles[:5])]
    assert angles[4] < np.pi / 2
    np.testing.assert_allclose(lengths, [1.0, 4.0, 16.0, 64.0], rtol=1e-9)
    assert np.cos(angles[-1]) < -1 + 1e-9


def test_a_history_does_not_hold_an_image_back_where_the_loss_is_concave() -> None:
    # The slope is steep and rises to -0.1 at 1.2, falls slowly to -0.2 at 101.2, and is 0 at 101.4: what the first
    # steps learn of the curvature asks for steps of a hundredth.
    def loss(x: Tensor) -> Tensor:
        steep = 9.9 / 1.2 / 2 * (x - 1.2).clamp(max=0) ** 2 - 0.1 * (x - 1.2).clamp(max=0)
        slow = (x - 1.2).clamp(0, 100)
        well = (x - 101.2).clamp(min=0)
        return (steep - 0.1 * slow - 0.0005 * slow**2 - 0.2 * well + 0.5 * well**2).sum(dim=1)

    place = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
    optimizer = LBFGS([place])
    closure = closure_of(optimizer, place, loss)
    for _ in range(30):
        optimizer.step(closure)
    assert 100 < place.item() < 102


# ---- the compact form ----


def two_loops(state: dict[str, Any], gradient: Tensor, precondition: Loss) -> Tensor:
    """Nocedal and Wright (2006), algorithm 7.4, pair by pair."""
    size = len(state["steps"])
    slots = [(int(state["slot"]) - age) % size for age in range(size)]
    inverses = [torch.where(each > 0, 1 / each, 0)[:, None] for each in state["curvature"]]
    direction: Tensor = -gradient
    alphas: dict[int, Tensor] = {}
    for slot in slots:
        alphas[slot] = (state["steps"][slot] * direction).sum(dim=1, keepdim=True) * inverses[slot]
        direction = direction - alphas[slot] * state["changes"][slot]
    direction = precondition(direction) * state["scale"][:, None]
    for slot in reversed(slots):
        beta = (state["changes"][slot] * direction).sum(dim=1, keepdim=True) * inverses[slot]
        direction.add_((alphas[slot] - beta) * state["steps"][slot])
    return direction


def of_a_hard_problem(steps: int, dtype: torch.dtype, smooth: bool, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How far a run's directions are from those of the loops, relatively; some images lack pairs that others have."""
    compact, apart, absent = lbfgs._step_along, [], 0

    def compared(state: dict[str, Any], gradient: Tensor, precondition: Loss) -> Tensor:
        nonlocal absent
        direction = compact(state, gradient, precondition)
        exact = {name: each.double() if isinstance(each, Tensor) else each for name, each in state.items()}
        true = two_loops(exact, gradient.double(), lambda vector: precondition(vector.to(dtype)).double())
        apart.append(((direction - true).norm() / true.norm()).item())
        there = (state["curvature"] > 0).sum(dim=1)
        absent += int(((there > 0) & (there < 3)).sum())
        return direction

    monkeypatch.setattr(lbfgs, "_step_along", compared)
    image = nn.Parameter(torch.randn(3, 3, 5, 7, generator=torch.Generator().manual_seed(1), dtype=dtype))
    bend = torch.logspace(0, 3, 105, dtype=dtype).view(1, 3, 5, 7)

    def loss(x: Tensor) -> Tensor:
        return (bend * (1 - (x - 0.3).cos())).sum(dim=(1, 2, 3)) + rosenbrock(x.flatten(1)[:, :6])

    def binomial(x: Tensor) -> Tensor:
        return x + 0.25 * nn.functional.avg_pool2d(x, 3, 1, 1)

    optimizer = LBFGS([image], history_size=7, precondition=binomial if smooth else None)
    minimise(optimizer, image, loss, steps)
    assert absent > 0
    return apart


@pytest.mark.parametrize("smooth", [False, True])
def test_the_compact_form_is_the_two_loops(smooth: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(of_a_hard_problem(40, torch.float64, smooth, monkeypatch)) < 1e-13


def test_in_single_precision_it_is_off_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(of_a_hard_problem(40, torch.float32, False, monkeypatch)) < 1e-5


def test_a_loss_of_double_precision_leaves_the_state_in_that_of_the_image() -> None:
    image = nn.Parameter(torch.randn(2, 6, generator=torch.Generator().manual_seed(2)))
    optimizer = LBFGS([image])
    losses = minimise(optimizer, image, lambda x: rosenbrock(x).double(), 8)
    assert {each.dtype for each in optimizer.state[image].values() if isinstance(each, Tensor)} == {torch.float32}
    assert (losses[-1] < losses[0]).all()


def test_products_of_a_batch_at_once_are_those_image_by_image() -> None:
    # What a GPU computes.
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    history, vectors = draw(5, 3, 96).transpose(0, 1), draw(3, 96)
    torch.testing.assert_close(lbfgs._batched_dots(history, vectors), lbfgs._dots(history, vectors))


def test_no_image_of_an_odd_size_depends_on_its_companions() -> None:
    start = torch.rand(3, 3, 17, 19, generator=torch.Generator().manual_seed(1))
    weights = torch.rand(3, 17, 19, generator=torch.Generator().manual_seed(2)) + 0.1

    def loss(x: Tensor) -> Tensor:
        return torch.stack([(weights * (each - 0.5).square()).sum() for each in x])

    together = nn.Parameter(start.clone())
    minimise(LBFGS([together], history_size=4), together, loss, 15)
    for index in range(3):
        alone = nn.Parameter(start[index : index + 1].clone())
        minimise(LBFGS([alone], history_size=4), alone, loss, 15)
        assert torch.equal(together[index], alone[0])

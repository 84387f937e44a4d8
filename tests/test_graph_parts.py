"""Decoding and augmentation inside a graph against numpy and torch."""

import numpy as np
import pytest
import torch
from training_problem import STRONG, open_session, random_factors, torch_augment

from edgedd.augmentation import Augmentation, Draw, draw
from edgedd.exporting.augment import augment
from edgedd.exporting.builder import INT64, GraphBuilder
from edgedd.exporting.decode import decode, factor_inputs
from edgedd.parameterization import DCT, Formation, LowRank, Parameterization, Pixels, SharedBasis


@pytest.mark.parametrize(
    "parameterization",
    [
        Pixels((3, 8, 9)),
        Formation((3, 8, 9)),
        Formation((1, 13, 17), 3),
        LowRank((3, 8, 9), 3),
        LowRank((1, 9, 8), 3, 2),
        LowRank((3, 8, 8), 8, 3),
        SharedBasis((3, 8, 9), 5),
        SharedBasis((1, 9, 8), 2, 3),
        SharedBasis((3, 14, 10), 3, 2, half=True),
        DCT((3, 8, 9), 5),
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [[0, 6, 3, 3, 5], [1], []], ids=len)
def test_decoding_in_the_graph_equals_numpy_and_torch(parameterization: Parameterization, rows: list[int]) -> None:
    b = GraphBuilder()
    factors = random_factors(parameterization, 7 * parameterization.per_stored, np.random.default_rng(0))
    images = decode(b, parameterization, factor_inputs(b, parameterization), b.input("rows", ("k",), INT64))
    index = np.array(rows, np.int64)
    feeds = {f"factors.{n}": v for n, v in factors.items()} | {"rows": index}
    got = open_session(b.model({images: ["k", *parameterization.shape]})).run(None, feeds)[0]
    in_torch = parameterization.decode({n: torch.tensor(v) for n, v in factors.items()}, index)
    np.testing.assert_allclose(got, parameterization.decode(factors, index), atol=1e-5)
    np.testing.assert_allclose(got, in_torch.numpy(), atol=1e-5)


FAMILIES = [
    Augmentation(),
    Augmentation(flip=0.5),
    Augmentation(shift=3, scale=0.3, rotate=30),
    Augmentation(cutout=0.5),
    Augmentation(colour=0.7),
    STRONG,
]


@pytest.mark.parametrize("augmentation", FAMILIES, ids=lambda a: "+".join(a.as_dict()) or "none")
@pytest.mark.parametrize("shape", [(3, 9, 12), (1, 8, 8)], ids=str)
def test_augmentation_in_the_graph_equals_torch(augmentation: Augmentation, shape: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((6, *shape)).astype(np.float32)
    drawn = draw(augmentation, 6, *shape[1:], generator)
    b = GraphBuilder()
    output = b.node("Identity", augment(b, augmentation, shape, b.input("images", ("b", *shape))))
    session = open_session(b.model({output: ["b", *shape]}))
    wanted_inputs = {"images"} | {
        f"augment.{name}"
        for name, on in zip(Draw._fields, (augmentation.moves, augmentation.cutout, augmentation.colour), strict=True)
        if on
    }
    assert {i.name for i in session.get_inputs()} == wanted_inputs
    feeds = {"images": x} | {f"augment.{n}": a for n, a in drawn._asdict().items() if f"augment.{n}" in wanted_inputs}
    got = session.run(None, feeds)[0]
    np.testing.assert_allclose(got, torch_augment(torch.tensor(x), augmentation, drawn).numpy(), atol=2e-5)


def test_a_mirror_is_a_mirror() -> None:
    """By arithmetic: flip alone, drawn for certain, reverses the columns."""
    augmentation, x = Augmentation(flip=1.0), np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    b = GraphBuilder()
    output = augment(b, augmentation, (1, 8, 8), b.input("images", ("b", 1, 8, 8)))
    drawn = draw(augmentation, 1, 8, 8, np.random.default_rng(0))
    session = open_session(b.model({output: ["b", 1, 8, 8]}))
    got = session.run(None, {"images": x, "augment.affine": drawn.affine})[0]
    np.testing.assert_allclose(got, x[..., ::-1], atol=1e-4)

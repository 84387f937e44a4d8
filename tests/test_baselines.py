"""Baselines of real images: nothing uncounted, everything read back from the bytes, as many as fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from tiny_data import tiny_images
from tiny_sets import random_set

from edgedd.baselines import picture_files, search
from edgedd.baselines.coded import Coded
from edgedd.baselines.fitting import fitted, size
from edgedd.baselines.levels import Levels, lloyd_levels, lossless, plain
from edgedd.baselines.real_set import RealSet, stepped
from edgedd.baselines.stores import Store, stores
from edgedd.distillation import recipe_search, teacher
from edgedd.parameterization import LowRank
from edgedd.recipe import Recipe
from edgedd.synthetic_set import label_steps

CODECS = [("jpeg", 20, {}), ("jpeg", 60, {"halved": True}), ("webp", 20, {})]


def pictures(count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Smooth uint8 images (n, C, H, W), all different."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, shape[0], 4, 4)).astype(np.uint8)
    grown = picture_files.resized(coarse.transpose(0, 2, 3, 1), shape[1:])
    return np.ascontiguousarray(grown.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(("codec", "quality", "options"), CODECS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 24, 20)])
def test_a_file_is_the_shared_header_and_its_own_part(
    codec: str, quality: int, options: dict[str, bool], shape: tuple[int, int, int]
) -> None:
    images = pictures(4, shape).transpose(0, 2, 3, 1)
    files = [picture_files.file_of(codec, quality, image, **options) for image in images]
    parts = [picture_files.split(codec, file) for file in files]
    assert len({shared for shared, _ in parts}) == 1
    assert len({own for _, own in parts}) == 4
    for file, (shared, own) in zip(files, parts, strict=True):
        assert picture_files.joined(codec, shared, own) == file
        assert len(own) == len(file) - len(shared) - (2 if codec == "jpeg" else 20 + len(file[20:]) - len(own) - 7)
        assert picture_files.picture_of(file, shape[0]).shape == (*shape[1:], shape[0])


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_jpeg_tiles_and_jpeg_apart_hold_the_same_images(shape: tuple[int, int, int]) -> None:
    store, images = Coded("jpeg", 30, 24, 24), pictures(7, shape)
    small = picture_files.resized(images.transpose(0, 2, 3, 1), (24, 24))
    ways = store.mosaic(small), store.apart(small)
    decoded = [store.decode(content, 7, shape) for content in ways]
    assert np.array_equal(*decoded)
    assert len(store.encode(images)) == min(map(len, ways))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)])
def test_every_store_reads_back_what_it_wrote(shape: tuple[int, int, int]) -> None:
    images = pictures(5, shape)
    for settings in stores(shape).values():
        for store in settings:
            decoded = store.decode(store.encode(images), 5, shape)
            error = np.abs(decoded.astype(float) - images).mean()
            assert decoded.shape == images.shape
            assert error < 45, store
            if isinstance(store, Levels) and (store.height, store.width) == shape[1:]:
                assert error <= (0, 10, 40)[(8, 4, 2).index(store.bits)], store


def test_levels_are_the_best_for_the_pixels() -> None:
    spikes = np.zeros(256)
    spikes[[3, 40, 200, 251]] = 9, 1, 5, 7
    assert lloyd_levels(spikes, 2).tolist() == [3, 40, 200, 251]
    counts = np.random.default_rng(0).random(256) ** 8
    error = [
        (counts * (np.arange(256)[:, None] - levels).__abs__().min(1) ** 2).sum()
        for levels in (lloyd_levels(counts, 2), np.array([0, 85, 170, 255]))
    ]
    assert error[0] < error[1]


def test_lossless() -> None:
    for raw in (b"", b"abc", bytes(5000), np.random.default_rng(0).bytes(300)):
        assert plain(lossless(raw)) == raw
        assert len(lossless(raw)) <= len(raw) + 1


def real_set(store: Store, ipc: int, soft: bool) -> RealSet:
    images = pictures(120, (3, 16, 16))[: 3 * ipc]
    labels = stepped(np.random.default_rng(1).dirichlet(np.ones(3), 120))[: 3 * ipc] if soft else None
    return RealSet(
        store=store,
        coded=store.encode(images),
        labels=labels,
        count=3 * ipc,
        selection="herding",
        shape=(3, 16, 16),
        mean=np.array([0.5, 0.4, 0.3], np.float32),
        std=np.array([0.2, 0.3, 0.25], np.float32),
        classes=("a", "b", "c"),
        recipe=Recipe(steps=7),
        provenance={"seed": 4},
    )


@pytest.mark.parametrize("store", [Levels(2, 16, 16), Coded("jpeg", 30, 8, 8), Coded("webp", 30, 16, 16)], ids=str)
@pytest.mark.parametrize("soft", [True, False])
def test_students_train_from_the_bytes_that_are_counted(store: Store, soft: bool) -> None:
    made = real_set(store, 4, soft)
    read = RealSet.from_bytes(made.to_bytes())
    assert read.to_bytes() == made.to_bytes()
    assert (read.ipc, read.store, read.selection, read.recipe) == (4, store, "herding", Recipe(steps=7))
    synthetic = read.synthetic()
    decoded = store.decode(made.coded, 12, (3, 16, 16)) / 255
    trained = synthetic.images(slice(None)) * made.std[:, None, None] + made.mean[:, None, None]
    assert np.abs(trained - decoded).max() < 1 / 255
    labels = made.labels / 51 if soft else np.repeat(np.eye(3), 4, axis=0)  # type: ignore[operator]
    assert np.allclose(synthetic.soft_labels(slice(None)), labels, atol=1 / 255)


def test_soft_labels_sum_to_their_steps_and_hard_ones_take_no_bytes() -> None:
    for num_classes in (3, 100):
        codes = stepped(np.random.default_rng(0).dirichlet(np.ones(num_classes), 50))
        assert (codes.sum(1) == label_steps(num_classes)).all()
    hard, soft = (len(real_set(Levels(8, 16, 16), 4, soft).to_bytes()) for soft in (False, True))
    assert 20 < soft - hard <= 12 * 3 + 1


@pytest.fixture(scope="module")
def growing() -> dict[int, RealSet]:
    """1 to 40 images a class."""
    return {ipc: real_set(Coded("jpeg", 20, 16, 16), ipc, soft=True) for ipc in range(1, 41)}


@pytest.mark.parametrize("budget", [900, 1500, 4000])
def test_as_many_as_fit(budget: int, growing: dict[int, RealSet]) -> None:
    found = fitted(growing.__getitem__, budget, most=40)
    assert found is not None
    assert size(found) <= budget
    assert len(found.to_bytes()) <= budget
    fits = max(ipc for ipc, made in growing.items() if size(made) <= budget)
    assert fits - 1 <= found.ipc <= fits  # sizes do not rise strictly: the last row of tiles is filled up


def test_not_one_image_fits(growing: dict[int, RealSet]) -> None:
    assert fitted(growing.__getitem__, 200, most=40) is None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "TRIAL_STEPS", 1)
    monkeypatch.setattr(search, "STEPS", 1)
    monkeypatch.setattr(teacher, "train_teacher", lambda trainer, real, g, *_: [fresh(trainer, g)])


def fresh(trainer: object, generator: np.random.Generator) -> object:
    from edgedd.distillation import networks

    return networks.fresh(trainer.network, generator, "cpu")  # type: ignore[attr-defined]


ALL = ("uint8", "4-bit", "2-bit", "down-scaled", "jpeg", "webp")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("names", [("uint8", "webp"), pytest.param(ALL, marks=pytest.mark.slow)], ids=len)
def test_the_command_prints_the_set_and_baselines_within_its_bytes(
    names: tuple[str, ...], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = stores((3, 16, 16))
    if names != ALL:
        monkeypatch.setattr(recipe_search, "choose_recipe", lambda synthetic, *_, **__: synthetic)
        monkeypatch.setattr(search, "stores", lambda shape: {name: every[name][4:6] or every[name] for name in names})
    data = tiny_images(count=90, shape=(3, 16, 16), num_classes=3)
    parts = {"train_images": data.train_images, "test_images": data.test_images}
    arrays = {name: values.transpose(0, 2, 3, 1) for name, values in parts.items()}
    np.savez(tmp_path / "tiny.npz", **arrays, train_labels=data.train_labels, test_labels=data.test_labels)
    path = tmp_path / "set.safetensors"
    synthetic = random_set(LowRank((3, 16, 16), 8, 1, 8), 3, 5, seed=0)
    synthetic = type(synthetic)(synthetic.parameterization, synthetic.tensors, Recipe(steps=2), ("0", "1", "2"))
    synthetic.save(path)
    options = ("--students", "convnet2-w8", "--seeds", 1, "--baselines")
    ran = command("evaluate", path, "--data", tmp_path / "tiny.npz", *options, "--json")
    assert ran.status == 0, ran.err
    rows = json.loads(ran.out)
    assert rows[0]["trained_on"] == "synthetic set"
    assert [row["storage"] for row in rows[1:]] == list(names)
    for row in rows[1:]:
        assert row["bytes"] <= synthetic.nbytes
        assert row["ipc"] >= 1
        assert row["labels"] in ("hard", "teacher")
    by_name = {row["storage"]: row["ipc"] for row in rows[1:]}
    assert by_name["uint8"] < by_name.get("2-bit", 8) < by_name["webp"]


@pytest.mark.usefixtures("quick")
def test_progress_ends_at_what_it_counted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def on_step(stage: str, done: int, total: int, loss: float | None) -> None:
        if stage == "baselines":
            told.append((done, total))

    monkeypatch.setattr(recipe_search, "LOOKS", 2)  # close finalists take more than are told of
    contest = search.BaselineSearch(tiny_images(count=90, shape=(3, 16, 16), num_classes=3), 0, on_step)
    for name in ("2-bit", "down-scaled"):  # one setting, and several
        told.clear()
        counted: list[int] = []
        monkeypatch.setattr(search.BaselineSearch, "_count", lambda it, kept=counted: kept.append(1))
        list(contest.run(search.Wanted(4000, (name,), search_recipe=False)))
        assert told == [(len(counted), len(counted))]

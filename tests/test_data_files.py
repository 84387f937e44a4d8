"""The user's own data: class folders and .npz files, and one clear line for each mistake in them."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_data import arrays, saved

from edgedd.errors import LONGEST_MESSAGE, DataError
from edgedd.labelled_images import load_data


def picture(path: Path, width: int = 8, height: int = 10, mode: str = "RGB", level: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), level if mode != "RGB" else (level, 0, 255)).save(path)


def folders(root: Path, count: int = 5, mode: str = "RGB") -> Path:
    for name in ("cat", "dog"):
        for i in range(count):
            picture(root / name / f"{i}.png", mode=mode, level=10 * i)
    return root


def test_class_folders_give_names_sizes_and_a_fifth_for_testing(tmp_path: Path) -> None:
    data = load_data(folders(tmp_path))
    assert data.classes == ("cat", "dog") and data.shape == (3, 10, 8) and len(data.train_labels) == 8
    assert np.bincount(data.test_labels).tolist() == [1, 1] and data.train_images[0, 2].min() == 255


def test_train_and_test_folders_are_used_and_grey_stays_grey(tmp_path: Path) -> None:
    folders(tmp_path / "train", 3, "L"), folders(tmp_path / "test", 2, "1"), (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    data = load_data(tmp_path)
    assert data.shape == (1, 10, 8) and data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train_images[:3, 0, 0, 0].tolist() == [0, 10, 20] and data.test_labels.tolist() == [0, 0, 1, 1]
    picture(tmp_path / "test" / "dog" / "colour.png")
    assert load_data(tmp_path).shape == (3, 10, 8)


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    folders(tmp_path, 2, "L")
    deep = Image.fromarray(np.full((10, 8), 0xAB12, np.uint16))
    deep.save(tmp_path / "cat" / "a.png")
    data = load_data(tmp_path)
    assert data.shape == (1, 10, 8) and 0xAB in np.concatenate([data.train_images, data.test_images])


def header_that_lies() -> bytes:
    """An .npz whose training images claim a terabyte."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, values in arrays().items():
            member = io.BytesIO()
            np.save(member, values)
            text = member.getvalue()
            if name == "train_images":
                text = text.replace(b"(12, 8, 9, 3), }      ", b"(99999999, 99, 99, 3),}")[: len(text)]
                text = text.replace(b",}", b"}", 1)
            archive.writestr(f"{name}.npy", text)
    return content.getvalue()


IMAGES = arrays()["train_images"]
NPZ_MISTAKES = {
    "missing": ({"test_labels": None}, "lacks test_labels and has test_images, train_images, train_labels; wanted"),
    "pickled": ({"train_labels": np.array([{}] * 12)}, "train_labels is a pickled object array"),
    "pickled names": ({"classes": np.array(["a", 1, {}], object)}, "classes is a pickled object array"),
    "float": ({"train_images": IMAGES / 255}, "train_images is float64, wanted uint8: convert with"),
    "NaN": ({"train_images": np.full(IMAGES.shape, np.nan)}, "train_images has NaN pixels"),
    "int64": ({"test_images": IMAGES.astype(int)}, "test_images is int64, wanted uint8"),
    "flat": ({"train_images": IMAGES.reshape(12, -1)}, "shape (12, 216), wanted (N, H, W) or (N, H, W, C)"),
    "channels first": (
        {"train_images": IMAGES.transpose(0, 3, 1, 2)},
        "(12, 3, 8, 9), wanted (N, H, W, C) with 1 or 3",
    ),
    "two channels": ({"train_images": IMAGES[..., :2]}, "1 or 3 channels"),
    "counts": ({"train_labels": np.zeros(11, int)}, "train_labels has shape (11,) for 12 images, wanted (12,)"),
    "one-hot": ({"train_labels": np.zeros((12, 3), int)}, "train_labels has shape (12, 3) for 12 images"),
    "float labels": ({"train_labels": np.arange(12) % 3 / 1}, "train_labels is float64, wanted whole numbers: convert"),
    "bool labels": ({"train_labels": np.arange(12) % 2 == 0}, "train_labels is bool, wanted whole numbers"),
    "negative": ({"train_labels": np.arange(12) % 3 - 1}, "train_labels is -1..1, wanted 0..1: renumber"),
    "all negative": ({"train_labels": np.full(12, -1)}, "train_labels is -1..-1, wanted 0..0"),
    "a gap": (
        {"train_labels": np.arange(12) % 3 * 2},
        "class 1 ('1') has no training image, wanted every label of 0..4",
    ),
    "one class": ({"train_labels": np.zeros(12, int)}, "1 class(es), wanted 2 to 4096"),
    "huge label": ({"train_labels": np.arange(12) % 3 * 10**9}, "a label is 2000000000, wanted 0..K-1"),
    "test label": ({"test_labels": np.arange(12) % 4}, "test_labels is 0..3, wanted 0..2"),
    "no test": ({"test_images": IMAGES[:0], "test_labels": np.zeros(0, int)}, "one or more images"),
    "no train": ({"train_images": IMAGES[:0], "train_labels": np.zeros(0, int)}, "one or more images"),
    "too few names": ({"classes": np.array(["a", "b"])}, "train_labels is 0..2, wanted 0..1"),
    "equal names": ({"classes": np.array(["a", "a", "b"])}, "classes has 3 names"),
    "a long side": ({"train_images": np.zeros((12, 8, 97), np.uint8)}, "8x97 pixels, wanted sides of 8..96: resize"),
    "a short side": ({"train_images": np.zeros((12, 7, 96), np.uint8)}, "7x96 pixels, wanted sides of 8..96: resize"),
    "test shape": ({"test_images": IMAGES[..., 0]}, "test images (12, 1, 8, 9), wanted one image shape"),
}


@pytest.mark.parametrize("case", NPZ_MISTAKES)
def test_a_mistake_in_an_npz_is_named(case: str, tmp_path: Path) -> None:
    changes, wanted = NPZ_MISTAKES[case]
    refuses(saved(tmp_path, **changes), wanted)


def refuses(path: Path, wanted: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(path)
    message = str(caught.value)
    assert wanted in message and message.isprintable() and len(message) <= LONGEST_MESSAGE


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    for content in (b"", b"not a zip at all", whole[:-40], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        refuses(path, "damaged or no .npz file")
    path.write_bytes(header_that_lies())
    refuses(path, "claims")
    (tmp_path / "data.npy").write_bytes(whole)
    refuses(tmp_path / "data.npy", "is not an .npz file")
    refuses(tmp_path / "none.npz", "does not exist")


def test_mistakes_in_folders_are_named(tmp_path: Path) -> None:
    refuses(tmp_path, "0 class folder(s)")
    root = folders(tmp_path / "sizes")
    picture(root / "dog" / "odd.png", width=9)
    refuses(root, "odd.png is 9x10 pixels and")
    refuses(folders(tmp_path / "sizes"), "0.png is 8x10, wanted one size")
    root = folders(tmp_path / "unreadable")
    (root / "cat" / "text.png").write_text("hello")
    refuses(root, "cannot read the image")
    root = folders(tmp_path / "truncated")
    (root / "cat" / "0.png").write_bytes((root / "cat" / "0.png").read_bytes()[:48])
    refuses(root, str(root / "cat" / "0.png"))
    root = folders(tmp_path / "empty")
    (root / "ant").mkdir()
    refuses(root, "ant has no image")
    for name, size in (("large", 97), ("small", 7)):
        picture(tmp_path / name / "a" / "0.png", width=size)
        picture(tmp_path / name / "b" / "0.png", width=size)
        refuses(tmp_path / name, "wanted sides of 8..96")
    folders(tmp_path / "parts" / "train"), picture(tmp_path / "parts" / "test" / "cat" / "0.png")
    refuses(tmp_path / "parts", "class folders differ between train and test (dog)")

"""The card tells what its set, its network and its maker say, as text and never as markup."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.card import card, read_accuracies
from edgedd.bundles.files import CARD, MOST_BYTES
from edgedd.errors import SettingError
from edgedd.exporting import export
from edgedd.synthetic_set import SyntheticSet

ROW = {"student": "convnet1-w4", "accuracy": 0.876, "spread": 0.0123, "accuracies": [0.8642, 0.8888], "bytes": 9}
FACTS = {"student": "s", "mode": "full", "target": None, "licence": None, "edgedd": "0"}


def test_a_card_tells_where_a_bundle_comes_from(synthetic: SyntheticSet, tmp_path: Path) -> None:
    given = replace(synthetic, provenance={"method": "frepo", "command": "edgedd distill --data fm | x", "seed": 1})
    bundle = export(given, tmp_path / "b", student="convnet1-w4", licence="CC-BY-4.0", accuracies=[ROW])
    text = bundle.file(CARD).read_text()
    assert (bundle.licence, Bundle.load(tmp_path / "b").licence) == ("CC-BY-4.0", "CC-BY-4.0")
    for line in (
        "**Licence:** CC-BY-4.0",
        "| student | convnet1-w4 |",
        "| images | 15 of 1x8x8, 5 per class |",
        "| classes | circle, cross, bar |",
        "| method | frepo |",
        r"| command | edgedd distill --data fm \| x |",
        "| steps | 30 |",
        "| convnet1-w4 | 87.6 +- 1.2 % | 2 |",
        f"| set.safetensors | {given.nbytes:,} |",
    ):
        assert line in text.splitlines(), line


def test_what_a_set_says_is_never_markup_and_a_card_is_bounded(synthetic: SyntheticSet) -> None:
    hostile = {"note": "<script>\n# [x](http://y)\u202e", **{f"k{n}": "\U0001f600_" * 900 for n in range(999)}}
    text = card(replace(synthetic, provenance=hostile), FACTS, {}, [ROW] * 100)
    assert r"| note | \<script\>\\n\# \[x\]\(http://y\)\\u202e |" in text.splitlines()
    assert len(text.encode()) <= MOST_BYTES[CARD]
    assert "not stated: ask whoever" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "has no rows"),
        (json.dumps(ROW), "has no rows"),
        (json.dumps([ROW | {"accuracy": 87.65}]), "has no rows"),
        (json.dumps([ROW | {"accuracies": []}]), "has no rows"),
        (json.dumps([ROW | {"spread": "1"}]), "has no rows"),
        ("[" * 99_999, "is not JSON"),
        (" " * (2**20 + 1), "has more than 1048576 bytes"),
    ],
)
def test_accuracies_are_what_evaluate_prints(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(SettingError, match=words):
        read_accuracies(path)
    path.write_text(json.dumps([ROW]))
    assert read_accuracies(path) == [ROW]
    with pytest.raises(SettingError, match="is missing or no file"):
        read_accuracies(tmp_path)


@pytest.mark.parametrize("licence", ["", " ", "a\nb", "x" * 501])
def test_a_licence_is_one_line(synthetic: SyntheticSet, tmp_path: Path, licence: str) -> None:
    with pytest.raises(SettingError, match="wanted one line of 1 to 500 characters"):
        export(synthetic, tmp_path / "b", student="convnet1-w4", licence=licence)

"""Sets of different classes as one."""

from dataclasses import replace

import numpy as np
import pytest
from device_bundle import SHAPE

from edgedd.errors import DataError
from edgedd.joining import join
from edgedd.parameterization import LowRank, Parameterization, SharedBasis
from edgedd.synthetic_set import SyntheticSet


@pytest.mark.parametrize("form", [LowRank(SHAPE, 3, 2, 4), SharedBasis(SHAPE, 3, 1, 8)], ids=lambda form: form.kind)
def test_joined_sets_have_the_images_and_labels_of_each(form: Parameterization, synthetic: SyntheticSet) -> None:
    generator, sets = np.random.default_rng(0), []
    for names in (("a", "b"), ("c", "d", "e"), ("f", "g")):
        count = 12
        labels = generator.dirichlet(np.ones(len(names)), count)
        factors = {name: generator.normal(0, 1, shape) for name, shape in form.factor_shapes(count).items()}
        flat = {"mean": np.full(1, 0.5), "std": np.full(1, 0.25), "recipe": synthetic.recipe, "provenance": {}}
        sets.append(SyntheticSet.from_factors(form, factors=factors, labels=labels, classes=names, **flat))
    sets[1] = replace(sets[1], tensors=sets[1].tensors)
    joined = join(sets)
    assert joined.classes == tuple("abcdefg") and joined.count == 36 and joined.parameterization.bits == 16
    wanted = np.concatenate([each.images(slice(None)) for each in sets])
    np.testing.assert_allclose(joined.images(slice(None)), wanted, atol=2e-2)
    np.testing.assert_array_equal(joined.soft_labels(slice(12, 24))[:, 2:5], sets[1].soft_labels(slice(None)))
    assert joined.soft_labels(slice(12, 24))[:, [0, 1, 5, 6]].max() == 0
    with pytest.raises(DataError, match="class 'a' is in two"):
        join([sets[0], sets[0]])
    with pytest.raises(DataError, match="normalised by another"):
        join([sets[0], replace(sets[2], tensors=dict(sets[2].tensors) | {"mean": np.float32([0.4])})])

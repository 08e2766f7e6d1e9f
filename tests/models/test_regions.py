"""The regions: the teacher by hand, and a model that has its numbers makes no error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from models.data import make_regions
from models.regions import RegionsMixture


def test_the_teacher_by_hand():
    teacher = make_regions(jax.random.key(0), dimension=3, regions=4)
    x, y = teacher.sample(jax.random.key(1), 50)
    for row, target in zip(np.asarray(x), np.asarray(y), strict=True):
        region = int(np.argmax(row @ np.asarray(teacher.directions)))
        expected = row @ np.asarray(teacher.slopes)[region] + np.asarray(teacher.intercepts)[region]
        np.testing.assert_allclose(target, [expected], rtol=1e-4, atol=1e-5)
    assert len(set(np.argmax(np.asarray(x @ teacher.directions), axis=1))) == 4


def test_a_mixture_with_the_teachers_numbers_is_exact():
    teacher = make_regions(jax.random.key(0), dimension=3, regions=4)
    model = RegionsMixture(jax.random.key(2), num_experts=4, dimension=3)
    model = eqx.tree_at(
        lambda m: (m.experts.weight, m.experts.bias, m.router_network.weight),
        model,
        (teacher.slopes[:, None], teacher.intercepts[:, None], 1000 * teacher.directions.T),
    )
    x, y = teacher.sample(jax.random.key(1), 200)
    losses = model.losses(model.most_probable_outputs(x), y)
    assert jnp.max(losses) < 1e-6
    assert (model.num_experts, model.num_inputs, model.num_outputs) == (4, 3, 1)

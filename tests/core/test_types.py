import jax.numpy as jnp
import pytest

from research.core.types import Mean, loss_value


def test_means_merge_by_total_and_count():
    ragged = Mean.of(jnp.array([1.0, 2.0]), jnp.array([True, True])) + Mean.of(jnp.array([10.0, 99.0]), jnp.array([True, False]))
    assert float(ragged.value) == pytest.approx(13 / 3)  # the mean of the means would be 5.75


def test_a_mean_of_nothing_is_zero():
    assert float(Mean.of(jnp.array([5.0]), jnp.array([False])).value) == 0.0


def test_the_loss_is_the_sum_of_its_terms():
    terms = {"a": Mean(jnp.float32(6), jnp.float32(3)), "b": Mean(jnp.float32(1), jnp.float32(2))}
    assert float(loss_value(terms)) == pytest.approx(2.5)

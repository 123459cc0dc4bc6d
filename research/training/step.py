"""The train step: gradients, update, moving average. No I/O, no objective, no model."""

import jax
import jax.numpy as jnp
import optax

from research.core.streams import stream
from research.core.types import Mean, loss_value
from research.training.state import TrainState, join, split


def make_train_step(loss_fn, optimizer, learning_rate, seed: int, accumulate: int = 1, ema_decay: float | None = None, frozen=frozenset()):
    """A pure function (state, batch) -> (state, Means), to be jitted.

    `learning_rate` is the schedule that `optimizer` follows, here only to be reported. All randomness is the key of (seed, step). With
    `accumulate` = k the batch is taken in k microbatches under a scan; the update is that of the whole batch, whatever each microbatch counts.
    The parameters whose path is in `frozen` are constants: they have no gradient, and neither optimizer nor moving average touches their bits.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    gradients = _full_batch if accumulate == 1 else _accumulated(accumulate)

    def train_step(state: TrainState, batch):
        rng = stream(seed, state.step, "loss")
        params, constants = split(state.params, frozen)
        grads, means = gradients(lambda params, *args: loss_fn(join(params, constants), *args), params, batch, rng)
        updates, opt_state = optimizer.update(grads, state.opt_state, params, rng=stream(seed, state.step, "rounding"))
        params = optax.apply_updates(params, updates)
        ema = state.ema
        if ema is not None:
            assert ema_decay is not None  # or there would be none
            ema = join(optax.incremental_update(params, split(ema, frozen)[0], 1 - ema_decay), constants)
        means["gradient_norm"] = Mean(optax.global_norm(grads), jnp.float32(1))
        means["learning_rate"] = Mean(jnp.float32(learning_rate(state.step)), jnp.float32(1))
        return TrainState(state.step + 1, join(params, constants), opt_state, ema), means

    return train_step


def make_eval_step(loss_fn):
    """(params, batch) -> Means of the same loss, deterministic."""

    def eval_step(params, batch):
        terms, metrics = loss_fn(params, batch, None)
        return _with_loss(terms, metrics)

    return eval_step


def _with_loss(terms, metrics):
    """All that is measured, the loss as the terms whose means sum to it."""
    if twice := metrics.keys() & {"loss", "gradient_norm", "learning_rate", *terms}:
        raise ValueError(f"a metric may not have the name of the loss, of one of its terms, or of what the step adds: {', '.join(sorted(twice))}")
    return {"loss": terms, **metrics}


def _full_batch(loss_fn, params, batch, rng):
    def loss(params):
        terms, metrics = loss_fn(params, batch, rng)
        return loss_value(terms), _with_loss(terms, metrics)

    (_, means), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return grads, means


def _accumulated(k: int):
    """Gradients by a scan over k microbatches.

    The loss is a sum of means, total_i / count_i over the whole batch. The counts do not depend on the parameters, so a first
    scan adds them (the compiler drops the rest of it), and a second adds the gradients of total_i / count_i: exact, where
    a mean of the microbatches' means is not (5.5 against 4.33 for losses 1, 2 | 10 against 1, 2, 10).
    """

    def split(x):
        # Row r goes to microbatch r mod k: each microbatch then lies on all devices with no exchange.
        return x.reshape(x.shape[0] // k, k, *x.shape[1:]).swapaxes(0, 1)

    def gradients(loss_fn, params, batch, rng):
        micro = (jnp.arange(k), jax.tree.map(split, batch))

        def measure(params, i, batch):
            return loss_fn(params, batch, jax.random.fold_in(rng, i))

        def counts_of(_, x):
            terms, _ = measure(params, *x)
            return None, {name: term.count for name, term in terms.items()}

        _, counts = jax.lax.scan(counts_of, None, micro)
        counts = {name: jnp.maximum(count.sum(), jnp.finfo(jnp.float32).tiny) for name, count in counts.items()}

        def add_gradients(grads, x):
            def loss(params):
                terms, metrics = measure(params, *x)
                return sum(term.total / counts[name] for name, term in terms.items()), _with_loss(terms, metrics)

            more, means = jax.grad(loss, has_aux=True)(params)
            return jax.tree.map(jnp.add, grads, more), means

        grads, means = jax.lax.scan(add_gradients, jax.tree.map(jnp.zeros_like, params), micro)
        return grads, jax.tree.map(lambda x: x.sum(0), means)

    return gradients

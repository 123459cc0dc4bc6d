"""What a language model makes of prompts, and what that is worth.

N completions, `group` of each prompt side by side, S tokens of prompt and completion, B rows of a batch.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jax.experimental import multihost_utils
from tqdm import tqdm

from research.core.errors import UserError
from research.core.sharding import split_rows
from research.core.streams import stream
from research.data.prompts import Prompt, Prompts
from research.models import decode
from research.models.heads import last
from research.rl.rewards import Reward

SHOWN = 3  # completions that an evaluation prints


@dataclasses.dataclass(frozen=True, eq=False)
class Rollouts:
    """An Experience. A round asks `prompts` prompts, drawn with replacement, for `group` completions each; the store is what the objective makes of
    them: a dict of arrays (N, ...) as its batch has them, and `reward` (N,) float32, or for an objective of pairs those of the best and the worst
    completion of each prompt.

    Completions are drawn with the key-value cache, and their log-probabilities kept as they were. Every row is in one of the first N / B batches of a round,
    once, and again in the next as many, each of which has completions of as many prompts as there can be.
    """

    objective: Any  # of research/objectives/policy_gradient.py or preference.py
    tokenizer: tokenizers.Tokenizer
    training: Prompts
    validation: Prompts
    reward: Reward
    prompts: int
    group: int
    updates: int
    max_tokens: int
    eval_prompts: int

    def __post_init__(self):
        rows, B = self.prompts * (self.group if self.weighs else 1), self.objective.batch_size
        if self.training.length + self.max_tokens != self.objective.length:
            raise UserError(
                f"rl.prompt_length {self.training.length} and rl.max_tokens {self.max_tokens} make rows of {self.training.length + self.max_tokens} "
                f"tokens, data.length is {self.objective.length}: set it so."
            )
        if self.group < 2:
            raise UserError(f"rl.group is {self.group}: completions of a prompt are compared, so that there must be at least 2.")
        if rows % B:
            raise UserError(
                f"a round gives {rows} rows (rl.prompts times rl.group, or pairs), which do not divide into batches of data.batch_size={B}."
            )
        if self.updates % (rows // B):
            raise UserError(
                f"rl.updates={self.updates} batches of data.batch_size={B} do not take all {rows} rows of a round equally often: set it to a multiple of {rows // B}."
            )
        if len(self.validation) < self.eval_prompts:
            raise UserError(f"rl.eval_prompts is {self.eval_prompts}, the validation split has {len(self.validation)} prompts: lower it.")

    @property
    def weighs(self) -> bool:
        """Whether the objective weighs each completion; else it compares the best with the worst."""
        return hasattr(self.objective, "credit")

    @property
    def spec(self):
        return self.objective.example_batch

    @property
    def figures(self) -> list[str]:
        return ["reward", "completion_tokens", *(["reference_kl"] if self.objective.has_reference else [])]

    @property
    def rows(self) -> dict[str, int]:
        return {"rl.prompts": self.prompts, "rl.eval_prompts": self.eval_prompts}

    @property
    def manifest(self) -> dict:
        return {"training": self.training.manifest, "validation": self.validation.manifest}

    def start(self, key):
        rows = jax.ShapeDtypeStruct((self.prompts * self.group, self.objective.length), jnp.float32)
        of = lambda dtype: jax.ShapeDtypeStruct(rows.shape, dtype)
        made = decode.Completed(of(jnp.int32), of(bool), rows)
        params = jax.eval_shape(self.objective.init, key)
        shapes = jax.eval_shape(self._learn_from, params, made, jax.ShapeDtypeStruct(rows.shape[:1], jnp.float32))
        return jax.jit(lambda: split_rows(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)))()

    def collect(self, params, store, key):
        which_key, draw_key = jax.random.split(key)
        which_P = np.asarray(jax.random.randint(which_key, (self.prompts,), 0, len(self.training)))
        asked = [prompt for i in which_P for prompt in [self.training[int(i)]] * self.group]
        made, texts = self.complete(params, asked, draw_key)
        return self._learn_from(params, made, self.reward(asked, texts))

    def ready(self, store) -> bool:
        return True

    @functools.partial(jax.jit, static_argnums=0)
    def sample(self, store, turn, key):
        B = self.objective.batch_size
        return split_rows({name: x.reshape(B, -1, *x.shape[1:])[:, turn % (len(x) // B)] for name, x in store.items() if name in self.spec})

    def evaluate(self, params):
        """Of one completion, drawn as in training, of each of the first prompts for validation: the mean reward, how many tokens it has, and how far, in nats a
        token, the policy is from the reference there. Prints some of them: a reward can be had in ways that nobody meant."""
        asked = [self.validation[i] for i in range(self.eval_prompts)]
        made, texts = self.complete(params, asked, stream(0, 0, "match"))
        rewards_N = self.reward(asked, texts)
        found = {"reward": float(np.mean(rewards_N)), "completion_tokens": float(made.mask_BS.sum() / len(asked))}
        if self.objective.has_reference:
            found["reference_kl"] = float(self._reference_kl(params, made))
        if jax.process_index() == 0:
            tqdm.write("  " + "  ".join(f"{name} {value:.3f}" for name, value in found.items()))
            for prompt, text, reward in list(zip(asked, texts, rewards_N))[:SHOWN]:
                tqdm.write(f"  reward {reward:.2f}  {prompt.text!r} -> {text!r}")
        return found

    def complete(self, params, asked: Sequence[Prompt], key) -> tuple[decode.Completed, list[str]]:
        """A completion of each, as arrays on the devices and in words."""
        tokens_NT, lengths_N = decode.pad([list(prompt.ids) for prompt in asked], self.training.length)
        keys_N = jax.random.split(key, len(asked))
        o = self.objective
        decoder = decode.Decoder(o.model, o.vocabulary.size, o.vocabulary.end)
        made = decode.complete(decoder, o.temperature, self.max_tokens, params, tokens_NT, lengths_N, keys_N)
        tokens_NS, mask_NS = (multihost_utils.process_allgather(x, tiled=True) for x in (made.tokens_BS, made.mask_BS))
        return made, self.tokenizer.decode_batch([list(row[chosen]) for row, chosen in zip(tokens_NS, mask_NS)])

    @functools.partial(jax.jit, static_argnums=0)
    def _learn_from(self, params, made: decode.Completed, rewards_N):
        return split_rows(self._credited(params, made, rewards_N) if self.weighs else self._compared(made, rewards_N))

    def _credited(self, params, made, rewards_N):
        """Each completion with what its tokens are worth."""
        o, tokens_NS = self.objective, made.tokens_BS
        batch = {"tokens": tokens_NS, "mask": made.mask_BS, "log_probs": made.log_probs_BS, "reward": rewards_N, "valid": made.mask_BS.any(1)}
        reference_NS = self._reference(params, tokens_NS) if o.has_reference else jnp.zeros_like(made.log_probs_BS)
        batch["reference_log_probs"] = jnp.where(made.mask_BS, reference_NS, 0)
        if "values" in self.spec:
            batch["values"] = self._in_batches(functools.partial(o.values, params), tokens_NS)
        return batch | o.credit(rewards_N, batch, self.group)

    def _reference(self, params, tokens_NS):
        """Log-probabilities as the reference has them."""
        return self._in_batches(functools.partial(self.objective.log_probs, params["reference"]), tokens_NS)

    def _in_batches(self, of, tokens_NS):
        """of(tokens) of all rows, of as many at a time as a batch has: the logits of all of them at once would take too much memory."""
        N, S = tokens_NS.shape
        B = math.gcd(N, self.objective.batch_size)
        found_KBS = jax.lax.map(lambda tokens_BS: of(split_rows(tokens_BS)), tokens_NS.reshape(B, -1, S).swapaxes(0, 1))
        return split_rows(found_KBS.swapaxes(0, 1).reshape(N, S))

    def _compared(self, made, rewards_N):
        """The best completion of each prompt beside the worst; not valid where all are as good."""
        rewards_PG = rewards_N.reshape(-1, self.group)
        first_P = jnp.arange(len(rewards_PG)) * self.group
        batch = {"valid": rewards_PG.max(1) > rewards_PG.min(1)}
        for side, rows_P in (("chosen", first_P + rewards_PG.argmax(1)), ("rejected", first_P + rewards_PG.argmin(1))):
            mask_PS = made.mask_BS[rows_P]
            real_PS = jnp.arange(mask_PS.shape[1]) <= last(mask_PS)[:, None]
            batch |= {f"{side}/tokens": made.tokens_BS[rows_P], f"{side}/mask": mask_PS, f"{side}/real": real_PS}
        return batch

    @functools.partial(jax.jit, static_argnums=0)
    def _reference_kl(self, params, made):
        """KL(policy || reference) in nats a token, as what the policy drew tells it without a bias: the mean of log p - log q."""
        reference_NS = self._reference(params, made.tokens_BS)
        return jnp.sum(made.log_probs_BS - reference_NS, where=made.mask_BS) / made.mask_BS.sum()

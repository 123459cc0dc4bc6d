"""A run + text -> the words that fit.

python -m research.predict --workdir=runs/quickstart --text="London is the [MASK] of England." [--top=5] [--step=N]
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from configs import base
from research import build
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.data.tokenizer import load_tokenizer, vocabulary


def main(argv):
    def define(values):
        flags.DEFINE_string("text", None, "Text in which [MASK] stands for a word to find.", flag_values=values)
        flags.DEFINE_integer("top", 5, "How many fills to print.", lower_bound=1, flag_values=values)
        flags.DEFINE_integer("step", None, "Which checkpoint; absent: the latest.", flag_values=values)

    values, config = config_lib.parse_run(argv, base.get_config(), define)
    workdir, config = pathlib.Path(values.workdir), build.fitting(config, argv)
    if not build.has_vocabulary(config):
        raise UserError(f"this run was trained for {config.objective.name}, which fills no [MASK].")
    tokenizer = load_tokenizer(workdir / "tokenizer.json")
    e = build.experiment(config, vocabulary(tokenizer))
    tokens, positions = encode(values.text, tokenizer, e.objective)
    _, params = build.trained_params(e, workdir, values.step)
    log_probs_PV = jax.jit(e.objective.fill)(params, tokens, jnp.zeros_like(tokens), positions)[0]
    for log_probs_V in np.asarray(log_probs_PV):
        best = np.argsort(-log_probs_V, kind="stable")[: values.top]
        print("  ".join(f"{tokenizer.id_to_token(int(token))} {np.exp(log_probs_V[token]):.3f}" for token in best))


def encode(text: str | None, tokenizer, objective):
    """tokens (1, T) and positions (1, P) of the [MASK]s in `text`. Raises UserError where there is nothing to fill, or no room."""
    if not hasattr(objective, "fill"):
        raise UserError(f"this run was trained for {type(objective).__name__}, which fills no [MASK].")
    if not (text or "").strip():
        raise UserError('say what to fill: --text="London is the [MASK] of England."')
    ids = tokenizer.encode(text).ids
    if len(ids) > objective.length:
        raise UserError(f"the text has {len(ids)} tokens, this run takes at most {objective.length}: shorten it.")
    positions = [i for i, token in enumerate(ids) if token == objective.vocabulary.mask]
    if not positions:
        raise UserError(f"there is no [MASK] in {text!r}: put one where a word is to be found.")
    return jnp.array([ids], jnp.int32), jnp.array([positions], jnp.int32)


if __name__ == "__main__":
    run_command(main)

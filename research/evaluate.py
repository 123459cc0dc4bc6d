"""A run -> metrics on any split.

    python -m research.evaluate --workdir=runs/quickstart [--split=validation] [--step=N] [--config.mesh.fsdp=1 ...]

Prints one JSON object: the same figures that training logged for that step and split. Of several processes (--distributed) one prints.
"""

import functools
import json
import pathlib

import jax
from absl import flags

from configs import base
from research import build, measure, restore
from research.core import config as config_lib
from research.core import sharding
from research.core.errors import UserError, run_command


def main(argv):
    def define(values):
        config_lib.define_distributed(values)
        flags.DEFINE_string("split", None, "A split of the data set; absent: the config's validation split.", flag_values=values)
        flags.DEFINE_integer("step", None, "Which checkpoint; absent: the latest.", flag_values=values)

    values, config = config_lib.parse_run(argv, base.get_config(), define)
    sharding.join_processes(values.distributed)
    workdir, config = pathlib.Path(values.workdir), restore.fitting(config, argv)
    if values.split and config.rl.experience is not None:
        raise UserError(f"{workdir} is an agent's, which is measured as its config says: leave out --split.")
    split = values.split or config.data.validation_split
    corpus = build.make_corpus(config, workdir)
    e = build.experiment(config, corpus.vocabulary)
    step, params = restore.trained_params(e, workdir, values.step)
    with e.in_force():
        lived = build.experience(e, corpus, functools.partial(restore.judge, defaults=base.get_config()))
        metrics = measure.evaluator(e, corpus, split, config.run.eval_batches, lived)(params)
    if jax.process_index() == 0:
        named = "validation" if split == config.data.validation_split else split  # as training logs it
        print(json.dumps({"step": step} | {f"{named}/{name}": value for name, value in metrics.items()}))


if __name__ == "__main__":
    run_command(main)

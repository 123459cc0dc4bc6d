"""Raw text or images -> a data set that trains: cleaned, deduplicated, checked, by a recipe; with a manifest that says what happened.

    python -m research.prepare --config=configs/data/debian.py [--config.FIELD=VALUE ...] [--workers=N] [--beam=OPTION ...]

The data set lies where TFDS keeps them (output.dir): a training config names it as data.name. The same command again goes on if it was stopped. --workers, all
processors unless it is given: on this machine, by Apache Beam; --beam, any number of times: an option of Beam, as --beam=--runner=DataflowRunner, for which
output.dir lies on a file system that all workers see.
"""

import json
import os
import pathlib
import re

from absl import flags

from research.core import config as config_lib
from research.core.config import look_up
from research.core.errors import UserError, run_command
from research.curation.duplicates import ExactDuplicates, NearDuplicates, NearImages
from research.curation.engine import Engine
from research.curation.passages import Contamination, RepeatedPassages
from research.curation.preparation import Recipe, prepare
from research.data.fetch import cache_dir
from research.tables import DATASETS, from_fields

FORMATS: dict = {}
FETCHERS: dict = {}
RULES: dict = {  # name -> function(its group of the config, the config) -> Rule or Stage
    "exact_duplicates": lambda group, config: ExactDuplicates(),
    "near_duplicates": lambda group, config: from_fields(NearDuplicates, group, seed=config.seed),
    "near_images": lambda group, config: from_fields(NearImages, group),
    "repeated_passages": lambda group, config: from_fields(RepeatedPassages, group),
}


def main(argv):
    def define(values):
        flags.DEFINE_integer("workers", os.cpu_count(), "Processes on this machine.", lower_bound=1, flag_values=values)
        flags.DEFINE_multi_string("beam", [], "Options of Apache Beam.", flag_values=values)

    values, config = config_lib.parse(argv, define)
    manifest, now = prepare(recipe(config), Engine(values.workers, values.beam))
    print(manifest)


def recipe(config) -> Recipe:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", config.name) or not re.fullmatch(r"\d+\.\d+\.\d+", config.version):
        raise UserError(f"config.name {config.name!r} and config.version {config.version!r} are those of a TFDS data set: such as my_corpus and 1.0.0.")


if __name__ == "__main__":
    run_command(main)

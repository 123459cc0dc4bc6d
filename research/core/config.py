"""Configs: a Python file, overridden on the command line, locked, frozen, and kept as JSON beside the run.

A config holds no objects: numbers, strings, booleans, tuples of them, and None for what is absent.
"""

import copy
import importlib
import json
import pathlib
import re

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from research.core.errors import UserError

# What may differ when a run goes on: where it computes and how often it reports, never what it computes.
MAY_CHANGE = ("mesh.", "run.log_every", "run.eval_every", "run.save_every", "run.keep", "run.trackers", "data.threads", "data.buffer", "data.dir")


def parse(argv: list[str], define=lambda values: None) -> tuple[flags.FlagValues, FrozenConfigDict]:
    """Reads --config=FILE[:ARGUMENT], --config.a.b=value, --workdir, and the flags that `define(flag_values)` adds.

    Raises UserError, in one line and with the nearest real name, for an unknown field or flag, a wrong type, a missing file.
    """
    argv, values = [_quoted(arg) for arg in argv], flags.FlagValues()
    path = (given("config", argv) or "").split(":")[0]
    if not pathlib.Path(path).is_file():
        raise UserError(f"there is no config file {path}: give the path of one, such as configs/quickstart.py.")
    config_flags.DEFINE_config_file("config", None, "A config file; its one argument may follow a colon.", **_options(values, argv))
    _read_flags(values, argv, define)
    return values, FrozenConfigDict(values.config)


def parse_run(argv: list[str], defaults: ConfigDict, define=lambda values: None) -> tuple[flags.FlagValues, FrozenConfigDict]:
    """Reads --workdir=RUN, --config.a.b=value over the config that RUN holds, and the flags that `define(flag_values)` adds.

    A field that came after the run was made has the value it has in `defaults`, which also know the types of what is absent.
    """
    if (workdir := given("workdir", argv)) is None:
        raise UserError("say which run: --workdir=runs/NAME; to train, say what as well: --config=configs/NAME.py.")
    return parse_over(argv, read(pathlib.Path(workdir) / "config.json", defaults), define)


def parse_over(argv: list[str], kept: ConfigDict, define=lambda values: None) -> tuple[flags.FlagValues, FrozenConfigDict]:
    """Reads --config.a.b=value over a config that is known already, and the flags that `define(flag_values)` adds."""
    argv, values = [_quoted(arg) for arg in argv], flags.FlagValues()
    config_flags.DEFINE_config_dict("config", kept, "The config.", **_options(values, argv))
    _read_flags(values, argv, define)
    return values, FrozenConfigDict(values.config)


def parse_any(argv: list[str], defaults: ConfigDict, define=lambda values: None) -> tuple[flags.FlagValues, FrozenConfigDict]:
    """What --config names, or what the run holds that --rerun=RUN names, or else the one that --workdir does; see `parse`, `parse_over` and `parse_run`."""

    def with_rerun(values):
        flags.DEFINE_string("rerun", None, "The run to make again.", flag_values=values)
        define(values)

    again = given("rerun", argv)
    if given("config", argv) is None:
        return (
            parse_run(argv, defaults, with_rerun)
            if again is None
            else parse_over(argv, read(pathlib.Path(again) / "config.json", defaults), with_rerun)
        )
    if again is not None:
        raise UserError("--config and --rerun both say what to run: leave one out; --config.FIELD=VALUE changes a field.")
    return parse(argv, with_rerun)


def changed(config: FrozenConfigDict, fields: dict) -> FrozenConfigDict:
    """The config with other values of some fields, {dotted name: value}."""
    c = copy.deepcopy(ConfigDict(config))  # of which the groups are those that `config` keeps
    c.update_from_flattened_dict(fields)
    return FrozenConfigDict(c)


def define_distributed(values):
    flags.DEFINE_bool("distributed", False, "Join the other processes of a multi-host job.", flag_values=values)


def given(flag: str, argv: list[str]) -> str | None:
    """The value of --flag=value or --flag value, the last if there are several; None if there is none."""
    joined = [arg.split("=", 1)[1] for arg in argv if re.match(f"--?{flag}=", arg)]
    apart = [after for arg, after in zip(argv, argv[1:]) if re.fullmatch(f"--?{flag}", arg)]
    return next(reversed(joined + apart), None)


def _options(values, argv) -> dict:
    return {"lock_config": True, "flag_values": values, "sys_argv": argv}


def _read_flags(values, argv, define):
    flags.DEFINE_string("workdir", None, "The run directory.", flag_values=values)
    define(values)
    try:
        rest = values(argv)
    except flags.Error as e:
        if "Error whilst parsing config file" in str(e):
            raise e.__context__ from None  # its message is the traceback of the error in the file
        raise UserError(str(e)) from e
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise _explained(e, argv) from e
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not understood: every argument is a flag, --name=value.")


def _quoted(arg: str) -> str:
    """`--config.init.from=RUN` as ml_collections reads it: a Python keyword cannot be an attribute."""
    return re.sub(r"^(--?config\.init)\.from\b", r'\1["from"]', arg)


def _explained(error: Exception, argv) -> Exception:
    """An override that names no field or has the wrong type is the user's; an error inside a config file is ours."""
    overrides = [arg for arg in argv if arg.startswith("--config.")]
    message = str(error.args[0] if error.args else error).replace("\\'", "'")
    unknown = re.search(r"'(\w+)'", message)
    for override in overrides:
        key = override.removeprefix("--config.").split("=")[0]
        if unknown and unknown[1] in key.split("."):
            near = re.search(r'Did you mean "(\w+)"', message)
            return UserError(f"the config has no field {key!r}{f': did you mean {near[1]!r}?' if near else '; configs/base.py lists all'}")
    return UserError(f"{overrides[-1]}: {message}") if overrides and isinstance(error, (TypeError, ValueError)) else error


AT_LEAST = {  # the least that makes sense; of absent fields nothing is asked. What is said of model.* goes for the towers model.first and model.second too
    1: "run.steps run.log_every run.eval_every run.save_every run.keep run.eval_batches data.batch_size data.eval_batch_size data.threads data.buffer "
    "model.heads model.kv_heads model.layers model.width model.mlp_width model.max_length model.attention_window model.image_size model.image_width "
    "model.channels model.patch_size model.observation_size model.embedding_width objective.decoder_width objective.decoder_layers "
    "objective.decoder_heads objective.classes objective.loss_chunks objective.pairs_per_row model.microbatches model.scan_unroll probe.limit probe.neighbors lora.rank "
    "objective.actions rl.updates rl.games rl.moves rl.kept rl.simulations rl.eval_games rl.prompts rl.group rl.prompt_length rl.prompt_words rl.max_tokens "
    "rl.eval_prompts rl.words data.augmix_width data.mean_span",
    8: "data.length data.short_length model.vocab_size",
    0: "model.token_types rl.opening objective.value_weight objective.projection_width objective.z_loss objective.mixup objective.cutmix "
    "data.color_jitter data.randaugment_layers data.randaugment_magnitude data.augmix_severity optimizer.warmup_steps optimizer.learning_rate optimizer.weight_decay",
}
AT_MOST = {30: "data.randaugment_magnitude", 10: "data.augmix_severity"}
MORE_THAN_0 = "data.crop_area rl.reward_scale model.temperature objective.temperature model.layer_scale model.norm_epsilon model.rotary_base"
SHARES = (
    "objective.mask_rate objective.label_smoothing data.short_fraction data.short_rate data.word_dropout data.crop_words data.crop_area "
    "data.erasing data.eda_alpha data.code_switch_rate data.back_translation_rate data.span_corruption "
    "optimizer.ema_decay optimizer.final_fraction optimizer.b1 optimizer.b2 optimizer.layer_decay"
)
LESS_THAN_1 = "model.stochastic_depth model.dropout model.attention_dropout"


def check_fields(c):
    """Raises UserError for a value that no model, data or machine could make sense of."""
    values = flatten(c)

    def each(names):
        for name in names.split():
            for field in (name, name.replace("model.", "model.first."), name.replace("model.", "model.second.")):
                if values[field] is not None:
                    yield field, values[field]

    def refuse(names, wrong, what):
        for name, value in each(names):
            if wrong(value):
                raise UserError(f"config.{name} is {value}: it must {what}.")

    for least, names in AT_LEAST.items():
        refuse(names, lambda value: value < least, f"be at least {least}")
    for most, names in AT_MOST.items():
        refuse(names, lambda value: value > most, f"be at most {most}")
    refuse(MORE_THAN_0, lambda value: value <= 0, "be more than 0")
    refuse(SHARES, lambda value: not 0 <= value <= 1, "lie between 0 and 1")
    refuse(LESS_THAN_1, lambda value: not 0 <= value < 1, "be at least 0 and less than 1")
    if c.run.best_mode not in ("min", "max"):
        raise UserError(f"config.run.best_mode is {c.run.best_mode!r}: choose min or max.")
    for name in ("optimizer.no_decay", "optimizer.frozen", "optimizer.below_layers", "init.allow_new", "lora.pattern", "lora.trained"):
        try:
            re.compile(values[name] or "")
        except re.error as e:
            raise UserError(f"config.{name} is {values[name]!r}, which is no regular expression ({e}).") from e


def look_up(table: dict, name: str, field: str):
    """The row of `table`, or what "package.module:function" names outside this repository."""
    if name in table:
        return table[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        known = f"choose one of {', '.join(table)}, or name" if table else "name"
        raise UserError(f'config.{field} is {name!r}: {known} your own as "package.module:function".')
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as e:
        raise UserError(f"config.{field} is {name!r}, which cannot be imported ({e}).") from e


def to_json(config) -> str:
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def read(path: pathlib.Path, defaults: ConfigDict) -> ConfigDict:
    """The config that a run directory holds, over `defaults`. Raises UserError if it is not there or cannot be read."""
    if not path.is_file():
        raise UserError(f"{path.parent} holds no run: there is no {path.name} in it.")
    try:
        return _over(ConfigDict(defaults), _tuples(json.loads(path.read_text())))
    except (ValueError, TypeError) as e:
        raise UserError(f"{path} cannot be read ({e}).") from e


def _over(config: ConfigDict, kept: dict) -> ConfigDict:
    for key, value in kept.items():
        config[key] = _over(config[key], value) if isinstance(value, dict) and key in config else value
    return config


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def flatten(config) -> dict:
    """{dotted.name: value} of every field."""
    return leaves(config.to_dict())


def leaves(tree: dict, prefix: str = "") -> dict:
    """The same of nested dicts."""
    found: dict = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else key
        found |= leaves(value, name) if isinstance(value, dict) else {name: value}
    return found


def differences(before, now) -> list[tuple]:
    """(name, value before, value now) of each field that differs."""
    before, now = flatten(before), flatten(now)
    return [(name, before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]

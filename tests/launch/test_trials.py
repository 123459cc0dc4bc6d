import pathlib

import numpy as np
import pytest

from launch import trials
from research.core.errors import UserError

TINY = ["--config=tests/tiny.py"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1e-4,3e-4", ["1e-4", "3e-4"]),
        ("adamw", ["adamw"]),
        ("0:3", ["0", "1", "2"]),
        ("2:9:3", ["2", "5", "8"]),
        ("('dense','local'),('dense',)", ["('dense','local')", "('dense',)"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("(('mlp','tensor'),),(('mlp',None),)", ["(('mlp','tensor'),)", "(('mlp',None),)"]),
        ("a{1,3},b", ["a{1,3}", "b"]),
    ],
)
def test_values(text, expected):
    assert trials.values("field", text) == expected


@pytest.mark.parametrize("kind, low, high", [("log", 1e-5, 1e-2), ("uniform", -1.0, 3.0)])
def test_draws(kind, low, high):
    drawn = lambda field, n: [float(x) for x in trials.values(field, f"{kind}({low},{high},{n})")]
    many = np.array(drawn("a", 2000))
    assert many.min() >= low and many.max() <= high and len(set(many)) > 1900
    scale = np.log if kind == "log" else np.asarray
    assert np.quantile(scale(many), [0.25, 0.5, 0.75]) == pytest.approx(
        scale(low) + np.array([0.25, 0.5, 0.75]) * (scale(high) - scale(low)), abs=0.25
    )
    assert drawn("a", 5) == list(many[:5]), "more draws begin with the same"
    assert abs(np.corrcoef(many, drawn("b", 2000))[0, 1]) < 0.1, "each field has its own"


def test_all_combinations_or_pairs():
    sweeps = ["optimizer.learning_rate=1e-3,1e-2", "seed=0:2"]
    pairs = lambda found: [(change["optimizer.learning_rate"], change["seed"]) for change in found]
    assert pairs(trials.expanded(sweeps, False)) == [("1e-3", "0"), ("1e-3", "1"), ("1e-2", "0"), ("1e-2", "1")]
    assert pairs(trials.expanded(sweeps, True)) == [("1e-3", "0"), ("1e-2", "1")]


@pytest.mark.parametrize(
    "sweeps, paired, message",
    [
        (["seed"], False, "FIELD=VALUES"),
        (["seed=0:2", "seed=1"], False, "each field once"),
        (["seed=3:3"], False, "has no number"),
        (["seed=1,,2"], False, "an empty value"),
        (["seed=0:3:0"], False, "has no number"),
        (["seed=log(1,inf,3)"], False, "less than the second"),
        (["seed=uniform(0,1,0)"], False, "1 or more"),
        (["seed=log(0,1,3)"], False, "more than 0"),
        (["seed=uniform(2,1,3)"], False, "less than the second"),
        (["seed=uniform(a,1,3)"], False, "from a number to a number"),
        (["seed=0:2", "run.steps=1,2,3"], True, "seed has 2, run.steps has 3"),
    ],
)
def test_what_names_no_values_is_refused(sweeps, paired, message):
    with pytest.raises(UserError, match=message):
        trials.expanded(sweeps, paired)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optimizer.learning_rat": "1"}, "did you mean 'learning_rate'"),
        ({"run.steps": "many"}, "run.steps=many"),
        ({"run.steps": "0"}, "at least 1"),
    ],
)
def test_a_field_or_value_that_the_config_cannot_have_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        trials.trials(TINY, [change], pathlib.Path("sweeps"))


def test_a_trial_lies_where_what_it_computes_says():
    make = lambda *arguments, **change: trials.trials([*TINY, *arguments], [change], pathlib.Path("sweeps"))[0].directory
    here = make(seed="1")
    assert here.parent == pathlib.Path("sweeps") and here.name.startswith("seed=1-")
    assert here == make("--config.run.log_every=7", "--config.mesh.fsdp=2", seed="1"), "where it computes and how often it reports does not matter"
    assert here != make("--config.optimizer.b1=0.8", seed="1")
    same = trials.trials(TINY, [{"optimizer.learning_rate": "1e-2"}, {"optimizer.learning_rate": "0.01"}], pathlib.Path("sweeps"))
    assert len(same) == 1, "values that come to the same are one trial"


def test_a_config_file_may_say_what_to_try(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def sweep():\n    for rate in (0.1, 0.2):\n        yield {'optimizer.learning_rate': rate, 'model.attention_pattern': ('dense', 'local')}\n"
    )
    first, second = trials.generated(str(file))
    assert first == {"optimizer.learning_rate": "0.1", "model.attention_pattern": "('dense', 'local')"} and second["optimizer.learning_rate"] == "0.2"
    assert trials.trials(TINY, [first], tmp_path)[0].config.model.attention_pattern == ("dense", "local")
    with pytest.raises(UserError, match=r"has no sweep\(\)"):
        trials.generated("tests/tiny.py")

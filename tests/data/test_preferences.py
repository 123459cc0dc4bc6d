import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from research import build, restore, train
from research.core import config as config_lib
from research.core.errors import UserError
from tests.rl import tiny_pairs
from tests.test_train import call
from tests.tiny_preferences import PAIRS


@pytest.fixture(scope="module")
def source(cache, tmp_path_factory):
    config = FrozenConfigDict(tiny_pairs.get_config())
    corpus = build.make_corpus(config, tmp_path_factory.mktemp("run"))
    return build.examples_of(config, corpus, "train", 32, training=True), corpus


def test_a_pair_is_its_prompt_with_either_completion_and_an_end(source):
    examples, corpus = source
    fitting = {pair[0]: pair[1:] for pair in PAIRS if pair[1] and len(pair[0]) < 30}  # TFDS has them in an order of its own
    assert len(examples) == len(fitting) == 4 and examples.manifest["number_left_out"] == 2
    for i in range(4):
        example = examples.example(i, np.random.default_rng(0))
        prompt = corpus.tokenizer.decode(list(example["chosen/tokens"][example["chosen/real"] & ~example["chosen/mask"]]))
        for side, completion in zip(("chosen", "rejected"), fitting.pop(prompt)):
            tokens, mask, real = (example[f"{side}/{name}"] for name in ("tokens", "mask", "real"))
            assert tokens.shape == (32,) and corpus.tokenizer.decode(list(tokens[real & ~mask])) == prompt
            assert corpus.tokenizer.decode(list(tokens[mask])) == completion and tokens[mask][-1] == corpus.vocabulary.end
            assert real.sum() == len(prompt) + len(completion) + 1 and not tokens[~real].any() and not (mask & ~real).any()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "kto", "reward_model"])
def test_preferences_are_learned_from_a_data_set(cache, tmp_path, objective):
    steps = ["--config.run.steps=20", "--config.run.eval_every=20", "--config.run.eval_first=False", "--config.model.pool=last"]
    call(train, f"--config=tests/rl/tiny_pairs.py:{objective}", f"--workdir={tmp_path}/run", *steps)
    config = config_lib.read(tmp_path / "run/config.json", tiny_pairs.get_config())
    assert config.data.source == "preference_pairs"
    reached = [line for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines() if "validation" in line][-1]
    name = "score_accuracy" if objective == "reward_model" else "reward_accuracy"
    assert f'"validation/{name}": 1.0' in reached
    if objective == "reward_model":
        judge = restore.judge(f"{tmp_path}/run", config)
        better, worse = (judge([pair[0] + pair[side] for pair in PAIRS if pair[1] and len(pair[0]) < 30]) for side in (1, 2))
        assert (better > worse).mean() >= 0.75
    else:
        with pytest.raises(UserError, match="gives no text a label or a score"):
            restore.judge(f"{tmp_path}/run", config)

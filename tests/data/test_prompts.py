import re

import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from research import build, tables
from research.core import config as config_lib
from research.core.errors import UserError
from tests.rl import tiny_sums


@pytest.fixture(scope="module")
def sums(cache, tmp_path_factory):
    config = FrozenConfigDict(tiny_sums.get_config())
    return config, build.make_corpus(config, tmp_path_factory.mktemp("run"))


def test_sums_are_right_and_those_for_validation_are_others(sums):
    config, corpus = sums
    of = {split: tables.prompts(config, corpus, split) for split in ("train", "validation")}
    asked = {split: [prompts[i] for i in range(len(prompts))] for split, prompts in of.items()}
    assert len(asked["train"]) + len(asked["validation"]) == 10_000 and 900 < len(asked["validation"]) < 1100
    assert not {prompt.text for prompt in asked["train"]} & {prompt.text for prompt in asked["validation"]}
    for prompt in asked["train"]:
        a, b = re.fullmatch(r"(\d+)\+(\d+)=", prompt.text).groups()
        assert int(prompt.answer) == int(a) + int(b)
        assert corpus.tokenizer.decode(list(prompt.ids)) == prompt.text


def test_prompts_that_are_too_long_are_left_out_and_counted(sums):
    config, corpus = sums
    short = tables.prompts(config_lib.changed(config, {"rl.prompt_length": 5}), corpus, "train")
    assert max(len(short[i].ids) for i in range(len(short))) == 5
    assert short.manifest["number_left_out"] + len(short) == len(tables.prompts(config, corpus, "train"))
    with pytest.raises(UserError, match="no example of arithmetic"):
        tables.prompts(config_lib.changed(config, {"rl.prompt_length": 1}), corpus, "train")


def test_a_prompt_may_be_the_first_words_of_a_text(cache, tmp_path):
    fields = {"data.name": "movie_reviews", "data.text_field": "text", "data.answer_field": None, "rl.prompt_words": 3, "rl.prompt_length": 64}
    config = config_lib.changed(FrozenConfigDict(tiny_sums.get_config()), fields)
    prompts = tables.prompts(config, build.make_corpus(config, tmp_path), "validation")
    found = [prompts[i] for i in range(20)]
    assert max(len(prompt.text.split()) for prompt in found) == 3 and {prompt.answer for prompt in found} == {""}
    assert all(prompt.ids.dtype == np.int32 for prompt in found)

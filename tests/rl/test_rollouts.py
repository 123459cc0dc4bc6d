import json

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from safetensors.numpy import load_file

from research import build, convert, evaluate, predict, restore, train
from research.core import config as config_lib
from research.core.errors import UserError
from research.core.streams import stream
from research.models import decode
from research.rl import rewards
from research.training.checkpoint import Checkpoints
from tests.rl import tiny_sums
from tests.test_train import assert_same_run, call, error

ONE = {"mesh.fsdp": 1}


def config_of(objective="grpo", **changes):
    return config_lib.changed(FrozenConfigDict(tiny_sums.get_config(objective)), {name.replace("__", "."): x for name, x in changes.items()} | ONE)


def prepared(config, folder, devices=None):
    """(experiment, its experience, params)"""
    corpus = build.make_corpus(config, folder)
    e = build.experiment(config, corpus.vocabulary, devices or jax.devices()[: config.mesh.fsdp])
    with e.in_force():
        return e, build.experience(e, corpus, None), jax.jit(e.init, out_shardings=e.shardings)().params


@pytest.fixture(scope="module")
def grpo(cache, tmp_path_factory):
    return prepared(config_of(), tmp_path_factory.mktemp("grpo"))


@pytest.fixture(scope="module")
def round_of(grpo):
    e, lived, params = grpo
    with e.in_force():
        return jax.device_get(lived.collect(params, lived.start(stream(0, 0, "collect")), stream(0, 1, "collect")))


TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}  # nats a token, between the cache one token at a time and the trainer all at once


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rollout_and_trainer_agree_on_log_probabilities(cache, tmp_path, dtype):
    e, lived, params = prepared(config_of(model__dtype=dtype, objective__temperature=0.7), tmp_path)
    with e.in_force():
        made, _ = lived.complete(params, [lived.training[i] for i in range(16)], jax.random.key(3))
        trainer = jax.jit(e.objective.log_probs)(params, made.tokens_BS)
    apart = abs(np.asarray(made.log_probs_BS) - np.asarray(trainer))[np.asarray(made.mask_BS)]
    assert apart.max() < TOLERANCE[dtype] and np.asarray(made.mask_BS).sum() > 30
    hotter = jax.jit(lambda params, tokens: e.objective.log_probs(params, tokens) * 0.7)(params, made.tokens_BS)
    assert abs(np.asarray(made.log_probs_BS) - np.asarray(hotter))[np.asarray(made.mask_BS)].max() > TOLERANCE[dtype], (
        "the comparison must be able to fail"
    )


def test_a_completion_follows_its_prompt_and_ends_with_its_end(grpo):
    e, lived, params = grpo
    asked = [lived.training[i] for i in range(16)]
    with e.in_force():
        made, texts = lived.complete(params, asked, jax.random.key(0))
    for prompt, text, tokens, mask in zip(asked, texts, *map(np.asarray, (made.tokens_BS, made.mask_BS))):
        begin, chosen = len(prompt.ids), np.flatnonzero(mask)
        np.testing.assert_array_equal(tokens[:begin], prompt.ids)
        np.testing.assert_array_equal(chosen, np.arange(begin, begin + len(chosen)))
        ended = tokens[chosen[-1]] == e.objective.vocabulary.end
        assert len(chosen) == lived.max_tokens or ended
        assert not (tokens[chosen[:-1]] == e.objective.vocabulary.end).any() and not tokens[begin + len(chosen) :].any()
        assert text == lived.tokenizer.decode(list(tokens[chosen]))


def test_completions_are_drawn_from_the_policy(grpo):
    """Their first tokens, of one prompt, as often as the softmax of the logits at its end says."""
    e, lived, params = grpo
    prompt = lived.training[0]
    tokens, lengths = decode.pad([list(prompt.ids)] * 512, lived.training.length)
    decoder = decode.Decoder(e.objective.model, e.objective.vocabulary.size, e.objective.vocabulary.end)
    made = decode.complete(decoder, 1.0, 1, params, tokens, lengths, jax.random.split(jax.random.key(0), 512))
    first = np.asarray(made.tokens_BS)[np.arange(512), lengths]
    log_p = np.asarray(made.log_probs_BS)[np.arange(512), lengths]
    likely = np.bincount(first).argmax()
    assert abs((first == likely).mean() - np.exp(log_p[first == likely][0])) < 0.08


def test_a_round_has_each_prompt_group_times_and_is_worth_what_the_reward_says(grpo, round_of):
    e, lived, _ = grpo
    store, reward = round_of, tiny_sums.fewest(None, None)
    assert store["tokens"].shape == (lived.prompts * lived.group, e.objective.length)
    for p in range(lived.prompts):
        rows = slice(p * lived.group, (p + 1) * lived.group)
        begins = store["mask"][rows].argmax(1)
        assert len({bytes(row[:begin]) for row, begin in zip(store["tokens"][rows], begins)}) == 1
        texts = [lived.tokenizer.decode(list(row[mask])) for row, mask in zip(store["tokens"][rows], store["mask"][rows])]
        np.testing.assert_allclose(store["reward"][rows], reward(None, texts), rtol=1e-6)
        expected = (store["reward"][rows] - store["reward"][rows].mean()) / (store["reward"][rows].std() + 1e-6)
        np.testing.assert_allclose(
            store["advantages"][rows][store["mask"][rows]], np.repeat(expected, store["mask"][rows].sum(1)), rtol=1e-3, atol=1e-4
        )


def test_the_reference_of_a_fresh_policy_is_the_policy(round_of):
    np.testing.assert_allclose(round_of["reference_log_probs"][round_of["mask"]], round_of["log_probs"][round_of["mask"]], atol=1e-5)


def test_every_row_is_in_one_batch_of_a_pass_and_every_prompt_in_each(grpo, round_of):
    e, lived, _ = grpo
    with e.in_force():
        batches = [jax.device_get(lived.sample(round_of, turn, None)) for turn in range(3)]
    rows = lambda batch: sorted(row.tobytes() + bytes(log_p) for row, log_p in zip(batch["tokens"], batch["log_probs"]))
    assert sorted(rows(batches[0]) + rows(batches[1])) == rows(round_of)
    assert rows(batches[2]) == rows(batches[0])
    prompts = lambda batch: {bytes(row[:begin]) for row, begin in zip(batch["tokens"], batch["mask"].argmax(1))}
    assert prompts(batches[0]) == prompts(batches[1]) == prompts(round_of)


def test_the_best_completion_is_chosen_over_the_worst(cache, tmp_path):
    e, lived, params = prepared(config_of("dpo"), tmp_path)
    with e.in_force():
        store = jax.device_get(lived.collect(params, lived.start(stream(0, 0, "collect")), stream(0, 1, "collect")))
        made, texts = lived.complete(params, [lived.training[i] for i in range(16)], jax.random.key(0))
        same = jax.device_get(lived._learn_from(params, made, np.ones(16, np.float32)))
    of = lambda side: [lived.tokenizer.decode(list(row[mask])) for row, mask in zip(store[f"{side}/tokens"], store[f"{side}/mask"])]
    chosen, rejected = (tiny_sums.fewest(None, None)(None, of(side)) for side in ("chosen", "rejected"))
    assert store["valid"].all() and (chosen > rejected).all()
    np.testing.assert_array_equal(store["chosen/tokens"] * ~store["chosen/mask"], store["rejected/tokens"] * ~store["rejected/mask"])
    assert not same["valid"].any(), "nothing is learned of completions that are as good"


SLOW, LONG = pytest.mark.slow, (pytest.mark.slow, pytest.mark.long)


@pytest.mark.parametrize("objective", ["grpo", *(pytest.param(name, marks=LONG if name in ("ppo", "kto") else SLOW) for name in ("ppo", "reinforce", "dpo", "kto"))])
def test_what_is_rewarded_becomes_likelier(cache, tmp_path, objective):
    """And with the reward's sign planted wrong the same steps do the contrary."""
    reached = {}
    for sign in (1, -1):
        config = config_of(objective, **{"run__steps": 24, "rl__updates": 2, "rl__eval_prompts": 64, "objective__kl_weight": 0.001})
        e, lived, _ = prepared(config, tmp_path)
        object.__setattr__(lived, "reward", lambda prompts, texts, sign=sign: sign * tiny_sums.fewest(None, None)(prompts, texts))
        with e.in_force():
            state, store = jax.jit(e.init)(), lived.start(stream(0, 0, "collect"))
            for step in range(24):
                if step % 2 == 0:
                    store = lived.collect(state.params, store, stream(0, step, "collect"))
                state, _ = e.train_step(state, lived.sample(store, step % 2, None))
            reached[sign] = sign * lived.evaluate(state.params)["reward"]
    assert reached[1] > reached[-1] + 0.1


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """A run of seven steps, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, call(train, "--config=tests/rl/tiny_sums.py:grpo", f"--workdir={workdir}")


def kept(workdir, step):
    config = config_lib.changed(config_of(), {"mesh.fsdp": 8})
    e, _, _ = prepared(config, workdir)
    with e.in_force():
        source = build.training_source(e, build.make_corpus(config, workdir))
    return jax.device_get(Checkpoints(workdir, read_only=True).restore(e.shapes, e.shardings, source.state())[1])


@pytest.mark.slow
def test_a_run_stopped_in_the_middle_of_a_round_goes_on_bit_for_bit(whole, tmp_path):
    workdir, _ = whole
    arguments = ["--config=tests/rl/tiny_sums.py:grpo", f"--workdir={tmp_path}/parts"]
    call(train, *arguments, "--until=4")  # the second of three batches of a round
    call(train, *arguments)
    assert_same_run(workdir, tmp_path / "parts", 7)
    one, other = kept(workdir, 7), kept(tmp_path / "parts", 7)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_is_evaluated_is_what_evaluate_says(whole):
    workdir, _ = whole
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    told = json.loads(call(evaluate, f"--workdir={workdir}").splitlines()[-1])
    assert told["step"] == 7 and {name: told[name] for name in told if name != "step"} == {name: last[name] for name in last if name != "step"}
    assert set(told) == {"step", "validation/reward", "validation/completion_tokens", "validation/reference_kl"}


def test_what_was_sampled_is_shown(whole):
    workdir, _ = whole
    said = call(evaluate, f"--workdir={workdir}")
    assert said.count("reward 0.") == 4 and "reference_kl" in said and "=' -> '" in said


def test_a_run_that_starts_from_another_has_that_for_its_reference(whole, tmp_path):
    workdir, _ = whole
    config = config_lib.changed(config_of(), {"init.from": str(workdir), "init.allow_new": "^reference/"})
    e, _, _ = prepared(config, tmp_path)
    with e.in_force():
        source = build.training_source(e, build.make_corpus(config, tmp_path))
        state = restore.starting_state(e, Checkpoints(tmp_path / "new"), source)
    begun, loaded = state.params, restore.trained_params(prepared(config_of(), workdir)[0], workdir)[1]
    own = lambda params: {name: x for name, x in params.items() if name != "reference"}
    jax.tree.map(np.testing.assert_array_equal, own(begun), own(loaded))
    jax.tree.map(np.testing.assert_array_equal, begun["reference"], own(loaded))
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(jax.tree.leaves(begun["reference"]), jax.tree.leaves(loaded["reference"])))


def test_a_trained_policy_goes_out_without_its_reference(whole, tmp_path):
    workdir, _ = whole
    call(convert, f"--from={workdir}", f"--to={tmp_path}/out")
    _, params = restore.trained_params(prepared(config_of(), workdir)[0], workdir)
    tensors = load_file(tmp_path / "out/model.safetensors")
    np.testing.assert_array_equal(tensors["wte.weight"], params["word"]["embedding"])
    assert not [name for name in tensors if "reference" in name]


def test_one_device_and_eight_draw_the_same(cache, tmp_path):
    rounds = []
    for devices in (1, 8):
        config = config_lib.changed(config_of(), {"mesh.fsdp": devices})
        e, lived, params = prepared(config, tmp_path)
        with e.in_force():
            store = lived.collect(params, lived.start(stream(0, 0, "collect")), stream(0, 1, "collect"))
            batch = lived.sample(store, 1, None)
            made, _ = lived.complete(params, [lived.training[i] for i in range(16)], jax.random.key(0))
            for x in jax.tree.leaves((made, store, batch)):
                assert x.addressable_shards[0].data.shape[0] == len(x) // devices, "each device has its own rows"
            rounds.append(jax.device_get((store, batch)))
    for name in ("tokens", "mask", "valid"):
        np.testing.assert_array_equal(rounds[0][0][name], rounds[1][0][name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), *rounds)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"data.length": 20}, "rl.prompt_length 8 and rl.max_tokens 4 make rows of 12 tokens, data.length is 20"),
        ({"rl.group": 1}, "rl.group is 1: completions of a prompt are compared"),
        ({"rl.prompts": 17}, "a round gives 68 rows"),
        ({"rl.eval_prompts": 5000}, "rl.eval_prompts is 5000, the validation split has"),
        ({"rl.reward": "praise"}, "config.rl.reward is 'praise': choose one of exact_answer, words, judge"),
        ({"rl.reward": "judge"}, "rl.reward=judge asks a model: name its run as config.rl.judge"),
        ({"rl.reward": "exact_answer", "data.answer_field": None}, "rl.reward=exact_answer compares with an answer: name the feature that has it"),
        ({"objective.name": "causal_lm"}, "rl.experience=rollouts trains a language model, which objective.name=causal_lm does not"),
        ({"run.best_metric": "validation/loss"}, "config.run.best_metric is 'validation/loss': choose one of validation/reward"),
        ({"data.answer_field": "sum"}, "data.answer_field is 'sum', but arithmetic/1.0.0 has: "),
    ],
)
def test_what_cannot_be_is_one_line(cache, tmp_path, changes, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        prepared(config_lib.changed(config_of(), changes), tmp_path)


@pytest.mark.slow
def test_a_judge_is_a_run_that_judges_texts(cache, whole, tmp_path):
    judge = ["--config=configs/bert/sentiment_tiny.py", f"--workdir={tmp_path}/judge", "--config.run.steps=2", "--config.optimizer.warmup_steps=0"]
    call(train, *judge, "--config.model.width=16", "--config.model.layers=1", "--config.model.heads=2", "--config.model.mlp_width=16")
    texts = ["A good film.", "A bad film, and a long one.", "Good."]
    told = restore.judge(f"{tmp_path}/judge", config_of())(texts)
    lines = call(predict, f"--workdir={tmp_path}/judge", "--json", *(f"--text={text}" for text in texts)).splitlines()
    positive = [next(x["probability"] for x in json.loads(line)["labels"] if x["label"] == "positive") for line in lines]
    np.testing.assert_allclose(told, positive, rtol=1e-5)
    with pytest.raises(UserError, match="was trained for grpo, which gives no text a label or a score"):
        restore.judge(str(whole[0]), config_of())


def test_rewards():
    Ask = lambda text, answer="": rewards.Prompt(np.array([1]), text, answer)
    np.testing.assert_array_equal(rewards.exact_answer([Ask("1+1=", "2"), Ask("1+1=", "2"), Ask("1+2=", "3")], ["2", "22", " 3\n"]), [1, 0, 1])
    np.testing.assert_allclose(rewards.words(3)([Ask("one")] * 4, [" two three", " two", "", "s" + " x" * 30]), [1, 0.9, 0.8, 0])
    np.testing.assert_array_equal(rewards.judged(lambda texts: np.array([len(text) for text in texts]))([Ask("ab"), Ask("c")], ["cd", ""]), [4, 1])


def test_an_agent_that_is_no_language_model_is_told_which_objectives_are(cache):
    assert "choose grpo, dr_grpo, ppo" in error(
        train, "--config=tests/rl/tiny.py:tic_tac_toe", "--workdir=nowhere", "--config.rl.experience=rollouts"
    )

"""Side by side with `transformers` on this machine: tokens per second of a small Llama, and seconds per step of fine-tuning MiniLM.

    EXTRAS=test,parity launch/local.sh python -m tests.interop.speed

Prints medians over rounds in which the two take turns, and the median of the rounds' ratios. Both in float32, with as many threads as they like. Compilation is not counted.
"""

import statistics
import time

import jax
import numpy as np
import torch
import transformers
from ml_collections import FrozenConfigDict

from configs.bert import finetune_sentiment
from research import build
from research.interop import published
from research.interop.gguf_file import GgufFile
from research.models import decode
from tests.interop import ours

ROUNDS, TOKENS, STEPS = 9, 64, 5


def rounds(**contenders) -> dict[str, list[float]]:
    """Seconds of each in every round, taken in turn; the first round, in which things are compiled, is left out."""
    spent = {name: [] for name in contenders}
    for _ in range(ROUNDS + 1):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - begin)
    return {name: seconds[1:] for name, seconds in spent.items()}


def generation():
    tensors = GgufFile(published.resolve("SmolLM2-135M-Instruct"))
    e, params = ours.of_tensors(tensors, **{"data.length": 128})
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**tensors.config)).eval()
    model.load_state_dict({f"model.{name}": torch.from_numpy(tensors.read(name).copy()) for name in tensors}, strict=False)
    model.tie_weights()
    ids = tensors.tokenizer().encode("The history of the city of London").ids
    decoder = decode.Decoder(e.objective.model, e.config.model.vocab_size, None)
    keys, (tokens_BT, lengths_B) = jax.random.split(jax.random.key(0), 1), decode.pad([ids], 16)
    greedy = decode.Sampling(temperature=0)
    mine = lambda: [int(chosen_B[0]) for chosen_B in decode.stream(decoder, greedy, params, tokens_BT, lengths_B, keys, TOKENS, 128)]
    theirs = lambda: model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=TOKENS, eos_token_id=None, pad_token_id=0)[
        0, len(ids) :
    ].tolist()
    same = sum(a == b for a, b in zip(mine(), theirs()))
    report("SmolLM2-135M, greedy, tokens/s", rounds(ours=mine, theirs=theirs), lambda seconds: TOKENS / seconds)
    print(f"  of {TOKENS} tokens {same} are the same, place by place")


def fine_tuning():
    config = finetune_sentiment.get_config()
    config.mesh.update(data=1, fsdp=1)
    e = build.experiment(FrozenConfigDict(config), devices=jax.devices()[:1])
    rng, shape = np.random.default_rng(0), (config.data.batch_size, config.data.length)
    tokens, label = rng.integers(1000, 30_000, shape).astype(np.int32), rng.integers(0, 2, shape[0]).astype(np.int32)
    batch = {"tokens": tokens, "token_types": np.zeros_like(tokens), "mask": np.ones(shape, bool), "label": label, "valid": np.ones(shape[0], bool)}
    state = [jax.jit(e.init)()]

    def mine():
        for _ in range(STEPS):
            state[0], _ = e.train_step(state[0], batch)
        jax.block_until_ready(state[0])

    model = transformers.AutoModelForSequenceClassification.from_pretrained(published.resolve("all-MiniLM-L6-v2")).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    given = {"input_ids": torch.from_numpy(tokens).long(), "attention_mask": torch.ones(shape).long(), "labels": torch.from_numpy(label).long()}

    def theirs():
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(**given).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    report("MiniLM, 32 texts of 48 tokens, seconds a step", rounds(ours=mine, theirs=theirs), lambda seconds: seconds / STEPS)


def report(what: str, spent: dict[str, list[float]], unit):
    ours, theirs = (unit(statistics.median(spent[name])) for name in ("ours", "theirs"))
    ratio = statistics.median(b / a for a, b in zip(spent["ours"], spent["theirs"]))
    print(f"{what}: ours {ours:.3g}, transformers {theirs:.3g}; ours is {ratio:.2f} times as fast (the median of {ROUNDS} rounds side by side)")


if __name__ == "__main__":
    generation()
    fine_tuning()

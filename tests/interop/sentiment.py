"""Fine-tuning all-MiniLM-L6-v2 on sentences of movie reviews, here in four ways and with `transformers`, by the same schedule.

    EXTRAS=test,parity launch/local.sh python -m tests.interop.sentiment --seeds=5 [--ways=full,lora,probe,scratch,transformers] --workdir=runs/seeds

Prints the accuracy on the test split, mean and standard deviation over the seeds, and the median of seconds a step. A run that is there already is not made again.
"""

import itertools
import json
import pathlib
import statistics
import time

import numpy as np
import torch
import transformers
from absl import app, flags

from configs.bert import finetune_sentiment
from research import evaluate, tables, train
from research.data.corpus import dataset_builder
from research.data.records import Records
from research.interop import published
from tests.interop.ours import said

FLAGS = flags.FLAGS
flags.DEFINE_integer("seeds", 5, "How many.", lower_bound=1)
flags.DEFINE_list("ways", ["full", "lora", "probe", "scratch", "transformers"], "What to compare.")
flags.DEFINE_string("workdir", "runs/seeds", "Where the runs go.")


def ours(way: str, seed: int, workdir: pathlib.Path) -> tuple[float, float]:
    """(test accuracy, seconds a step)"""
    said(train, f"--config=configs/bert/finetune_sentiment.py:{way}", f"--workdir={workdir}", f"--config.seed={seed}")
    found = json.loads(said(evaluate, f"--workdir={workdir}", "--split=test"))
    lines = [json.loads(line) for line in (workdir / "timing.jsonl").read_text().splitlines()]
    spans = [(b["timing/seconds"] - a["timing/seconds"]) / (b["step"] - a["step"]) for a, b in itertools.pairwise(lines)]
    return found["test/accuracy"], statistics.median(spans)  # without compilation; an evaluation is in few of them


def examples(split: str) -> tuple[list[str], np.ndarray]:
    records = Records(dataset_builder(tables.DATASETS, "movie_reviews", None), split, {"text_field": ("text", "text")})
    rows = [records[i] for i in range(len(records))]
    return [row["text"].decode() for row in rows], np.array([row["label"] for row in rows])


def theirs(way: str, seed: int, workdir: pathlib.Path) -> tuple[float, float]:
    """The same with AutoModelForSequenceClassification and AdamW."""
    c, path = finetune_sentiment.get_config(), published.resolve("all-MiniLM-L6-v2")
    torch.manual_seed(seed)
    rng, (texts, labels) = np.random.default_rng(seed), examples("train")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).train()
    named = list(model.named_parameters())
    spared = lambda name: name.endswith("bias") or "LayerNorm" in name
    groups = [
        {"params": [x for name, x in named if spared(name) == no], "weight_decay": 0.0 if no else c.optimizer.weight_decay} for no in (False, True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=c.optimizer.learning_rate, betas=(c.optimizer.b1, c.optimizer.b2), eps=c.optimizer.epsilon)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, c.optimizer.warmup_steps, c.run.steps)
    given = lambda batch: tokenizer(batch, padding="max_length", truncation=True, max_length=c.data.length, return_tensors="pt")
    spans, order = [], rng.permutation(len(texts))
    for step in range(c.run.steps):
        begin = time.perf_counter()
        rows = order.take(range(step * c.data.batch_size, (step + 1) * c.data.batch_size), mode="wrap")
        optimizer.zero_grad()
        model(**given([texts[i] for i in rows]), labels=torch.from_numpy(labels[rows])).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.optimizer.clip_norm)
        optimizer.step()
        schedule.step()
        spans.append(time.perf_counter() - begin)
    texts, labels = examples("test")
    with torch.no_grad():
        parts = [model.eval()(**given(texts[i : i + 128])).logits.argmax(-1).numpy() for i in range(0, len(texts), 128)]
    return float((np.concatenate(parts) == labels).mean()), statistics.median(spans)


def main(_):
    for way in FLAGS.ways:
        found = []
        for seed in range(FLAGS.seeds):
            kept = pathlib.Path(FLAGS.workdir) / f"{way}-{seed}.json"
            if not kept.exists():
                result = (theirs if way == "transformers" else ours)(way, seed, kept.with_suffix(""))
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(result))
            found.append(json.loads(kept.read_text()))
        accuracy, seconds = zip(*found)
        spread = f" ± {statistics.stdev(accuracy):.4f}" if len(accuracy) > 1 else ""
        print(
            f"{way:14} test accuracy {statistics.mean(accuracy):.4f}{spread} over {len(accuracy)} seeds; {statistics.median(seconds):.2f} s a step",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)

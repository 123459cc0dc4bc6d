"""Whether a sentence of a movie review is positive: all-MiniLM-L6-v2, whose weights a published package carries, fine-tuned.

22.7M parameters, one pass over 8,490 sentences with human scores: five minutes on two CPU cores. On 1,057 sentences of reviews that neither training
nor the choice of anything has seen (chance 0.51), mean and standard deviation over 5 seeds:

    full 0.853 ± 0.006, lora 0.835 ± 0.005, probe 0.787 ± 0.006, scratch 0.764 ± 0.009

    python -m research.train --config=configs/bert/finetune_sentiment.py --workdir=runs/finetuned
    python -m research.evaluate --workdir=runs/finetuned --split=test
    python -m research.predict --workdir=runs/finetuned --text="This is a great movie!"

After a colon another way: `:lora` trains low-rank updates, `:probe` the head alone, `:scratch` begins with nothing but the tokenizer. The mean of the
hidden states is what the model was made to be read by; transformers has no class for a head upon it.
"""

from configs import base
from research.core.errors import UserError

WAYS = {"full": 1e-4, "lora": 1e-3, "probe": 1e-2, "scratch": 3e-4}  # how to fine-tune -> learning rate


def get_config(way="full"):
    if way not in WAYS:
        raise UserError(f"there is no way {way!r} to fine-tune: choose one of {', '.join(WAYS)}.")
    c = base.get_config()
    c.model.update(vocab_size=30522, max_length=512, width=384, layers=6, heads=12, mlp_width=1536, pool="mean")
    c.model.update(dtype="float32", scan_layers=False)
    c.objective.update(name="sequence_classification", classes=2)
    c.data.update(source="labelled_text", name="movie_reviews", batch_size=32, eval_batch_size=128, length=48)
    c.init.allow_new = "^head/"
    c.init["from"] = "all-MiniLM-L6-v2"
    if way == "lora":
        c.lora.update(rank=8, trained="^head/")
    elif way == "probe":
        c.optimizer.frozen = "^(?!head/)"
    elif way == "scratch":
        c.init.update({"from": None, "allow_new": None})
        c.data.tokenizer = "all-MiniLM-L6-v2"
    c.optimizer.update(learning_rate=WAYS[way], warmup_steps=27, clip_norm=1.0)
    c.run.update(steps=265, log_every=20, eval_every=133, save_every=265)
    return c

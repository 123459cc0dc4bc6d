"""GPT-2 small (Radford et al., 2019): 124M parameters, on English Wikipedia.

The model is the paper's; its WebText was never published, so data and schedule are others: Wikipedia in batches of 512 x 1,024 tokens, with the learning
rate and Adam of GPT-3's model of this size (arXiv 2005.14165, table 2.1 and appendix B). For a v5e-16 or eight GPUs; nobody has trained this config
here to the end. The paper's model reached a perplexity of 37.5 on WikiText-103 without training on it (its table 3).

    python -m research.train --config=configs/gpt/small.py --workdir=runs/gpt2_small
"""

from configs import base


def get_config():
    c = base.get_config()
    c.model.update(name="gpt", norm="pre", norm_epsilon=1e-5, activation="gelu_tanh", vocab_size=50257, max_length=1024, pool="last")
    c.model.scale_residual_initializer = True
    c.objective.name = "causal_lm"
    c.data.update(source="packed_text", train_split="train[:99%]", validation_split="train[99%:]", tokenizer_type="byte_bpe", length=1024)
    c.data.update(batch_size=512, eval_batch_size=64)
    c.optimizer.update(learning_rate=6e-4, schedule="warmup_cosine", warmup_steps=2000, final_fraction=0.1)
    c.optimizer.update(b2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0)
    c.run.update(steps=100_000, eval_every=2000, save_every=2000, eval_batches=50)
    return c

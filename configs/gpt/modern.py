"""A decoder of today, as options of the one Transformer: rotary positions, RMS norm, SwiGLU, grouped-query heads, no biases (Llama, arXiv 2302.13971).

The shape is SmolLM2-135M's: 30 layers of 576, 9 heads of queries over 3 of keys and values, a tied head, 134.5M parameters. Data and schedule are those
of configs/gpt/small.py; nobody has trained this config here to the end.

    python -m research.train --config=configs/gpt/modern.py --workdir=runs/gpt_modern
"""

from configs.gpt import small


def get_config():
    c = small.get_config()
    c.model.update(vocab_size=49152, max_length=2048, width=576, layers=30, heads=9, kv_heads=3, mlp_width=1536, dropout=0.0)
    c.model.update(positions="rotary", norm_type="rms", gated_mlp=True, activation="silu", use_bias=False)
    c.data.update(length=2048, batch_size=256)
    return c

"""GPT-2 medium (Radford et al., 2019): 355M parameters, as configs/gpt/small.py with 24 layers of 1024 and 16 heads.

Nobody has trained this config here to the end. The paper's model reached a perplexity of 26.37 on WikiText-103 without training on it (its table 3).

    python -m research.train --config=configs/gpt/medium.py --workdir=runs/gpt2_medium
"""

from configs.gpt import small


def get_config():
    c = small.get_config()
    c.model.update(width=1024, layers=24, heads=16, mlp_width=4096, remat="dots")
    c.optimizer.learning_rate = 3e-4
    return c

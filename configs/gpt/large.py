"""GPT-2 large (Radford et al., 2019): 774M parameters, as configs/gpt/small.py with 36 layers of 1280 and 20 heads.

Nobody has trained this config here to the end. The paper's model reached a perplexity of 22.05 on WikiText-103 without training on it (its table 3).

    python -m research.train --config=configs/gpt/large.py --workdir=runs/gpt2_large
"""

from configs.gpt import small


def get_config():
    c = small.get_config()
    c.model.update(width=1280, layers=36, heads=20, mlp_width=5120, remat="dots")
    c.optimizer.learning_rate = 2.5e-4
    return c

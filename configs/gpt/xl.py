"""GPT-2 xl (Radford et al., 2019): 1,558M parameters, as configs/gpt/small.py with 48 layers of 1600 and 25 heads.

Nobody has trained this config here to the end. The paper's model reached a perplexity of 17.48 on WikiText-103 without training on it (its table 3).

    python -m research.train --config=configs/gpt/xl.py --workdir=runs/gpt2_xl
"""

from configs.gpt import small


def get_config():
    c = small.get_config()
    c.model.update(width=1600, layers=48, heads=25, mlp_width=6400, remat="dots")
    c.optimizer.learning_rate = 2e-4
    return c

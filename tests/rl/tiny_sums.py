"""The smallest language model that is asked for sums, as a config file whose argument is the objective: it cannot add, but can learn which digits are liked.

python -m research.train --config=tests/rl/tiny_sums.py:grpo --workdir=runs/tiny
"""

import numpy as np
from ml_collections import ConfigDict

from configs.rl import grpo_arithmetic


def get_config(objective="grpo"):
    c = ConfigDict(grpo_arithmetic.get_config(objective))
    c.init.allow_new = None
    c.init["from"] = None
    c.model.update(width=16, layers=2, heads=2, mlp_width=32, initializer_stddev=0.2)
    c.objective.update(name=objective, kl_weight=0.01)
    c.data.update(batch_size=8 if objective in ("dpo", "ipo", "kto") else 32, eval_batch_size=16, length=12)
    c.data.update(train_split="train[:500]", validation_split="validation[:64]")
    c.rl.update(reward="tests.rl.tiny_sums:fewest", prompts=16, group=4, prompt_length=8, max_tokens=4, updates=4, eval_prompts=16)
    c.optimizer.update(learning_rate=1e-2, warmup_steps=0)
    c.mesh.update(data=1, fsdp=-1)
    c.run.update(steps=7, log_every=1, eval_every=4, save_every=100)
    return c


def fewest(config, judge):
    """Rewards bytes of small value: what a policy that nobody trained can find out."""
    return lambda prompts, completions: np.array([1 - np.mean(list(text.encode()) or [255]) / 255 for text in completions], np.float32)

"""Sentences of twelve words: REINFORCE (Williams, 1992; arXiv 2402.14740) rewards a completion by its length, in 7 minutes on two CPU cores.

The mean reward of 256 validation sentences begun, 1 for twelve words and a tenth less for each that is missing or too many: 0.63 before, 0.892 ± 0.002 after (3 seeds), at
0.16 nats a token from where it began. It has learned not to end before its 24 tokens are used up.

    python -m research.train --config=configs/gpt/reviews.py --workdir=runs/reviews
    python -m research.train --config=configs/rl/reinforce_words.py --workdir=runs/reinforce_words
    python -m research.generate --workdir=runs/reinforce_words --prompt="The film is" --max_tokens=24
"""

from configs.rl import dpo_sentiment


def get_config():
    c = dpo_sentiment.get_config()
    c.objective.update(name="reinforce", kl_weight=0.01)
    c.data.update(batch_size=128)
    c.rl.update(reward="words", words=12, judge=None, prompts=64, group=4, updates=2)
    return c

"""A small GPT on 8,490 sentences of movie reviews: what configs/rl/dpo_sentiment.py and configs/rl/reinforce_words.py go on from. 4 minutes on two CPU cores.

    python -m research.train --config=configs/gpt/reviews.py --workdir=runs/reviews
    python -m research.generate --workdir=runs/reviews --prompt="The film is" --max_tokens=30
"""

from configs.gpt import tiny


def get_config():
    c = tiny.get_config()
    c.data.update(name="movie_reviews", train_split="train", validation_split="validation")
    c.run.update(steps=300)
    return c

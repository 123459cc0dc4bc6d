"""The same model, that learns from pairs of completions of which one was chosen. The argument is the objective.

python -m research.train --config=tests/rl/tiny_pairs.py:dpo --workdir=runs/tiny
"""

from tests.rl import tiny_sums


def get_config(objective="dpo"):
    c = tiny_sums.get_config(objective)
    c.rl.experience = None
    c.data.update(source="preference_pairs", name="tests.tiny_preferences:TinyPreferences", batch_size=8, eval_batch_size=8, length=32)
    c.data.update(train_split="train", validation_split="validation", text_field="prompt", chosen_field="better", rejected_field="worse")
    c.model.max_length = 32
    c.run.update(best_metric="validation/loss", best_mode="min")
    return c

"""What a completion is worth: pure functions of texts, by name.

A reward is a function (prompts, completions: lists of Prompt and str) -> (N,) float32.
"""

from collections.abc import Callable, Sequence

import numpy as np

from research.data.prompts import Prompt

Reward = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]


def exact_answer(prompts, completions):
    """1 where the completion is the prompt's answer and nothing else, blanks around it aside; else 0."""
    return np.array([completion.strip() == prompt.answer.strip() for prompt, completion in zip(prompts, completions)], np.float32)


def words(wanted: int) -> Reward:
    """1 where prompt and completion together have so many words, and a tenth less for each that is missing or too many, 0 at least."""

    def reward(prompts, completions):
        counts = np.array([len((prompt.text + completion).split()) for prompt, completion in zip(prompts, completions)])
        return np.maximum(0, 1 - abs(counts - wanted) / 10).astype(np.float32)

    return reward


def judged(judge: Callable[[Sequence[str]], np.ndarray]) -> Reward:
    """What another model, the judge, makes of prompt and completion together."""
    return lambda prompts, completions: judge([prompt.text + completion for prompt, completion in zip(prompts, completions)])

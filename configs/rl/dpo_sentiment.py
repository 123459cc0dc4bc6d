"""Movie reviews that sound pleased: DPO (arXiv 2305.18290) on pairs of completions of which our own classifier finds one more positive, in 5 minutes on
two CPU cores.

How positive the classifier finds prompt and completion, the mean of 256 validation sentences begun: 0.375 before, 0.72 ± 0.04 after (3 seeds), at 0.30, 0.33
and 0.60 nats a token from where it began, the furthest with the most. "The film is also that is what's to dark it see the things are at the sentimental" became
"The film is funny of augh, dark filmmaking the thoughtful and funny comedy": of the words that please the judge there are more, and sense was never its strength.

    python -m research.train --config=configs/gpt/reviews.py --workdir=runs/reviews
    python -m research.train --config=configs/bert/finetune_sentiment.py --workdir=runs/finetuned
    python -m research.train --config=configs/rl/dpo_sentiment.py --workdir=runs/dpo_sentiment
    python -m research.generate --workdir=runs/dpo_sentiment --prompt="The film is" --max_tokens=24 --seed=1
"""

from configs.gpt import reviews


def get_config():
    c = reviews.get_config()
    c.init["from"] = "runs/reviews"
    c.objective.update(name="dpo", beta=0.1)
    c.data.update(batch_size=32, length=48)
    c.rl.update(experience="rollouts", reward="judge", judge="runs/finetuned")
    c.rl.update(prompts=64, group=4, prompt_words=4, prompt_length=24, max_tokens=24, updates=4, eval_prompts=256)
    c.optimizer.update(name="adamw", learning_rate=1e-4, schedule="warmup_linear", warmup_steps=10, clip_norm=1.0, weight_decay=0.0)
    c.run.update(steps=200, log_every=10, eval_every=50, eval_first=True, save_every=100, best_metric="validation/reward", best_mode="max")
    return c

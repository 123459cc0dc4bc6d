"""Tic-tac-toe by AlphaZero: a small ViT, a cell a patch, that learns from games with itself never to lose, in 4 minutes on two CPU cores.

What it reaches, of all the games that there can be with a perfect player and with one who may make any move:

    lost_to_perfect 0 (untrained, with the same search: 57)
    lost_to_any 0 (untrained, with the same search: 92)

    python -m research.train --config=configs/rl/tic_tac_toe.py --workdir=runs/tic_tac_toe
    python -m research.match --workdir=runs/tic_tac_toe
    python -m research.play --workdir=runs/tic_tac_toe
"""

from configs.rl import alpha_zero


def get_config():
    c = alpha_zero.get_config("tic_tac_toe")
    c.model.update(width=64, layers=2, heads=4, mlp_width=256, dtype="float32", scan_layers=False, initializer_stddev=0.12)
    c.data.update(batch_size=256)
    c.rl.update(games=128, moves=8, kept=64, updates=16, simulations=32, opening=4, opponents=("random", "perfect", "any"))
    c.optimizer.update(weight_decay=1e-4, warmup_steps=50)
    c.run.update(steps=600, log_every=20, eval_every=200, save_every=200, keep=5, best_metric="validation/lost_to_any", best_mode="min")
    return c

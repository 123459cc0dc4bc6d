"""A board game by AlphaZero (arXiv 1712.01815) with the search of Gumbel AlphaZero (Danihelka et al., ICLR 2022): a ViT, a cell a patch, for one GPU.

After a colon the game, by its name in pgx: tic_tac_toe, connect_four, othello, hex, go_9x9, go_19x19, chess, ... Those that start from here say what they reach.

    python -m research.train --config=configs/rl/alpha_zero.py:othello --workdir=runs/othello
    python -m research.match --workdir=runs/othello --ladder=6
    python -m research.play --workdir=runs/othello
"""

from configs import base
from research.rl.games import Game


def get_config(name="connect_four"):
    game = Game(name)
    c = base.get_config()
    c.model.update(name="vit", width=128, layers=6, heads=4, mlp_width=512, norm="pre", norm_epsilon=1e-6, initializer_stddev=0.09)
    c.model.update(game.model_fields())
    c.objective.update(name="alpha_zero", actions=game.actions, symmetry=game.symmetry)
    c.data.update(batch_size=1024)
    games = 512 if game.longest < 200 else 128  # of chess, what is kept of each takes 50 MB
    c.rl.update(experience="self_play", environment=game.name, games=games, moves=16, updates=games // 16, kept=max(256, game.kept(16)))
    c.rl.update(simulations=32, opening=2)
    c.rl.update(opponents=("random", "mcts:128"), eval_games=200)
    c.optimizer.update(learning_rate=1e-3, weight_decay=1e-3, schedule="warmup_cosine", warmup_steps=100, clip_norm=1.0)
    c.run.update(steps=20_000, log_every=50, eval_every=1000, save_every=1000, keep=20)
    c.run.update(best_metric="validation/score_against_mcts_128", best_mode="max")
    return c

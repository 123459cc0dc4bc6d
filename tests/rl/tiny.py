"""The smallest agents there are, as a config file whose argument is the game: they play badly, and at once.

python -m research.train --config=tests/rl/tiny.py:tic_tac_toe --workdir=runs/tiny
"""

from ml_collections import ConfigDict

from configs.rl import alpha_zero
from research.rl.games import Game


def get_config(name="tic_tac_toe"):
    c = ConfigDict(alpha_zero.get_config(name))
    c.model.update(name="resnet", width=8, layers=1, activation="relu", dtype="float32")
    c.data.update(batch_size=16, eval_batch_size=16)
    c.rl.update(games=8, moves=4, kept=Game(name).kept(4), updates=3, simulations=4, opening=2, opponents=("random",), eval_games=12)
    c.optimizer.update(learning_rate=1e-2, warmup_steps=2)
    c.mesh.update(data=1, fsdp=-1)
    c.run.update(steps=7, log_every=1, eval_every=4, save_every=100, keep=3, best_metric="validation/score_against_random")
    return c

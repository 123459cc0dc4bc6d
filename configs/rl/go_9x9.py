"""Go on the small board by AlphaZero: a ViT of 81 cells on one GPU, or after a colon, `:cpu`, a small ResNet on two cores.

On an H200, in the 4 minutes of 2,065 steps (kept=128 then): 99.5 % of the points of 200 games with a random player, and checkpoints that got stronger, by 100
games between each two:

    step 400  Elo 0,  800  +101 ± 59,  1600  +280 ± 66,  2065  +646 ± 98 (95 %)

On two CPU cores, in 20 minutes with other work beside: all of 200 games with a random player, from step 100 on.

    python -m research.train --config=configs/rl/go_9x9.py --workdir=runs/go_9x9
    python -m research.match --workdir=runs/go_9x9 --ladder=6 --config.rl.opening=4
    python -m research.play --workdir=runs/go_9x9 --sgf=game.sgf
"""

from configs.rl import alpha_zero
from research.core.errors import UserError


def get_config(machine="gpu"):
    if machine not in ("gpu", "cpu"):
        raise UserError(f"there is no go_9x9 for a {machine!r}: choose gpu or cpu.")
    c = alpha_zero.get_config("go_9x9")
    c.rl.update(games=1024, moves=8, kept=336, updates=16, opponents=("random",))
    c.optimizer.update(schedule="constant")
    c.run.update(steps=20_000, log_every=20, eval_every=500, save_every=500, keep=40, best_metric="validation/score_against_random")
    if machine == "cpu":
        c.model.update(name="resnet", width=32, layers=3, activation="relu", dtype="float32")
        c.data.update(batch_size=256)
        c.rl.update(games=128, moves=8, kept=336, updates=8, simulations=16)
        c.run.update(steps=800, eval_every=100, save_every=100)
    return c

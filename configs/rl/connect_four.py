"""Connect four by AlphaZero: a small ResNet that learns from games with itself, in 45 minutes on two CPU cores with other work beside it.

Of 200 games with plain Monte Carlo tree search of four times its simulations, half of them begun, it took 77.0 % of the points (95 %: 70.7 to 82.3), after an
eighth of the steps 59 %; with a random player it won all 200. Its checkpoints, by 200 games between each two:

    step 400  Elo 0,  800  +112 ± 31,  1600  +160 ± 31,  2000  +214 ± 31,  2800  +209 ± 31,  3200  +294 ± 33 (95 %)

    python -m research.train --config=configs/rl/connect_four.py --workdir=runs/connect_four
    python -m research.match --workdir=runs/connect_four
    python -m research.match --workdir=runs/connect_four --ladder=6
    python -m research.play --workdir=runs/connect_four
"""

from configs.rl import alpha_zero


def get_config():
    c = alpha_zero.get_config("connect_four")
    c.model.update(name="resnet", width=32, layers=4, activation="relu", dtype="float32")
    c.data.update(batch_size=512)
    c.rl.update(games=256, moves=8, kept=160, updates=16, simulations=32, opponents=("random", "mcts:128"))
    c.optimizer.update(learning_rate=2e-3, weight_decay=1e-4, warmup_steps=50)
    c.run.update(steps=3200, log_every=20, eval_every=400, save_every=400)
    return c

"""Connect four by AlphaZero: a small ResNet that learns from games with itself, in 51 minutes on two CPU cores with tests running beside it.

Of 200 games with plain Monte Carlo tree search of four times its simulations, half of them begun, it took 86.5 % of the points (95 %: 81.1 to 90.6), after a
quarter of the steps 61.8 %; with a random player it won all 200.

    python -m research.train --config=configs/rl/connect_four.py --workdir=runs/connect_four
    python -m research.match --workdir=runs/connect_four
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

"""A small ViT on 4,000 handwritten digits, in 75 seconds on two CPU cores.

What it reached, on the 1,000 validation digits:

    accuracy 0.97 (chance 0.1)

    python -m research.train --config=configs/vit/tiny.py --workdir=runs/vit_tiny
"""

from configs.vit import s16


def get_config():
    c = s16.get_config()
    c.model.update(image_size=28, channels=1, patch_size=7, width=64, layers=3, heads=4, mlp_width=256)
    c.model.update(initializer_stddev=0.12, dtype="float32", scan_layers=False)
    c.objective.update(classes=10, mixup=0.0)
    c.data.update(name="mnist_5k", train_split="train", batch_size=128, eval_batch_size=200, crop_area=0.6, flip=False, randaugment_layers=0)
    c.optimizer.update(name="muon", learning_rate=5e-3, momentum=0.95, weight_decay=0.05)
    c.optimizer.update(schedule="warmup_stable_decay", warmup_steps=50, decay_steps=500)
    c.run.update(steps=1000, log_every=20, eval_every=100, save_every=500)
    return c

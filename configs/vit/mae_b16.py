r"""A masked autoencoder over ViT-B/16 on ImageNet-1k (He et al., arXiv 2111.06377), and then the fine-tuning of it.

Pretraining: 1,600 epochs in batches of 4,096 with 75 % of the patches hidden, as in appendix A.1. Fine-tuning: 100 epochs with layer-wise decay of
the learning rate, RandAugment, mixup, CutMix and stochastic depth (table 9, without its random erasing), after which the paper's B/16 reached 83.6 %
top-1 (table 3). For a v5e-64 or the like; nobody has trained these here. ImageNet must be fetched by hand: TFDS says how.

    python -m research.train --config=configs/vit/mae_b16.py --workdir=runs/mae_b16
    python -m research.train --config=configs/vit/mae_b16.py:finetune --workdir=runs/mae_b16_tuned --config.init.from=runs/mae_b16
"""

from configs.vit import b16
from research.core.errors import UserError

EPOCH = 1_281_167  # images


def get_config(phase="pretrain"):
    if phase not in ("pretrain", "finetune"):
        raise UserError(f"there is no phase {phase!r}: choose pretrain or finetune.")
    c = b16.get_config()
    c.model.update(positions="sincos", pool="mean", dropout=0.0)
    c.optimizer.update(b2=0.95, weight_decay=0.05, clip_norm=None)
    if phase == "pretrain":
        c.objective.update(name="masked_image", mask_rate=0.75, decoder_width=512, decoder_layers=8, decoder_heads=16)
        c.data.update(source="images", crop_area=0.2)
        c.optimizer.update(learning_rate=1.5e-4 * 4096 / 256, warmup_steps=40 * EPOCH // 4096)
        c.run.steps = 1600 * EPOCH // 4096
        return c
    c.init.allow_new = "^(head|decoder)/"
    c.model.stochastic_depth = 0.1
    c.objective.update(label_smoothing=0.1, mixup=0.8, cutmix=1.0)
    c.data.update(batch_size=1024, crop_area=0.08, randaugment_layers=2, randaugment_magnitude=9)
    c.optimizer.update(b2=0.999, learning_rate=5e-4 * 1024 / 256, warmup_steps=5 * EPOCH // 1024, layer_decay=0.65)
    c.run.steps = 100 * EPOCH // 1024
    return c

r"""ViT-B/16 on ImageNet-1k (Dosovitskiy et al., arXiv 2010.11929): 86M parameters, or another shape, such as `configs/vit/b16.py:H/14`.

Sizes Ti, S, B, L, H, g, G and So400m with any side of a patch; So400m is the image tower of SigLIP (arXiv 2303.15343), without a class token and with
attention pooling. Table 3 of the paper: 300 epochs in batches of 4,096, Adam, weight decay 0.3, a cosine, dropout 0.1. The paper's B/16, trained so
and fine-tuned at 384 pixels, reached 77.91 % top-1 (table 5). For a v5e-64 or the like; nobody has trained this config here. The second command
fine-tunes at the higher resolution: positions learned at 224 pixels are resized. ImageNet must be fetched by hand: TFDS says how.

    python -m research.train --config=configs/vit/b16.py --workdir=runs/vit_b16
    python -m research.train --config=configs/vit/b16.py --workdir=runs/vit_b16_384 --config.init.from=runs/vit_b16 --config.model.image_size=384 \
        --config.optimizer.name=sgd --config.optimizer.learning_rate=0.01 --config.optimizer.weight_decay=0 --config.optimizer.warmup_steps=500 \
        --config.data.batch_size=512 --config.run.steps=20000
"""

from configs import base
from research.models.vit import variant


def get_config(name="B/16"):
    c = base.get_config()
    c.model.update(name="vit", norm="pre", norm_epsilon=1e-6, dropout=0.1, **variant(name))
    if name.startswith("So400m"):
        c.model.update(class_token=False, pool="attention", activation="gelu_tanh")
    c.objective.update(name="image_classification", classes=1000)
    c.data.update(source="labelled_images", name="imagenet2012", train_split="train", validation_split="validation")
    c.data.update(batch_size=4096, eval_batch_size=1024, crop_area=0.05, flip=True)
    c.optimizer.update(learning_rate=3e-3, schedule="warmup_cosine", warmup_steps=10_000, epsilon=1e-8, weight_decay=0.3, clip_norm=1.0)
    c.run.update(steps=300 * 1_281_167 // 4096, eval_every=2500, save_every=2500)
    return c

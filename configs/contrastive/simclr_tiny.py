"""SimCLR (Chen et al., arXiv 2002.05709) over a small ViT on Fashion-MNIST without its labels, in two to three minutes on two CPU cores.

What it reaches at least, on the 10,000 of the test set; the views meet 500 pairs at a time:

    knn_accuracy 0.77 (chance 0.1; untrained 0.667; the pixels themselves 0.809)
    contrastive_accuracy 0.30 (chance 0.001; untrained 0.012)

The first is the vote of the 20 nearest of 10,000 labelled training images, by cosine. So short a training beats chance features, not the pixels: the
pictures lie centred and alike, which suits pixels, and the augmentation makes them differ.

    python -m research.train --config=configs/contrastive/simclr_tiny.py --workdir=runs/simclr_tiny
"""

from configs.vit import fashion_tiny


def get_config():
    c = fashion_tiny.get_config()
    c.model.pool = "mean"
    c.objective.update(name="nt_xent", temperature=0.2, projection_width=64)
    c.data.update(source="image_views", batch_size=256, eval_batch_size=500, crop_area=0.3, flip=True, color_jitter=0.5)
    c.probe.evaluators = ("knn",)
    c.optimizer.decay_steps = 250
    c.run.update(steps=400, eval_every=200, save_every=400)
    return c

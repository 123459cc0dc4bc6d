"""SimCLR (Chen et al., arXiv 2002.05709) over a small ViT on Fashion-MNIST without its labels, in about two minutes on two CPU cores.

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

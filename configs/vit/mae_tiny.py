"""A masked autoencoder (arXiv 2111.06377) over a small ViT on the pictures of Fashion-MNIST, without their labels, in two minutes on two CPU cores.

What it reached, on the 10,000 of the test set:

    reconstruction_loss 0.5 (chance 1)

    python -m research.train --config=configs/vit/mae_tiny.py --workdir=runs/mae_tiny
"""

from configs.vit import fashion_tiny


def get_config():
    c = fashion_tiny.get_config()
    c.model.patch_size = 4
    c.objective.update(name="masked_image", mask_rate=0.75, decoder_width=32, decoder_layers=1, decoder_heads=4)
    c.data.update(source="images", crop_area=0.6)
    return c

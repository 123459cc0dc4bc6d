"""CLIP with ViT-B/16 (Radford et al., arXiv 2103.00020): 150M parameters, by the recipe of the paper's tables 18 to 20.

The paper's 400 million pairs were never published; TFDS knows LAION-400M, which was made to stand in for them, and prepares it where TensorFlow is
installed and the pictures have been fetched. 32 epochs in batches of 32,768, Adam, weight decay 0.2, a cosine. The text tower is a GPT, 12
layers of 512, whose last token is the text. For a v4-256 or the like; nobody has trained this config here. The paper's model found the class
of 68.6 % of ImageNet's pictures by its name.

    python -m research.train --config=configs/contrastive/clip_b16.py --workdir=runs/clip_b16
"""

from configs import base
from research.models.vit import variant


def get_config():
    c = base.get_config()
    c.model.update(name="two_tower", embedding_width=512, temperature=0.07)
    for tower in (c.model.first, c.model.second):
        tower.update(norm="pre", norm_epsilon=1e-5, dropout=0.0)
    c.model.first.update(name="vit", **variant("B/16"))
    c.model.second.update(name="gpt", vocab_size=49408, max_length=77, width=512, layers=12, heads=8, mlp_width=2048, pool="last")
    c.model.second.scale_residual_initializer = True
    c.objective.name = "clip"
    c.data.update(source="image_text", name="laion400m/images", text_field="caption", tokenizer_type="byte_bpe", length=77, crop_area=0.9)
    c.data.update(train_split="train[:99%]", validation_split="train[99%:]", batch_size=32_768, eval_batch_size=8192)
    c.optimizer.update(learning_rate=5e-4, schedule="warmup_cosine", warmup_steps=2000, b2=0.98, epsilon=1e-6, weight_decay=0.2)
    c.run.update(steps=32 * 400_000_000 // 32_768, eval_every=5000, save_every=5000, eval_batches=4)
    return c

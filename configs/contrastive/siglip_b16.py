"""SigLIP with ViT-B/16 (Zhai et al., arXiv 2303.15343), 203M parameters.

Both towers are of the size B: the image's is pooled by attention, the text's sees all of its 64 tokens both ways, and its last is the text. As the
paper's section 4 has it: batches of 32,768, Adam with b2 0.95, learning rate 0.001, weight decay 0.0001; scale and bias begin at 10 and -10. WebLI,
its data, is not public: LAION-400M stands in for it, as in clip_b16.py. For a v4-256 or the like; nobody has trained this config here.

    python -m research.train --config=configs/contrastive/siglip_b16.py --workdir=runs/siglip_b16
"""

from configs.contrastive import clip_b16


def get_config():
    c = clip_b16.get_config()
    c.model.update(embedding_width=768, temperature=0.1)
    c.model.first.update(pool="attention", class_token=False, norm_epsilon=1e-6, activation="gelu_tanh")
    c.model.second.update(name="bert", vocab_size=32_000, max_length=64, width=768, layers=12, heads=12, mlp_width=3072, activation="gelu_tanh")
    c.model.second.update(norm_epsilon=1e-6, scale_residual_initializer=False)
    c.objective.name = "siglip"
    c.data.length = 64
    c.optimizer.update(learning_rate=1e-3, warmup_steps=20_000, b2=0.95, weight_decay=1e-4)
    return c

"""GPT-3 175B (configs/gpt/gpt3.py) laid out for 1,024 TPU v5p chips: fsdp over 256 of them, tensor over the 4 that lie closest.

A batch is 1,536 sequences of 2,048 tokens. Whether and how fast it would run is asked with no TPU at hand:

    python -m research.preflight --config=configs/gpt/gpt3_175b.py --topology=v5p:8x8x16
    python -m research.train --config=configs/gpt/gpt3_175b.py --workdir=runs/gpt3_175b
"""

from configs.gpt import gpt3


def get_config():
    c = gpt3.get_config("175b")
    c.mesh.update(fsdp=256, tensor=4)
    c.model.remat = "matmuls"  # what lies between the matrix products is computed again: a fifth of the memory stays free
    return c

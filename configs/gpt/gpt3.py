"""GPT-3 (Brown et al., arXiv 2005.14165), the eight models of table 2.1: 125m, 350m, 760m, 1.3b, 2.7b, 6.7b, 13b and 175b.

Layers alternate between dense and locally banded attention, as in the paper, which does not give the width of the band: 256 here. Its table has two
slips, kept out so that the counts of parameters come out as published: 1.3b has 16 heads (not 24) of 128, and 13b is 5,120 wide (not 5,140). The
paper's mixture of data was never published: this trains on C4. Batches (of 175b the nearest that divides over a pod), learning rates, Adam and the schedule (375M tokens of warm-up, a cosine to
10 % over 260B) are the paper's, but not its slow growth of the batch nor the last 40B tokens at 10 %. 175b asks for a pod (1,024 v5p chips say); nobody has trained these here.
The 175B model reached 20.5 on Penn Treebank, zero-shot (section 3.1.1).

    python -m research.train --config=configs/gpt/gpt3.py:175b --workdir=runs/gpt3_175b
"""

from configs.gpt import small
from research.core.errors import UserError

SIZES = {  # layers, width, heads, sequences of 2,048 tokens in a batch, learning rate
    "125m": (12, 768, 12, 256, 6.0e-4),
    "350m": (24, 1024, 16, 256, 3.0e-4),
    "760m": (24, 1536, 16, 256, 2.5e-4),
    "1.3b": (24, 2048, 16, 512, 2.0e-4),
    "2.7b": (32, 2560, 32, 512, 1.6e-4),
    "6.7b": (32, 4096, 32, 1024, 1.2e-4),
    "13b": (40, 5120, 40, 1024, 1.0e-4),
    "175b": (96, 12288, 96, 1536, 0.6e-4),
}


def get_config(size="125m"):
    if size not in SIZES:
        raise UserError(f"there is no GPT-3 of size {size!r}: choose one of {', '.join(SIZES)}.")
    layers, width, heads, batch, learning_rate = SIZES[size]
    step = batch * 2048  # tokens
    c = small.get_config()
    c.model.update(layers=layers, width=width, heads=heads, mlp_width=4 * width, max_length=2048, remat="full")
    c.model.vocab_size = 50304  # of which the tokenizer has 50,257: a multiple of 128 tiles and divides over devices
    c.model.update(dropout=0.0, attention_pattern=("dense", "local"), attention_window=256)
    c.data.update(name="c4/en", train_split="train", validation_split="validation", length=2048, batch_size=batch, eval_batch_size=min(batch, 512))
    c.optimizer.update(learning_rate=learning_rate, warmup_steps=round(375e6 / step), final_fraction=0.1)
    c.run.steps = round(260e9 / step)
    return c

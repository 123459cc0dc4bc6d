"""BERT-base as published (arXiv 1810.04805): 110M parameters, English Wikipedia, 1M steps of 256 sequences.

The first 90 % of the steps see sequences of 128 tokens, the rest 512 (appendix A.2). The paper trained on Wikipedia and BooksCorpus, on 4
Cloud TPUs (16 chips) for 4 days, and reached 84.4 on MNLI-m (its table 5); nobody has trained this config here to the end.

    python -m research.train --config=configs/bert/base.py --workdir=runs/bert_base
"""

from configs import base


def get_config():
    c = base.get_config()
    c.data.update(train_split="train[:99%]", validation_split="train[99%:]", short_length=128)
    c.run.eval_batches = 100
    return c

"""BERT-large as published (arXiv 1810.04805): 340M parameters, English Wikipedia, 1M steps of 256 sequences.

As configs/bert/base.py, with 24 layers of 1024 and 16 heads. The paper took 16 Cloud TPUs (64 chips) for 4 days and
reached 86.6 on MNLI-m (its table 6); nobody has trained this config here to the end.

    python -m research.train --config=configs/bert/large.py --workdir=runs/bert_large
"""

from configs.bert import base


def get_config():
    c = base.get_config()
    c.model.update(width=1024, layers=24, heads=16, mlp_width=4096)
    return c

"""BERT-base fine-tuned on SST-2 of GLUE: whether a sentence of a movie review is positive (arXiv 1810.04805, section 4.1).

The paper's recipe: 3 epochs (67,349 sentences, batches of 32), learning rate 2e-5 with a warm-up over a tenth of the steps, dropout 0.1. From
published weights it should reach an accuracy of 93.5 (table 1, of the test set). From a pretrained BERT-base run, on one accelerator in minutes; the data set is
prepared once, where tensorflow is installed, by `tfds build glue/sst2 --file_format=array_record`:

    python -m research.train --config=configs/bert/sst2.py --workdir=runs/sst2 \\
        --config.init.from=runs/bert_base --config.init.allow_new='^(head|masked_lm|next_sentence)/'
"""

from configs import base


def get_config():
    c = base.get_config()
    c.objective.update(name="sequence_classification", classes=2)
    c.data.update(source="labelled_text", name="glue/sst2", text_field="sentence", batch_size=32, eval_batch_size=64, length=128)
    c.optimizer.update(learning_rate=2e-5, warmup_steps=631, clip_norm=1.0)
    c.run.update(steps=6314, log_every=50, eval_every=500, save_every=500, best_metric="validation/accuracy", best_mode="max")
    return c

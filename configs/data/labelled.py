"""Labels of texts in a CSV file, as research.label writes them, made a data set to train on; rows without a label are left out.

    python -m research.label --choose=random --data=movie_reviews --count=200 --out=labels.csv
    python -m research.label --serve=labels.csv --classes=negative,positive
    python -m research.prepare --config=configs/data/labelled.py --config.input.files=labels.csv --config.name=my_reviews
    python -m research.train --config=configs/bert/finetune_sentiment.py --config.data.name=my_reviews --config.data.validation_name=movie_reviews --workdir=runs/my_reviews

Classes are those of movie reviews: --config.output.classes="('negative','positive')" names others.
"""

from configs.data import base


def get_config():
    c = base.get_config()
    c.name = "labelled"
    c.input.update(format="csv", key_field="key")
    c.rules = ("fields",)
    c.fields.required = ("text", "label")
    c.output.update(fields=("text", "label"), label_field="label", classes=("negative", "positive"), validation=0.0)
    return c

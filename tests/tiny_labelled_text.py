"""TFDS data sets of a few texts, with the features that well-known ones have: imdb_reviews, glue/stsb, glue/mnli, conll2003, squad, lm1b."""

import numpy as np
import tensorflow_datasets as tfds

TEXT = tfds.features.Text()
REVIEWS = [("The cat sat on the mat.", 1), ("Dogs ran.", 0), (" \n", 1), ("Unaffable dogs and cats.", 0), ("A cat.", -1)]
SCORED = [("The cat sat.", "A cat was sitting.", 4.5), ("Dogs ran.", "The mat.", 0.0), ("The cats.", "No score.", float("nan"))]
TAGGED = [(["Unaffables", "cats", "sat"], [1, 2, 0]), ([], []), (["dogs"], [2])]
INFERENCES = [
    ("The cat sat.", "A cat was there.", 0),
    ("The cat sat.", "It rained.", 1),
    ("Dogs ran.", "Dogs moved.", 0),
    ("The cat sat.", "The cat ran.", 2),
    ("The cat sat.", "An animal sat.", 0),
    ("Cats ran.", "Cats sat.", 2),
    ("The cat sat.", "The cat moved.", 2),
    ("The cat sat.", "Unlabelled.", -1),
]
CONTEXT = "The dogs sat on the mat.  The unaffable cats ran."
QUESTIONS = [
    ("Who ran?", CONTEXT, [("unaffable cats", 30), ("cats", 40)]),
    ("Who sat?", CONTEXT, [("dogs", 4)]),
    ("Who flew?", CONTEXT, []),
    ("What ends it?", CONTEXT, [(".", 23)]),
    ("Who was wrong?", CONTEXT, [("dogs", 5)]),
]


def data_set(class_name, features, rows):
    """A builder of one split, train."""

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = f"tiny_{class_name.lower()}"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((str(i), dict(zip(features, row))) for i, row in enumerate(rows))

    return Builder


Reviews = data_set("Reviews", {"text": TEXT, "label": tfds.features.ClassLabel(names=["neg", "pos"])}, REVIEWS)
Stars = data_set("Stars", {"text": TEXT, "label": tfds.features.Scalar(np.int32)}, [("The cat sat.", 4), ("Dogs ran.", 0)])
Scored = data_set("Scored", {"sentence1": TEXT, "sentence2": TEXT, "label": tfds.features.Scalar(np.float32)}, SCORED)
Tagged = data_set(
    "Tagged", {"tokens": tfds.features.Sequence(TEXT), "ner": tfds.features.Sequence(tfds.features.ClassLabel(names=["O", "B-X", "B-Y"]))}, TAGGED
)
Inferences = data_set(
    "Inferences",
    {"premise": TEXT, "hypothesis": TEXT, "label": tfds.features.ClassLabel(names=["entailment", "neutral", "contradiction"])},
    INFERENCES,
)
Questions = data_set(
    "Questions",
    {"question": TEXT, "context": TEXT, "answers": tfds.features.Sequence({"text": TEXT, "answer_start": np.int32})},
    [(question, context, [{"text": text, "answer_start": start} for text, start in answers]) for question, context, answers in QUESTIONS],
)
Lines = data_set("Lines", {"text": TEXT}, [(text,) for text, _ in REVIEWS])

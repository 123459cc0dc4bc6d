"""BERT (arXiv 1810.04805), RoBERTa (arXiv 1907.11692) and DistilBERT (arXiv 1910.01108): one encoder with options."""

from research.interop.family import ACTIVATIONS, Family, choose, named, only, theirs, written
from research.interop.weights import SAME, Layout, Row, dense, linear, norm, shifted

FLIPPED = Layout(lambda x, shape: dense().ours(x, shape)[..., ::-1], lambda x: dense().theirs(x[..., ::-1]))  # is_next is 1 here, 0 there
FLIPPED_BIAS = Layout(lambda x, shape: x[::-1], lambda x: x[::-1])

HEADS: dict[str, dict] = {  # the end of the name of a class -> what it is trained for here
    "ForPreTraining": {"objective.name": "masked_lm", "objective.next_sentence": True, "model.pool": "first"},
    "ForMaskedLM": {"objective.name": "masked_lm", "objective.next_sentence": False},
    "ForSequenceClassification": {"objective.name": "sequence_classification", "model.pool": "first"},
    "ForTokenClassification": {"objective.name": "token_classification"},
    "ForQuestionAnswering": {"objective.name": "question_answering"},
    "Model": {"objective.name": "simcse", "objective.projection_width": 0},
}


def architectures(name: str, *ends: str) -> dict:
    return {f"{name}{end}": HEADS[end] for end in ends}


NAMES = {  # in config.json -> with us
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_length",
    "type_vocab_size": "token_types",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "hidden_dropout_prob": "dropout",
    "layer_norm_eps": "norm_epsilon",
    "initializer_range": "initializer_stddev",
}
USUAL = {"hidden_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "initializer_range": 0.02}


def fields(stored: dict) -> dict:
    only(stored, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    return named(stored, NAMES, USUAL) | {"activation": choose(stored, "hidden_act", ACTIVATIONS, "gelu")}


def config(model, ids: dict) -> dict:
    more = {"model_type": "bert", "hidden_act": theirs(ACTIVATIONS, model.activation), "attention_probs_dropout_prob": model.dropout}
    return ids | written(model, NAMES) | more


def blocks(layer: str, names: dict[str, str]) -> list[Row]:
    """The rows of the layers: `names` are those of the maps and norms in a layer."""
    of = lambda part: f"{layer}.{names[part]}"
    maps = [linear(f"encoder/blocks/attention/{part}", of(part)) for part in ("query", "key", "value")]
    maps += [linear("encoder/blocks/attention/out", of("out"), inputs=2), linear("encoder/blocks/mlp/up", of("up"))]
    maps += [linear("encoder/blocks/mlp/down", of("down"))]
    return sum(maps, []) + norm("encoder/blocks/attention_norm", of("attention_norm")) + norm("encoder/blocks/mlp_norm", of("mlp_norm"))


LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


def embeddings(positions: Layout = SAME) -> list[Row]:
    return [
        Row("word/embedding", "embeddings.word_embeddings.weight", SAME),
        Row("position/embedding", "embeddings.position_embeddings.weight", positions),
        Row("token_type/embedding", "embeddings.token_type_embeddings.weight", SAME),
        *norm("norm", "embeddings.LayerNorm"),
    ]


OUTPUTS = {"sequence_classification": "classifier", "sequence_regression": "classifier", "token_classification": "classifier"}
OUTPUTS |= {"question_answering": "qa_outputs"}


def output(objective: str, name: str | None = None) -> list[Row]:
    """The rows of the map from hidden states to the outputs of a supervised objective; none for any other."""
    return linear("head/out", name or OUTPUTS[objective], head=True) if objective in OUTPUTS else []


def rows(model, objective: str) -> list[Row]:
    next_sentence = "cls.seq_relationship"
    return [
        *embeddings(),
        *blocks("encoder.layer.{}", LAYER),
        *linear("pooler", "pooler.dense"),
        *linear("masked_lm/transform", "cls.predictions.transform.dense", head=True),
        *norm("masked_lm/norm", "cls.predictions.transform.LayerNorm", head=True),
        Row("masked_lm/bias", "cls.predictions.bias", SAME, head=True),
        Row("next_sentence/kernel", f"{next_sentence}.weight", FLIPPED, head=True),
        Row("next_sentence/bias", f"{next_sentence}.bias", FLIPPED_BIAS, head=True),
        *output(objective),
    ]


def roberta_fields(stored: dict) -> dict:
    """Positions count from 2 there, one past the id of padding: the first two rows of the table are for that."""
    only(stored, pad_token_id=1)
    return fields(stored) | {"max_length": stored["max_position_embeddings"] - 2}


def roberta_config(model, ids: dict) -> dict:
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2} | ids
    only(ids, pad_token_id=1)  # by which positions are counted there
    return config(model, ids) | {"model_type": "roberta", "max_position_embeddings": model.max_length + 2}


def roberta_rows(model, objective: str) -> list[Row]:
    whole = objective.startswith("sequence_")  # then the head has the pooler in it
    return [
        *embeddings(shifted(2)),
        *(linear("pooler", "classifier.dense", head=True) if whole else linear("pooler", "pooler.dense")),
        *output(objective, "classifier.out_proj" if whole else None),
        *blocks("encoder.layer.{}", LAYER),
        *linear("masked_lm/transform", "lm_head.dense", head=True),
        *norm("masked_lm/norm", "lm_head.layer_norm", head=True),
        Row("masked_lm/bias", "lm_head.bias", SAME, head=True),
    ]


DISTILBERT_NAMES = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_length",
    "dim": "width",
    "n_layers": "layers",
    "n_heads": "heads",
    "hidden_dim": "mlp_width",
    "dropout": "dropout",
    "initializer_range": "initializer_stddev",
}


def distilbert_fields(stored: dict) -> dict:
    only(stored, sinusoidal_pos_embds=False)
    more = {"token_types": 0, "norm_epsilon": 1e-12, "pooler": "relu", "activation": choose(stored, "activation", ACTIVATIONS, "gelu")}
    return named(stored, DISTILBERT_NAMES, {"dropout": 0.1, "initializer_range": 0.02}) | more


def distilbert_config(model, ids: dict) -> dict:
    more = {"model_type": "distilbert", "activation": theirs(ACTIVATIONS, model.activation), "attention_dropout": model.dropout}
    return ids | written(model, DISTILBERT_NAMES) | more


DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}


def distilbert_rows(model, objective: str) -> list[Row]:
    return [
        *(row for row in embeddings() if not row.ours.startswith("token_type")),
        *blocks("transformer.layer.{}", DISTILBERT_LAYER),
        *linear("pooler", "pre_classifier", head=True),
        *linear("masked_lm/transform", "vocab_transform", head=True),
        *norm("masked_lm/norm", "vocab_layer_norm", head=True),
        Row("masked_lm/bias", "vocab_projector.bias", SAME, head=True),
        *output(objective),
    ]


def unused(config) -> str:
    """What an objective that looks at tokens alone, or another pooling, leaves aside: the layer over the first token; and the next-sentence head
    where there is only masked-language modelling, as published checkpoints have it under either name."""
    pairs = config.objective.name == "masked_lm" and config.objective.next_sentence
    pooled = config.model.pool == "first" and (pairs or config.objective.name in ("simcse", "sequence_classification", "sequence_regression"))
    without = [] if pooled else [r"^pooler\.", r"^pre_classifier\."]
    without += [r"^cls\.seq_relationship\."] if config.objective.name == "masked_lm" and not pairs else []
    return "|".join([r"position_ids$", *without])


WORDS = "embeddings.word_embeddings.weight"
SUPERVISED = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


BERT = Family(
    model="bert",
    prefix="bert.",
    architectures=architectures("Bert", "ForPreTraining", "ForMaskedLM", *SUPERVISED, "Model"),
    fields=fields,
    config=config,
    rows=rows,
    ignored=unused,
    tied=lambda stored: {"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"},
)
ROBERTA = Family(
    model="bert",
    prefix="roberta.",
    architectures=architectures("Roberta", "ForMaskedLM", *SUPERVISED, "Model"),
    fields=roberta_fields,
    config=roberta_config,
    rows=roberta_rows,
    ignored=unused,
    tied=lambda stored: {"lm_head.decoder.weight": WORDS, "lm_head.decoder.bias": "lm_head.bias"},
)
DISTILBERT = Family(
    model="bert",
    prefix="distilbert.",
    architectures=architectures("DistilBert", "ForMaskedLM", *SUPERVISED) | {"DistilBertModel": HEADS["Model"] | {"model.pool": "mean"}},
    fields=distilbert_fields,
    config=distilbert_config,
    rows=distilbert_rows,
    ignored=unused,
    tied=lambda stored: {"vocab_projector.weight": WORDS},
)

"""The other side: models of `transformers` with random weights, and what they make of random inputs. Needs the extra `parity`.

python -m tests.interop.theirs [NAME ...]     writes tests/interop/fixtures anew: these, or all
"""

import copy
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import safetensors.numpy
import torch
import transformers

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
TEXT = dict(hidden_size=15, num_hidden_layers=2, num_attention_heads=3, intermediate_size=19, vocab_size=29, max_position_embeddings=13)
DISTIL = dict(dim=15, n_layers=2, n_heads=3, hidden_dim=19, vocab_size=29, max_position_embeddings=13)
GPT2 = dict(n_embd=15, n_layer=2, n_head=3, n_inner=19, vocab_size=29, n_positions=13)
LLAMA = dict(hidden_size=18, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, intermediate_size=19, vocab_size=29)
LLAMA |= dict(max_position_embeddings=13)
IMAGE = dict(hidden_size=15, num_hidden_layers=2, num_attention_heads=3, image_size=9, patch_size=3)
LABELS = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def clip(**_):
    text = TEXT | dict(bos_token_id=1, eos_token_id=28, pad_token_id=0)
    vision = IMAGE | dict(intermediate_size=19)
    return transformers.CLIPConfig(text_config=text | dict(projection_dim=7), vision_config=vision | dict(projection_dim=7), projection_dim=7)


CASES = {  # name -> (class, config)
    "bert_model": ("BertModel", lambda: transformers.BertConfig(**TEXT)),
    "bert_pretraining": ("BertForPreTraining", lambda: transformers.BertConfig(**TEXT)),
    "bert_masked_lm": ("BertForMaskedLM", lambda: transformers.BertConfig(**TEXT, hidden_act="relu")),
    "bert_sequence": ("BertForSequenceClassification", lambda: transformers.BertConfig(**TEXT, **LABELS)),
    "bert_regression": ("BertForSequenceClassification", lambda: transformers.BertConfig(**TEXT, num_labels=1)),
    "bert_token": ("BertForTokenClassification", lambda: transformers.BertConfig(**TEXT, **LABELS)),
    "bert_question": ("BertForQuestionAnswering", lambda: transformers.BertConfig(**TEXT)),
    "roberta_model": ("RobertaModel", lambda: transformers.RobertaConfig(**(TEXT | {"max_position_embeddings": 15, "type_vocab_size": 1}))),
    "roberta_masked_lm": ("RobertaForMaskedLM", lambda: transformers.RobertaConfig(**(TEXT | {"max_position_embeddings": 15, "type_vocab_size": 1}))),
    "roberta_sequence": (
        "RobertaForSequenceClassification",
        lambda: transformers.RobertaConfig(**(TEXT | {"max_position_embeddings": 15}), **LABELS),
    ),
    "roberta_token": ("RobertaForTokenClassification", lambda: transformers.RobertaConfig(**(TEXT | {"max_position_embeddings": 15}), **LABELS)),
    "roberta_question": ("RobertaForQuestionAnswering", lambda: transformers.RobertaConfig(**(TEXT | {"max_position_embeddings": 15}))),
    "distilbert_model": ("DistilBertModel", lambda: transformers.DistilBertConfig(**DISTIL)),
    "distilbert_masked_lm": ("DistilBertForMaskedLM", lambda: transformers.DistilBertConfig(**DISTIL)),
    "distilbert_sequence": ("DistilBertForSequenceClassification", lambda: transformers.DistilBertConfig(**DISTIL, **LABELS)),
    "distilbert_token": ("DistilBertForTokenClassification", lambda: transformers.DistilBertConfig(**DISTIL, **LABELS)),
    "distilbert_question": ("DistilBertForQuestionAnswering", lambda: transformers.DistilBertConfig(**DISTIL)),
    "gpt2": ("GPT2LMHeadModel", lambda: transformers.GPT2Config(**GPT2)),
    "llama": ("LlamaForCausalLM", lambda: transformers.LlamaConfig(**LLAMA, rope_theta=500.0)),
    "llama_tied": ("LlamaForCausalLM", lambda: transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "vit": ("ViTForImageClassification", lambda: transformers.ViTConfig(**IMAGE, intermediate_size=19, **LABELS)),
    "vit_model": ("ViTModel", lambda: transformers.ViTConfig(**IMAGE, intermediate_size=19, num_channels=1)),
    "dinov2": ("Dinov2Model", lambda: transformers.Dinov2Config(**IMAGE, mlp_ratio=2, layerscale_value=0.7)),
    "clip": ("CLIPModel", clip),
}
STATISTICS = {  # of pixels in [0, 1]: what each family's image processor takes off and divides by
    "vit": ((0.5,), (0.5,)),
    "dinov2": (transformers.image_utils.IMAGENET_DEFAULT_MEAN, transformers.image_utils.IMAGENET_DEFAULT_STD),
    "clip": (transformers.image_utils.OPENAI_CLIP_MEAN, transformers.image_utils.OPENAI_CLIP_STD),
}


def model(name: str, seed: int = 0):
    """One with every parameter drawn at random, so that none is at a value that hides a mistake: no bias 0, no scale 1."""
    kind, config = CASES[name]
    torch.manual_seed(seed)
    found = getattr(transformers, kind)(config()).eval()
    with torch.no_grad():
        for key, x in found.named_parameters():
            x.copy_(torch.randn_like(x) * 0.3 + (1.0 if x.ndim == 1 and "weight" in key else 0.0))
    return found


def inputs_of(found, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs under our names: rows of different lengths, padded at their ends; images of bytes."""
    rng, made = np.random.default_rng(seed), {}
    c = found.config
    text, image = getattr(c, "text_config", c), getattr(c, "vision_config", c)
    both = hasattr(c, "text_config")
    if hasattr(text, "vocab_size"):
        T, lengths = 9, np.array([9, 4, 6])
        mask = np.arange(T) < lengths[:, None]
        tokens = rng.integers(3, text.vocab_size - 1, (3, T))
        tokens[np.arange(3), lengths - 1] = text.vocab_size - 1  # the end of a text, which CLIP pools at
        pad = getattr(text, "pad_token_id", None) or 0
        types = rng.integers(0, max(1, min(2, getattr(text, "type_vocab_size", 1))), (3, T)) * mask
        arrays = {"tokens": np.where(mask, tokens, pad).astype(np.int32), "token_types": types.astype(np.int32), "mask": mask}
        made |= {f"second/{key}": x for key, x in arrays.items()} if both else arrays
    if hasattr(image, "image_size"):
        picture = rng.integers(0, 256, (3, image.image_size, image.image_size, image.num_channels)).astype(np.uint8)
        made["first/image" if both else "image"] = picture
    return made


def called(found, inputs: dict[str, np.ndarray]):
    """(outputs under our names, hidden states) of a model of `transformers`."""
    given, kind = {}, found.config.model_type
    plain = {key.rpartition("/")[2]: torch.from_numpy(np.array(x)) for key, x in inputs.items()}
    if "tokens" in plain:
        given |= {"input_ids": plain["tokens"].long(), "attention_mask": plain["mask"].long()}
        if kind in ("bert", "roberta"):
            given["token_type_ids"] = plain["token_types"].long()
    if "image" in plain:
        mean, stddev = (torch.tensor(x) for x in STATISTICS[kind])
        given["pixel_values"] = ((plain["image"].float() / 255 - mean) / stddev).permute(0, 3, 1, 2)
    out = found(**given, output_hidden_states=True)
    if kind == "clip":
        image, text = (model.hidden_states[1:] for model in (out.vision_model_output, out.text_model_output))
        hidden = [found.vision_model.post_layernorm(x) for x in image] + [found.text_model.final_layer_norm(x) for x in text]
        return {"image": out.image_embeds, "text": out.text_embeds, "logits": out.logits_per_image}, hidden
    hidden = list(out.hidden_states)[1:]
    norm = {"vit": "layernorm", "dinov2": "layernorm", "gpt2": "ln_f", "llama": "norm"}.get(kind)
    if norm:  # which the last of the hidden states of a decoder has had already
        norm = getattr(found.base_model, norm)
        hidden = [norm(x) for x in hidden[:-1]] + [hidden[-1] if kind in ("gpt2", "llama") else norm(hidden[-1])]
    if hasattr(out, "start_logits"):
        return {"logits": torch.stack([out.start_logits, out.end_logits], -1)}, hidden
    if hasattr(out, "prediction_logits"):
        return {"logits": out.prediction_logits, "next_sentence": out.seq_relationship_logits}, hidden
    if hasattr(out, "logits"):
        return {"logits": out.logits}, hidden
    if kind == "distilbert":  # which has none of its own; ours is the mean
        weights = plain["mask"][..., None].float()
        pooled = (out.last_hidden_state * weights).sum(1) / weights.sum(1)
    else:
        pooled = out.pooler_output if kind in ("bert", "roberta") else out.last_hidden_state[:, 0]
    return {"hidden": out.last_hidden_state, "pooled": pooled}, hidden


def gradients(found, inputs) -> dict[str, np.ndarray]:
    """Of the scalar of ours.weighted, under the names that tensors are saved by, without the prefix of the backbone."""
    outputs, mask, total = called(found, inputs)[0], inputs.get("mask"), 0.0
    for x in (outputs[name] for name in sorted(outputs)):
        real = torch.from_numpy(mask.reshape(*mask.shape, *[1] * (x.ndim - 2))) if mask is not None and tuple(x.shape[:2]) == mask.shape else 1.0
        total = total + (torch.cos(torch.arange(x.numel(), dtype=torch.float32)).reshape(x.shape) * x * real).sum()
    found.zero_grad()
    total.backward()
    there = copy.deepcopy(found)
    for x, gradient in zip(there.parameters(), [x.grad for x in found.parameters()], strict=True):
        x.data = torch.zeros_like(x) if gradient is None else gradient
    with tempfile.TemporaryDirectory() as folder:
        there.save_pretrained(folder)
        saved = safetensors.numpy.load_file(f"{folder}/model.safetensors")
    return {name.removeprefix(f"{found.base_model_prefix}."): x for name, x in saved.items()}


def write_fixture(name: str):
    found = model(name)
    found.save_pretrained(FIXTURES / name)
    (FIXTURES / name / "generation_config.json").unlink(missing_ok=True)
    inputs = inputs_of(found)
    with torch.no_grad():
        outputs, hidden = called(found, inputs)
    arrays = {f"inputs/{key}": x for key, x in inputs.items()} | {f"outputs/{key}": x.numpy() for key, x in outputs.items()}
    np.savez_compressed(FIXTURES / name / "expected.npz", **arrays, **{f"hidden/{i}": x.numpy() for i, x in enumerate(hidden)})


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
        write_fixture(name)

"""What each name in a config stands for: one table a kind.

To add a thing, write its file and give it a row here; or leave this repository alone and name it "package.module:function".
"""

import dataclasses
import pathlib

from research.core.config import look_up
from research.core.errors import UserError
from research.data import text, wordnet
from research.data.arithmetic import Arithmetic
from research.data.augment import Augmentation
from research.data.corpus import Corpus
from research.data.emoji import Emoji
from research.data.fashion_mnist import FashionMnist
from research.data.images import Images, ImageText, ImageViews, LabelledImages, UnlabelledImages
from research.data.labelled_text import Answers, LabelledText, TokenLabels
from research.data.mnist_5k import Mnist5k
from research.data.movie_reviews import MovieReviews
from research.data.packing import PackedPairs, PackedText
from research.data.pairs import SentencePairs
from research.data.preferences import PreferencePairs
from research.data.prompts import Prompts
from research.data.text_augment import BackTranslation, CodeSwitch, Eda, SpanCorruption, TextAugmentation, read_translations
from research.data.text_inputs import WordAugmentation
from research.data.text_views import TextPairs, TextTriples, TextViews
from research.data.wikipedia_sample import WikipediaSample, WikipediaTopics
from research.interop.bert import BERT, DISTILBERT, ROBERTA
from research.interop.clip import CLIP
from research.interop.gpt import GPT2, LLAMA
from research.interop.vit import DINOV2, VIT
from research.models.bert import Bert
from research.models.gpt import Gpt
from research.models.layers import TransformerConfig
from research.models.mlp import Perceptron, PerceptronConfig
from research.models.resnet import ResNet
from research.models.two_tower import TwoTower
from research.models.vit import Vit, VitConfig
from research.objectives.actor_critic import ActorCritic
from research.objectives.alpha_zero import AlphaZero
from research.objectives.causal_lm import CausalLM
from research.objectives.contrastive import Clip, NtXent, SigLip, SimCse
from research.objectives.masked_image import MaskedImage
from research.objectives.masked_lm import MaskedLM
from research.objectives.policy_gradient import DrGrpo, Grpo, Ppo, Reinforce
from research.objectives.preference import Dpo, Ipo, Kto, RewardModel
from research.objectives.supervised import ImageClassification, QuestionAnswering, SequenceClassification, SequenceRegression, TokenClassification
from research.rl import rewards
from research.rl.arena import Arena
from research.rl.control import Control, Environment
from research.rl.games import Game
from research.rl.rollouts import Rollouts
from research.rl.self_play import SelfPlay
from research.training import probe
from research.training.trackers import MLflow, WeightsAndBiases


def from_fields(cls, group, **given):
    """`cls` with the fields it has in common with a group of the config, and those of `given` that it has; one absent there has its own default."""
    fields = dataclasses.fields(cls)
    wanted = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    known = {name: group[name] for name in group if group[name] is not None or name in wanted} | given
    if missing := [name for name in wanted if name not in known]:
        raise UserError(f"{cls.__name__} wants {', '.join(missing)}, of which the config says nothing: add them to its group.")
    return cls(**{f.name: known[f.name] for f in fields if f.name in known})


def model(group):
    """The module that a `model` group of the config names."""
    return look_up(MODELS, group.name, "model.name")(group)


def towers(group):
    """(view, fields, module) of each tower that a `model` group names; of a model without towers, ("", its fields, itself)."""
    module = model(group)
    if not hasattr(module, "towers"):
        return [("", group, module)]
    return [("first", group.first, module.first_tower), ("second", group.second, module.second_tower)]


def reading(group, what: str):
    """Of the `towers`, (view, fields, module) of those whose inputs have `what`: tokens or image."""
    return [tower for tower in towers(group) if what in getattr(tower[2], "inputs", lambda *_: ())(1, 1)]


def two_tower(group) -> TwoTower:
    if "two_tower" in (group.first.name, group.second.name):
        raise UserError("config.model.first and .second name the models of two towers: neither is two_tower itself.")
    return TwoTower(model(group.first), model(group.second), group.embedding_width, group.temperature)


def sentence_pairs(config, corpus: Corpus, split: str, length: int, training: bool):
    tokenizer, vocabulary = corpus.text_tools()
    pairs, most = SentencePairs(text.token_store(corpus.documents(split), tokenizer), length, vocabulary, config.data.short_rate), config.objective.pairs_per_row
    return pairs if most == 1 else PackedPairs(pairs, length, most, config.seed if training else 0)


def packed_text(config, corpus: Corpus, split: str, length: int, training: bool):
    tokenizer, vocabulary = corpus.text_tools()
    return PackedText(text.token_store(corpus.documents(split, whole=True), tokenizer), length, vocabulary)


def check_augmentation(config):
    """Raises UserError for an augmentation that the source does not do, or that lacks what it needs."""
    d = config.data
    of_text = [name for name in ("back_translation", "eda_alpha", "code_switch_rate", "word_dropout", "span_corruption") if d[name]] + ["crop_words"] * (d.crop_words < 1)
    of_images = [name for name in ("flip", "randaugment_layers", "augmix_severity", "color_jitter", "erasing") if d[name]] + ["crop_area"] * (d.crop_area < 1)
    for asked, sources in ((of_text, AUGMENT_TEXT), (of_images, AUGMENT_IMAGES)):
        if asked and d.source in SOURCES and d.source not in sources:
            raise UserError(f"config.data.{asked[0]} is {d[asked[0]]}, of which data.source={d.source} knows nothing: {', '.join(sources)} do. Leave it as it was.")
    if d.code_switch_rate and d.code_switch_words is None:
        raise UserError(f"config.data.code_switch_rate is {d.code_switch_rate}: name the list of words as config.data.code_switch_words.")
    if d.eda_alpha and d.language != "en":
        raise UserError(f"config.data.eda_alpha knows synonyms of English alone, config.data.language is {d.language!r}: set it to 0.")


def text_augmentation(config, tokenizer, vocabulary, training: bool) -> TextAugmentation | None:
    """What happens to each text of a split, in this order; None where nothing does."""
    d = config.data
    if not training:
        return None
    of_words: list = []
    of_tokens: list = []
    if d.back_translation is not None:
        of_words.append(BackTranslation(d.back_translation_rate, look_up({}, d.back_translation, "data.back_translation")))
    if d.eda_alpha:
        of_words.append(Eda(d.eda_alpha, wordnet.load()))
    if d.code_switch_rate:
        of_words.append(CodeSwitch(d.code_switch_rate, read_translations(pathlib.Path(d.code_switch_words))))
    if d.crop_words < 1 or d.word_dropout:
        of_tokens.append(WordAugmentation(vocabulary, d.crop_words, d.word_dropout))
    if d.span_corruption:
        vocabulary.require("data.span_corruption", "mask")
        of_tokens.append(SpanCorruption(d.span_corruption, d.mean_span, vocabulary.mask))
    return TextAugmentation(tokenizer, tuple(of_words), tuple(of_tokens)) if of_words or of_tokens else None


def labelled_text(config, corpus: Corpus, split: str, length: int, training: bool):
    d, (tokenizer, vocabulary) = config.data, corpus.text_tools()
    texts = ("text_field",) if d.second_text_field is None else ("text_field", "second_text_field")
    records, fields = corpus.records(split, **dict.fromkeys(texts, "text"), label_field="class or score"), tuple(d[field] for field in texts)
    augmentation = text_augmentation(config, tokenizer, vocabulary, training)
    return LabelledText(records, fields, d.label_field, corpus.label_dtype, tokenizer, vocabulary, length, augmentation)


def token_labels(config, corpus: Corpus, split: str, length: int, training: bool):
    d, records = config.data, corpus.records(split, text_field="sequence of words", label_field="sequence of classes")
    return TokenLabels(records, d.text_field, d.label_field, *corpus.text_tools(), length)


def answers(config, corpus: Corpus, split: str, length: int, training: bool):
    d, kind = config.data, "sequence of answers (text, answer_start)"
    records = corpus.records(split, text_field="text", second_text_field="text", label_field=kind)
    return Answers(records, d.text_field, d.second_text_field, d.label_field, *corpus.text_tools(), length)


def text_views(config, corpus: Corpus, split: str, length: int, training: bool):
    tokenizer, vocabulary = corpus.text_tools()
    store = text.token_store(corpus.documents(split), tokenizer)
    return TextViews(store, length, vocabulary, text_augmentation(config, tokenizer, vocabulary, training))


def text_pairs(config, corpus: Corpus, split: str, length: int, training: bool):
    d, (tokenizer, vocabulary) = config.data, corpus.text_tools()
    records = corpus.records(split, text_field="text", second_text_field="text")
    augmentation = text_augmentation(config, tokenizer, vocabulary, training)
    return TextPairs(records, (d.text_field, d.second_text_field), tokenizer, vocabulary, length, augmentation)


def text_triples(config, corpus: Corpus, split: str, length: int, training: bool):
    d, records = config.data, corpus.records(split, text_field="text", second_text_field="text", label_field="class")
    return TextTriples(records, (d.text_field, d.second_text_field, d.label_field), corpus.labels, *corpus.text_tools(), length)


def images_of(config, corpus: Corpus, split: str, training: bool, **kinds: str) -> Images:
    """The images of a split, of the size that the model takes; the records have fields of these `kinds` too."""
    records = corpus.records(split, image_field="image", **kinds)
    shapes = {module.inputs(1, 1)["image"].shape for _, _, module in reading(config.model, "image")}
    if len(shapes) != 1:
        found = " and ".join(f"{H} x {W} of {C} channels" for _, H, W, C in sorted(shapes)) or "none"
        raise UserError(f"data.source={config.data.source} gives images of one size, the model takes {found}: choose a model, or towers, that match.")
    augmentation = from_fields(Augmentation, config.data) if training else None
    ((_, size, width, channels),) = shapes
    if size != width:
        raise UserError(f"data.source={config.data.source} gives square images, the model takes {size} x {width}: leave model.image_width out.")
    return Images(records, config.data.image_field, size, channels, augmentation)


def images(config, corpus: Corpus, split: str, length: int, training: bool):
    return UnlabelledImages(images_of(config, corpus, split, training))


def labelled_images(config, corpus: Corpus, split: str, length: int, training: bool):
    return LabelledImages(images_of(config, corpus, split, training, label_field="class"), config.data.label_field, corpus.labels)


def image_views(config, corpus: Corpus, split: str, length: int, training: bool):
    return ImageViews(images_of(config, corpus, split, True))


def image_text(config, corpus: Corpus, split: str, length: int, training: bool):
    views = [[view for view, *_ in reading(config.model, what)] for what in ("image", "tokens")]
    if sorted(views) != [["first"], ["second"]]:
        raise UserError("data.source=image_text is for two towers, of which one takes images and one text: choose model.name=two_tower of such two.")
    images = images_of(config, corpus, split, training, text_field="text")
    return ImageText(images, config.data.text_field, *corpus.text_tools(), length, *(view for (view,) in views))


def arena(config, objective) -> Arena:
    """Where the agent that a config describes is measured."""
    r = config.rl
    if not isinstance(objective, AlphaZero):
        raise UserError(f"objective.name={config.objective.name} is of no agent that plays board games: alpha_zero is.")
    game = Game(r.environment)
    game.check(objective.observation["image"], objective.actions)
    if objective.symmetry not in ("none", game.symmetry) and game.symmetry != "dihedral":
        raise UserError(f"objective.symmetry={objective.symmetry}: what is so turned is another position in {game.name}: choose none or {game.symmetry}.")
    return Arena(game, objective.predict, r.search, r.simulations, r.opponents, r.eval_games, r.opening)


def preference_pairs(config, corpus: Corpus, split: str, length: int, training: bool):
    d, (tokenizer, vocabulary) = config.data, corpus.text_tools()
    records = corpus.records(split, text_field="text", chosen_field="text", rejected_field="text")
    return PreferencePairs(records, (d.text_field, d.chosen_field, d.rejected_field), tokenizer, vocabulary, length)


def prompts(config, corpus: Corpus, split: str) -> Prompts:
    d, fields = config.data, ("text_field", *(["answer_field"] if config.data.answer_field is not None else []))
    records = corpus.records(split, **dict.fromkeys(fields, "text"))
    return Prompts(records, tuple(d[field] for field in fields), *corpus.text_tools(), config.rl.prompt_length, config.rl.prompt_words)


def rollouts(config, objective, corpus: Corpus, judge) -> Rollouts:
    r, d = config.rl, config.data
    if not hasattr(objective, "log_probs"):
        known = "grpo, dr_grpo, ppo, reinforce, dpo, ipo or kto"
        raise UserError(f"rl.experience=rollouts trains a language model, which objective.name={config.objective.name} does not: choose {known}.")
    worth = look_up(REWARDS, r.reward, "rl.reward")(config, judge)
    asked, held_out = prompts(config, corpus, d.train_split), prompts(config, corpus, d.validation_split)
    return Rollouts(objective, corpus.text_tools()[0], asked, held_out, worth, r.prompts, r.group, r.updates, r.max_tokens, r.eval_prompts)


def exact_answer(config, judge):
    if config.data.answer_field is None:
        raise UserError("rl.reward=exact_answer compares with an answer: name the feature that has it as config.data.answer_field.")
    return rewards.exact_answer


def asked_judge(config, judge):
    if config.rl.judge is None:
        raise UserError("rl.reward=judge asks a model: name its run as config.rl.judge.")
    return rewards.judged(judge(config.rl.judge))


def self_play(config, objective, corpus: Corpus, judge) -> SelfPlay:
    r = config.rl
    return SelfPlay(arena(config, objective), objective.example_batch, r.games, r.moves, r.kept)


def control(config, objective, corpus: Corpus, judge) -> Control:
    r = config.rl
    if not isinstance(objective, ActorCritic):
        raise UserError(f"rl.experience=control is what an actor_critic learns from, objective.name is {config.objective.name}: choose that.")
    return Control(Environment(r.environment), objective, r.games, r.moves, r.updates, r.eval_games, r.reward_scale)


MODELS = {  # name -> function(a model group of the config) -> module
    "bert": lambda group: Bert(from_fields(TransformerConfig, group)),
    "two_tower": two_tower,
    "gpt": lambda group: Gpt(from_fields(TransformerConfig, group)),
    "vit": lambda group: Vit(from_fields(VitConfig, group)),
    "resnet": lambda group: ResNet(from_fields(VitConfig, group)),
    "mlp": lambda group: Perceptron(from_fields(PerceptronConfig, group)),
}
OBJECTIVES = {  # name -> frozen dataclass; see the Objective of research/core/types.py for what its fields are given
    "masked_lm": MaskedLM,
    "causal_lm": CausalLM,
    "masked_image": MaskedImage,
    "nt_xent": NtXent,
    "clip": Clip,
    "siglip": SigLip,
    "simcse": SimCse,
    "sequence_classification": SequenceClassification,
    "sequence_regression": SequenceRegression,
    "token_classification": TokenClassification,
    "question_answering": QuestionAnswering,
    "image_classification": ImageClassification,
    "alpha_zero": AlphaZero,
    "actor_critic": ActorCritic,
    "dpo": Dpo,
    "ipo": Ipo,
    "kto": Kto,
    "reward_model": RewardModel,
    "reinforce": Reinforce,
    "ppo": Ppo,
    "grpo": Grpo,
    "dr_grpo": DrGrpo,
}
DATASETS = {  # name -> TFDS builder class; any other name is asked of TFDS itself
    "wikipedia_sample": WikipediaSample,
    "wikipedia_topics": WikipediaTopics,
    "movie_reviews": MovieReviews,
    "arithmetic": Arithmetic,
    "mnist_5k": Mnist5k,
    "fashion_mnist": FashionMnist,
    "emoji": Emoji,
}
SOURCES = {  # name -> function(config, corpus, split, length, training: whether augmentation applies) -> Examples
    "sentence_pairs": sentence_pairs,
    "images": images,
    "labelled_images": labelled_images,
    "image_views": image_views,
    "image_text": image_text,
    "packed_text": packed_text,
    "labelled_text": labelled_text,
    "token_labels": token_labels,
    "answers": answers,
    "text_views": text_views,
    "text_pairs": text_pairs,
    "text_triples": text_triples,
    "preference_pairs": preference_pairs,
}
AUGMENT_TEXT = ("labelled_text", "text_pairs", "text_views")  # sources that do data.eda_alpha and the like
AUGMENT_IMAGES = ("images", "labelled_images", "image_views", "image_text")  # and data.flip and the like
EXPERIENCES = {  # name -> function(config, objective, corpus, judge: function(run) -> function(texts) -> scores) -> Experience (research/rl/experience.py)
    "self_play": self_play,
    "control": control,
    "rollouts": rollouts,
}
REWARDS = {  # name -> function(config, judge) -> Reward (research/rl/rewards.py)
    "exact_answer": exact_answer,
    "words": lambda config, judge: rewards.words(config.rl.words),
    "judge": asked_judge,
}
FAMILIES = {  # model_type of a Hugging Face config.json -> research/interop/family.py
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "gpt2": GPT2,
    "llama": LLAMA,
    "vit": VIT,
    "dinov2": DINOV2,
    "clip": CLIP,
}
TRACKERS = {  # name -> function(run directory, config) -> Tracker
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
EVALUATORS = {  # name -> function(the probe group of the config, train, validation: embeddings with their labels) -> the accuracy of validation
    "knn": lambda group, train, validation: probe.knn(train, validation, group.neighbors),
    "linear": lambda group, train, validation: probe.linear(train, validation),
}

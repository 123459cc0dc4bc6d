"""Every field there is, with its default: BERT-base by masked-language modelling and next-sentence prediction.

Other configs start from here and change few lines. Fields that may be absent are placeholders: they can be set on the
command line, and None means absent.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    c = ConfigDict()
    c.seed = 0  # of parameters, data order, masks and dropout

    c.model = ConfigDict()
    c.model.name = "bert"  # a row of MODELS in research/build.py, or "package.module:function"
    c.model.vocab_size = 30522  # rows of the word table; the tokenizer has at most as many tokens
    c.model.max_length = 512  # learned positions
    c.model.token_types = 2  # segments that BERT tells apart
    c.model.width = 768  # D, of the residual stream
    c.model.layers = 12  # L
    c.model.heads = 12  # H, of D / H dimensions each
    c.model.mlp_width = 3072  # F, inside the MLP
    c.model.dropout = 0.1  # of embeddings, attention weights and residual branches
    c.model.norm = "post"  # layer norm after the residual (post) or before the branch (pre)
    c.model.norm_epsilon = 1e-12  # added to the variance in layer norm
    c.model.activation = "gelu"  # gelu (erf), gelu_tanh, relu
    c.model.initializer_stddev = 0.02  # of the truncated normal that weights start from
    c.model.dtype = "bfloat16"  # of the computation; parameters are float32
    c.model.scan_layers = True  # one compiled block looped over the layers: compiles fast; False unrolls it
    c.model.remat = "none"  # what the backward pass computes again: none, full (each block), dots (all but matmuls)

    c.objective = ConfigDict()
    c.objective.name = "masked_lm"  # a row of OBJECTIVES in research/build.py, or "package.module:function"
    c.objective.mask_rate = 0.15  # of the tokens are to be predicted
    c.objective.whole_word = False  # hide all pieces of a word or none
    c.objective.next_sentence = True  # add the next-sentence loss

    c.data = ConfigDict()
    c.data.source = "sentence_pairs"  # a row of SOURCES in research/build.py, or "package.module:function"
    c.data.name = "wikipedia/20230601.en"  # a TFDS name, or a row of DATASETS in research/build.py
    c.data.dir = placeholder(str)  # where TFDS keeps data sets; absent: `tfds` in the cache
    c.data.text_field = "text"  # the feature that holds the text
    c.data.language = "en"  # by whose rules sentences end
    c.data.train_split = "train"  # any TFDS split, "train[:99%]" too
    c.data.validation_split = "validation"  # likewise
    c.data.tokenizer = placeholder(str)  # path of a tokenizer.json or vocab.txt; absent: trained on the training split
    c.data.batch_size = 256  # examples in a step, over all devices
    c.data.eval_batch_size = 256  # examples in a batch of an evaluation
    c.data.length = 512  # tokens in an example
    c.data.short_length = placeholder(int)  # tokens in an example for the first part of the run (BERT: 128 for 90 %)
    c.data.short_fraction = 0.9  # of the steps, where short_length is set
    c.data.short_rate = 0.1  # of the pairs are cut short at random
    c.data.threads = 2  # that read ahead
    c.data.buffer = 512  # examples read ahead

    c.optimizer = ConfigDict()
    c.optimizer.name = "adamw"  # adamw, lamb, lion, adafactor, sgd, muon
    c.optimizer.learning_rate = 1e-4  # at its highest
    c.optimizer.schedule = "warmup_linear"  # warmup_cosine, warmup_linear, inverse_sqrt, warmup_stable_decay, constant
    c.optimizer.warmup_steps = 10_000  # from 0 to learning_rate
    c.optimizer.decay_steps = placeholder(int)  # of warmup_stable_decay; absent: all after warm-up
    c.optimizer.final_fraction = 0.0  # of learning_rate, at the end of a decay
    c.optimizer.b1 = 0.9  # Adam, LAMB, Lion
    c.optimizer.b2 = 0.999  # Adam, LAMB, Lion
    c.optimizer.epsilon = 1e-6  # Adam, LAMB
    c.optimizer.momentum = 0.9  # SGD; Muon usually 0.95
    c.optimizer.nesterov = True  # SGD, Muon
    c.optimizer.weight_decay = 0.01  # decoupled: times the learning rate and the parameter
    c.optimizer.no_decay = r"(bias|scale)$"  # parameters whose path matches are not decayed
    c.optimizer.clip_norm = placeholder(float)  # of the global gradient; absent: no clipping
    c.optimizer.accumulate = 1  # microbatches in a step
    c.optimizer.ema_decay = placeholder(float)  # of the moving average of the parameters, which evaluation then uses

    c.mesh = ConfigDict()
    c.mesh.data = 1  # devices along which only the batch is split; one of these four may be -1: what is left
    c.mesh.fsdp = -1  # batch, parameters and optimizer state split
    c.mesh.context = 1  # sequence split
    c.mesh.tensor = 1  # heads, MLP and vocabulary split
    c.mesh.rules = "fsdp_tp"  # what is split where: dp, fsdp, tp, fsdp_tp (research/core/sharding.py)
    c.mesh.extra_rules = ()  # (("logical axis", "mesh axis" or None), ...) that go before those

    c.init = ConfigDict()
    c.init["from"] = placeholder(str)  # a run directory whose parameters to start from
    c.init.allow_new = placeholder(str)  # parameters whose path matches may be missing there, or differ in shape

    c.run = ConfigDict()
    c.run.steps = 1_000_000  # updates in all
    c.run.log_every = 100  # steps; every one is checked, these are written
    c.run.eval_every = 10_000  # steps; the last is always evaluated
    c.run.eval_batches = placeholder(int)  # at most; absent: the whole split
    c.run.save_every = 10_000  # steps; the last is always saved
    c.run.keep = 3  # latest checkpoints, besides the best
    c.run.best_metric = "validation/loss"  # by which one more checkpoint is kept, of those saved right after an evaluation
    c.run.best_mode = "min"  # or max
    return c

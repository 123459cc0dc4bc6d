"""Every field there is, with its default: BERT-base by masked-language modelling and next-sentence prediction.

Other configs start from here and change few lines. Fields that may be absent are placeholders: they can be set on the
command line, and None means absent.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def model_fields():
    m = ConfigDict()
    m.name = "bert"  # a row of MODELS in research/tables.py, or "package.module:function"
    m.width = 768  # D, of the residual stream
    m.layers = 12  # L
    m.heads = 12  # H, of D / H dimensions each
    m.kv_heads = placeholder(int)  # heads of keys and values, each shared by H / kv_heads queries; absent: H
    m.mlp_width = 3072  # F, inside the MLP
    m.gated_mlp = False  # multiply the activated branch of the MLP by a linear one (SwiGLU where activation is silu)
    m.activation = "gelu"  # gelu (erf), gelu_tanh, gelu_sigmoid (x sigmoid(1.702 x), as in CLIP), relu, silu, tanh
    m.use_bias = True  # in linear maps and norms
    m.norm = "post"  # after the residual (post) or before the branch (pre)
    m.norm_type = "layer"  # layer (mean and variance) or rms (root mean square only)
    m.norm_epsilon = 1e-12  # added to the variance
    m.positions = "learned"  # learned; rotary (of queries and keys); sincos (fixed, of image patches)
    m.rotary_base = 10_000.0  # theta of rotary positions
    m.attention = "auto"  # how it is computed: xla, splash (Pallas, on TPUs), cudnn (on NVIDIA GPUs), auto (research/models/attention.py)
    m.attention_pattern = ("dense",)  # of the layers in turn: dense, or local (banded, by attention_window)
    m.attention_window = 256  # of a local layer: a query sees keys less than so many tokens away, on both sides but for GPT
    m.dropout = 0.1  # of embeddings, attention weights and residual branches
    m.attention_dropout = placeholder(float)  # of attention weights; absent: as dropout. Splash drops none: set 0
    m.layer_scale = placeholder(float)  # what a residual branch is multiplied by, to begin with; learned for each dimension; absent: nothing
    m.stochastic_depth = 0.0  # rate at which the last layer's branches are left out of an example; grows linearly from 0 at the first
    m.initializer_stddev = 0.02  # of the truncated normal that weights start from
    m.scale_residual_initializer = False  # divide it by sqrt(2 L) where a residual branch ends, as GPT-2 does
    m.dtype = "bfloat16"  # of the computation; parameters are float32
    m.matmul_dtype = placeholder(str)  # of a block's products with its kernels, where the chip is faster so: int8, fp8 (extra `quantized`); absent: dtype
    m.scan_layers = True  # one compiled block looped over the layers: compiles fast; False unrolls it
    m.scan_unroll = 1  # layers in a round of that loop, between which the compiler may overlap
    m.microbatches = 1  # parts of a batch that go through the stages one behind the other, where mesh.pipeline is more than 1: several times as many
    m.remat = "none"  # what the backward pass computes again: none, or what is not kept: REMAT_POLICIES in research/models/layers.py (full, dots, attention, projections, matmuls, offload)
    m.pool = "first"  # how hidden states become one vector: first (token; BERT's has a tanh layer), mean, last, attention (a learned query)

    m.vocab_size = 30522  # text: rows of the word table; the tokenizer has at most as many tokens
    m.max_length = 512  # text: positions there are
    m.token_types = 2  # BERT: segments told apart; 0: none
    m.pooler = "tanh"  # BERT: activation of the layer over the first token, where pool is first: tanh, relu
    m.tied_head = True  # GPT: the word table is the output layer too

    m.image_size = 224  # images: pixels of a side, or their rows
    m.image_width = placeholder(int)  # images: pixels of a row; absent: image_size
    m.channels = 3  # images: 3 of colour, 1 of grey
    m.patch_size = 16  # ViT: pixels of a side of a patch
    m.class_token = True  # ViT: one more token than patches
    m.patch_bias = True  # ViT: of the linear map of a patch
    m.embedding_norm = False  # ViT: normalise patches with their positions before the first layer (CLIP)
    m.pixel_mean = (0.5,)  # ViT: what pixels in [0, 1] are moved by, each channel or all
    m.pixel_stddev = (0.5,)  # ViT: what they are then divided by

    m.observation_size = 4  # mlp: numbers that an observation is

    m.embedding_width = 512  # two_tower: of the space in which the towers meet
    m.temperature = 0.07  # two_tower: of the similarities, to begin with; it is learned
    return m


def get_config():
    c = ConfigDict()
    c.seed = 0  # of parameters, data order, masks and dropout

    c.model = model_fields()  # the model, or what two_tower needs of it
    c.model.first = model_fields()  # of a two_tower model: the tower of the batch's first/ arrays, with all fields above
    c.model.second = model_fields()  # likewise the tower of second/

    c.objective = ConfigDict()
    c.objective.name = "masked_lm"  # a row of OBJECTIVES in research/tables.py, or "package.module:function"
    c.objective.mask_rate = 0.15  # masked_lm, masked_image: of the tokens or patches, hidden and to be predicted
    c.objective.whole_word = False  # masked_lm: hide all pieces of a word or none
    c.objective.next_sentence = True  # masked_lm: add the next-sentence loss
    c.objective.pairs_per_row = 1  # masked_lm: sentence pairs that may share a row, none seeing another, so that less is padding (arXiv 2107.02027)
    c.objective.z_loss = 0.0  # causal_lm: weight of log(Z)^2, which keeps logits from drifting (arXiv 2204.02311, section 5)
    c.objective.loss_chunks = 1  # causal_lm: parts of the tokens of a row, of which one has its logits in memory at a time
    c.objective.label_smoothing = 0.0  # causal_lm, classification: probability taken from the label and spread over all; dpo: that a pair is the wrong way round
    c.objective.classes = 2  # classification: labels there are
    c.objective.mixup = 0.0  # image_classification: alpha of the Beta that mixes two images (arXiv 1710.09412); 0: none
    c.objective.cutmix = 0.0  # image_classification: alpha of the Beta that pastes one into the other (arXiv 1905.04899); 0: none
    c.objective.temperature = placeholder(float)  # nt_xent, simcse: of the similarities; absent: 0.1 and 0.05. reinforce, ppo, grpo, dr_grpo, dpo, ipo, kto: of draws and their log-probabilities; absent: 1
    c.objective.projection_width = 128  # nt_xent, simcse: of the head that only training uses; 0: none
    c.objective.supervised = False  # simcse: pairs with a hard negative each, in place of one text seen twice
    c.objective.initial_bias = -10.0  # siglip: of the logits, to begin with; it is learned
    c.objective.decoder_width = 512  # masked_image: D of the decoder
    c.objective.decoder_layers = 8  # masked_image: L of the decoder
    c.objective.decoder_heads = 16  # masked_image: H of the decoder

    c.objective.beta = 0.1  # dpo, ipo, kto: of the implicit reward; the more, the closer to the reference
    c.objective.desirable_weight = 1.0  # kto: of completions that were chosen
    c.objective.undesirable_weight = 1.0  # kto: of those rejected
    c.objective.kl_weight = placeholder(float)  # reinforce, ppo, grpo, dr_grpo: of the divergence from the reference; absent: 0.03, 0.02, 0.04, 0
    c.objective.entropy_weight = placeholder(float)  # the same, actor_critic: of the entropy; absent: 0, actor_critic 0.01
    c.objective.clip = 0.2  # ppo, grpo, dr_grpo, actor_critic: how far the ratio of policies may go from 1
    c.objective.clip_high = placeholder(float)  # ppo, grpo, dr_grpo: upwards; absent: as clip (arXiv 2503.14476, eq. 10)
    c.objective.importance_cap = 2.0  # reinforce: the most that the ratio of policies counts
    c.objective.value_clip = placeholder(float)  # ppo, actor_critic: how far the value may go from that of the rollout; absent: any
    c.objective.discount = placeholder(float)  # ppo, actor_critic: of a reward, for each step that it lies ahead; absent: 1, 0.99
    c.objective.gae_decay = 0.95  # ppo, actor_critic: lambda of the advantages
    c.objective.completion_length = placeholder(int)  # dr_grpo: by which sums over tokens are divided; absent: data.length
    c.objective.actions = 1  # alpha_zero, actor_critic: moves there are, legal or not
    c.objective.value_weight = placeholder(float)  # alpha_zero, ppo, actor_critic: of the value's loss beside the policy's; absent: 1, 0.5, 0.5
    c.objective.symmetry = "none"  # alpha_zero: how boards are turned in training: none, reflection, half_turn, dihedral

    c.data = ConfigDict()
    c.data.source = "sentence_pairs"  # a row of SOURCES in research/tables.py, or "package.module:function"
    c.data.name = "wikipedia/20230601.en"  # a TFDS name, or a row of DATASETS in research/tables.py
    c.data.dir = placeholder(str)  # where TFDS keeps data sets; absent: `tfds` in the cache
    c.data.text_field = "text"  # the feature that holds the text
    c.data.second_text_field = placeholder(str)  # likewise of the second text, where an example is a pair of texts
    c.data.image_field = "image"  # the feature that holds the image
    c.data.answer_field = placeholder(str)  # rollouts: the feature that holds the answer to a prompt, which text_field holds
    c.data.chosen_field = placeholder(str)  # preference_pairs: the feature that holds the completion chosen, after the prompt in text_field
    c.data.rejected_field = placeholder(str)  # preference_pairs: likewise the one rejected
    c.data.label_field = "label"  # the feature that holds the label
    c.data.language = "en"  # by whose rules sentences end
    c.data.train_split = "train"  # any TFDS split, "train[:99%]" too
    c.data.validation_split = "validation"  # likewise
    c.data.validation_name = placeholder(str)  # the data set that evaluations are of; absent: data.name
    c.data.tokenizer = placeholder(str)  # its file or Hugging Face directory; absent: that of init.from, else that of the prepared data set, else a new one of the training split
    c.data.end_token = placeholder(str)  # the token that ends a text; absent: <|endoftext|>, [SEP] or </s>
    c.data.tokenizer_type = "wordpiece"  # what is trained, where there is none yet: wordpiece (BERT's, uncased), byte_bpe (GPT-2's), unigram (SentencePiece's)
    c.data.batch_size = 256  # examples in a step, over all devices
    c.data.eval_batch_size = 256  # examples in a batch of an evaluation
    c.data.length = 512  # tokens in an example
    c.data.short_length = placeholder(int)  # tokens in an example for the first part of the run (BERT: 128 for 90 %)
    c.data.short_fraction = 0.9  # of the steps, where short_length is set
    c.data.short_rate = 0.1  # of the pairs are cut short at random
    c.data.word_dropout = 0.0  # text: rate at which words are left out in training
    c.data.crop_words = 1.0  # text: least part of the words that a random crop keeps in training; 1: no crop
    c.data.eda_alpha = 0.0  # text: share of the words that one of EDA's four operations changes in training (arXiv 1901.11196: 0.1); 0: none
    c.data.back_translation = placeholder(str)  # text: "package.module:function" of (text, generator) that says it otherwise, in training
    c.data.back_translation_rate = 0.5  # of the texts that it is asked for
    c.data.code_switch_rate = 0.0  # text: rate at which words are translated in training (arXiv 2006.06402), of those that code_switch_words has
    c.data.code_switch_words = placeholder(str)  # a file of lines word<TAB>translation; a word may have several
    c.data.span_corruption = 0.0  # text: share of the tokens hidden in training, each span behind one [MASK] (arXiv 1910.10683, 1910.13461); 0: none
    c.data.mean_span = 3.0  # tokens of such a span, in the mean
    c.data.crop_area = 1.0  # images: least part of the area that a random crop, resized, keeps in training; 1: no crop
    c.data.flip = False  # images: mirror half of them in training
    c.data.color_jitter = 0.0  # images: strength of random brightness, contrast, saturation and hue in training (SimCLR: 1)
    c.data.randaugment_layers = 0  # images: operations of RandAugment in training (arXiv 1909.13719)
    c.data.randaugment_magnitude = 10  # images: their strength, of 30
    c.data.augmix_severity = 0.0  # images: strength of AugMix's operations in training, of 10 at most (arXiv 1912.02781); 0: none
    c.data.augmix_width = 3  # images: chains of operations that it mixes
    c.data.erasing = 0.0  # images: probability that a rectangle becomes noise in training (arXiv 1708.04896)
    c.data.threads = 2  # that read ahead
    c.data.buffer = 512  # examples read ahead

    c.rl = ConfigDict()
    c.rl.experience = placeholder(str)  # where batches come from, in place of data.source: a row of EXPERIENCES in research/tables.py
    c.rl.updates = 16  # steps between two rounds of collecting experience
    c.rl.prompts = 32  # rollouts: prompts of a round
    c.rl.group = 8  # rollouts: completions of each
    c.rl.prompt_length = 16  # rollouts: tokens of a prompt, at most
    c.rl.prompt_words = placeholder(int)  # rollouts: words of data.text_field that are the prompt; absent: all
    c.rl.max_tokens = 16  # rollouts: tokens of a completion, at most; with prompt_length they make data.length
    c.rl.eval_prompts = 256  # rollouts: prompts of an evaluation
    c.rl.reward = "exact_answer"  # rollouts: a row of REWARDS in research/tables.py (exact_answer, words, judge), or "package.module:function" of the config and a judge
    c.rl.words = 12  # rollouts: that reward=words asks for, prompt and completion together
    c.rl.judge = placeholder(str)  # rollouts: the run of a classifier or a reward model that reward=judge asks
    c.rl.environment = "tic_tac_toe"  # self_play: a game of pgx; control: an environment of gymnax, such as CartPole-v1
    c.rl.games = 64  # self_play, control: side by side
    c.rl.moves = 16  # self_play, control: that are made in each game in a round
    c.rl.kept = 256  # self_play: of the moves of each of these the last that are stored; a game is learned from for so many moves after its end, less the moves of the longest
    c.rl.search = "gumbel"  # self_play: gumbel (good with few simulations), puct (MuZero's)
    c.rl.simulations = 32  # self_play: of a search
    c.rl.opponents = ("random",)  # self_play: whom an evaluation plays against: random, mcts:N (N simulations), perfect, any
    c.rl.eval_games = 200  # self_play: with each of them, half of them begun; control: in an evaluation
    c.rl.opening = 2  # self_play: moves at random with which a game begins: none to so many in training, so many between two checkpoints
    c.rl.reward_scale = 1.0  # control: what rewards are multiplied by, so that returns are of the size of one

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
    c.optimizer.moment_dtype = placeholder(str)  # of the first moment (adamw, lion, sgd, muon): float32 or bfloat16; absent: as the parameters
    c.optimizer.stochastic_rounding = False  # of moments, then the second too, that moment_dtype makes bfloat16: rounded at random, right in the mean
    c.optimizer.weight_decay = 0.01  # decoupled: times the learning rate and the parameter
    c.optimizer.no_decay = r"(bias|scale)$"  # parameters whose path matches are not decayed
    c.optimizer.frozen = placeholder(str)  # parameters whose path matches are not trained
    c.optimizer.layer_decay = placeholder(float)  # learning rate of a layer, over that of the layer above it
    c.optimizer.below_layers = r"^((base|lora|first|second)/)*(word|position|token_type|norm|patch|class_token)\b"  # what is under the first layer
    c.optimizer.clip_norm = placeholder(float)  # of the global gradient; absent: no clipping
    c.optimizer.accumulate = 1  # microbatches in a step
    c.optimizer.ema_decay = placeholder(float)  # of the moving average of the parameters, which evaluation then uses

    c.mesh = ConfigDict()
    c.mesh.pipeline = 1  # stages of layers one after another; outside the layers, the batch split; the least is sent between them
    c.mesh.data = 1  # devices along which only the batch is split; one of these five may be -1: what is left
    c.mesh.fsdp = -1  # batch, parameters and optimizer state split
    c.mesh.context = 1  # sequence split
    c.mesh.tensor = 1  # heads, MLP and vocabulary split
    c.mesh.rules = "fsdp_tp"  # what is split where: dp, fsdp, tp, fsdp_tp (research/core/sharding.py)
    c.mesh.extra_rules = ()  # (("logical axis", "mesh axis" or None), ...) that go before those

    c.init = ConfigDict()
    c.init["from"] = placeholder(str)  # a run, a Hugging Face directory or a name of research/interop/published.py
    c.init.allow_new = placeholder(str)  # parameters whose path matches may be missing there, or differ in shape

    c.lora = ConfigDict()
    c.lora.rank = placeholder(int)  # of the low-rank updates (arXiv 2106.09685), which alone are trained; absent: none
    c.lora.alpha = 16.0  # updates are scaled by alpha / rank
    c.lora.pattern = r"attention/(query|value)/kernel$"  # the parameters that have one
    c.lora.trained = placeholder(str)  # parameters trained whole beside them: "^head/" for a new head

    c.probe = ConfigDict()
    c.probe.evaluators = ()  # what else an evaluation measures, of frozen embeddings: rows of EVALUATORS (knn, linear)
    c.probe.name = placeholder(str)  # a labelled data set; absent: data.name
    c.probe.dir = placeholder(str)  # as data.dir; likewise the next three
    c.probe.text_field = placeholder(str)  # absent: data.text_field
    c.probe.image_field = placeholder(str)  # absent: data.image_field
    c.probe.label_field = placeholder(str)  # absent: data.label_field
    c.probe.source = "labelled_images"  # a row of SOURCES whose examples have a label
    c.probe.train_split = "train"  # whose labels may be seen
    c.probe.validation_split = "validation"  # whose labels are to be found
    c.probe.limit = 10_000  # examples of a split, at most
    c.probe.neighbors = 20  # that vote in knn

    c.run = ConfigDict()
    c.run.steps = 1_000_000  # updates in all
    c.run.log_every = 100  # steps; every one is checked, these are written
    c.run.eval_every = 10_000  # steps; the last is always evaluated
    c.run.eval_first = False  # evaluate before the first step too
    c.run.eval_batches = placeholder(int)  # at most; absent: the whole split
    c.run.save_every = 10_000  # steps; the last is always saved
    c.run.keep = 3  # latest checkpoints, besides the best
    c.run.best_metric = "validation/loss"  # by which one more checkpoint is kept, of those saved right after an evaluation
    c.run.best_mode = "min"  # or max
    c.run.trackers = ()  # which else keep the figures: wandb, mlflow
    return c

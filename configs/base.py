"""Schema of an experiment: every config key with its default and meaning.

A config file starts from here and holds only differences. The result is locked, so
that a misspelt key is refused.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

STACK = {
    "layers": 6,  # number of layers, of each of encoder and decoder
    "width": 512,  # D, model width
    "heads": 8,  # H, attention heads; must divide width unless head_dim is set
    "head_dim": 0,  # K, width of a head; 0: width / heads
    "feed_forward": 2048,  # F, feed-forward width
    "activation": "relu",  # "relu", "gelu", or a gated "reglu", "geglu", "swiglu"
    "norm": "post",  # layer normalisation: "post" (as published) or "pre"
    "final_norm": True,  # with norm="pre": one more normalisation after the last layer
    "norm_epsilon": 1e-5,  # added to the variance in layer normalisation; BERT: 1e-12
    # size of a learned position table; later positions share the last row
    "max_positions": 1024,
    "max_distance": 16,  # clipping distance of position_encoding="shaw"
    "clamp_length": 0,  # position_encoding="relative": largest distance; 0: unlimited
    "untie_biases": False,  # position_encoding="relative": biases u and v per layer
    "share_qkv": False,  # one projection matrix for queries, keys and values
    "tie_embeddings": True,  # share the output weights with the embeddings
    # multiply embeddings by sqrt(D), as published; False: small initial values (GPT-2)
    "scale_embeddings": True,
    "embedding_width": 0,  # E, width of a token embedding; 0: width
    # first token id of each rarer cluster: adaptive embedding and softmax
    "cutoffs": (),
    "div_val": 1,  # each rarer cluster has embeddings narrower by this factor
    "tie_projections": True,  # adaptive: share the projections of embedding and softmax
    "dropout": 0.1,  # rate after embeddings and sublayers; 0 switches off all dropout
    "attention_dropout": 0.0,  # rate of attention weights
    "feed_forward_dropout": None,  # rate inside the feed-forward layer; None: dropout
    "attention_impl": "xla",  # "xla", "blockwise", "pallas" (TPU) or "cudnn" (GPU)
    # "float32" or "bfloat16", of computations; parameters stay float32
    "dtype": "float32",
    "remat": False,  # recompute each layer in the backward pass: less memory
    "scan_layers": False,  # run the layers as one loop: deep models compile faster
}

MODELS = {
    "rnn": {
        "cell": "gru",  # "gru", "gru_reset_before" (reset gate as published) or "lstm"
        "layers": 1,  # number of layers of each of encoder and decoder
        "width": 256,  # width of a recurrent state, per direction
        "embedding_width": 256,  # width of a token embedding and of the "tanh" readout
        # attention score: "additive", "dot", "scaled_dot" or "bilinear"
        "score": "additive",
        "attention_width": 256,  # additive score: width of its hidden layer
        "attention_window": 10,  # language model: attends to this many past outputs
        # output layer: "tanh", "maxout" (as published) or "none" (no attention)
        "readout": "tanh",
        "maxout_width": 256,  # width of the "maxout" readout
        # translation: the previous readout is an input of the decoder
        "input_feeding": False,
        # translation: attention between two cells per token (Nematus)
        "conditional_gru": False,
        # "default", "published" (Bahdanau et al. 2015), "uniform" (Zaremba et al. 2014)
        "initialization": "default",
        "init_scale": 0.1,  # initialization="uniform": weights are between +- this
        "tie_embeddings": True,  # share the output weights with the embeddings
        # rate wherever no key below sets one; 0 switches off all dropout
        "dropout": 0.1,
        "dropout_input": 0.1,  # language model: rate of token embeddings
        "dropout_hidden": 0.1,  # language model: rate between layers
        # language model, encoder: rate of whole words of the embedding table
        "dropout_embedding": 0.0,
        # language model, encoder, translation's source: rate of recurrent weights
        "weight_dropout": 0.0,
        # language model: one dropout mask for all time steps
        "variational_dropout": False,
        "activation_regularization": 0.0,  # language model: coefficient alpha of AR
        # language model: coefficient beta of TAR
        "temporal_activation_regularization": 0.0,
        # "float32" or "bfloat16", of computations; parameters stay float32
        "dtype": "float32",
        "remat": False,  # recompute attention in the backward pass: less memory
    },
    "transformer": {
        **STACK,
        "position_encoding": "sinusoidal",  # a name in models/attention/positions.py
        "attention_dropout": 0.1,  # rate of attention weights
    },
    "transformer_xl": {
        **STACK,
        "position_encoding": "relative",  # others: models/attention/positions.py
        "attention_dropout": 0.0,  # rate of attention weights
        "memory_length": 128,  # M, cached positions per layer in training
        "same_length": False,  # every query attends to exactly M keys
        # start from a memory of zeros that is attended to
        "attend_empty_memory": False,
    },
}


def model(name: str, **changes) -> ConfigDict:
    """Returns the keys of one architecture with changes applied."""
    if name not in MODELS:
        raise KeyError(f"no model {name!r}; there are {', '.join(MODELS)}")
    keys = {  # each config needs placeholders of its own: they are mutable
        key: placeholder(float) if value is None else value
        for key, value in MODELS[name].items()
    }
    cfg = ConfigDict({"name": name, **keys}).lock()
    cfg.update(changes)
    return cfg


def get_config(name: str = "transformer") -> ConfigDict:
    """Returns the default experiment for one of the MODELS."""
    cfg = ConfigDict()
    cfg.seed = 0  # seed of parameter initialisation and dropout
    cfg.task = "translation"  # a name in tasks/base.py
    cfg.steps = 10_000  # number of parameter updates
    cfg.epochs = 0.0  # passes over the training split, instead of steps; 0: use steps
    cfg.grad_accum_steps = 1  # microbatches per update: less memory, same gradient
    # training stops after this many consecutive non-finite steps
    cfg.max_nonfinite_steps = 10
    # a spike of the loss: "off", "keep" its batch in replay/, "skip" (go back to the
    # newest checkpoint, leave the batch out) or "stop" (end with exit code 4)
    cfg.on_spike = "off"
    # limit of the loss, in robust standard deviations above its median
    cfg.spike_threshold = 10.0
    # on_spike="skip": batches left out in a row after which a spike ends the run
    cfg.max_skips = 10
    # a stuck run: "off", "report" (print all stacks) or "stop" (end with exit code 76)
    cfg.on_stall = "report"
    cfg.stall_minutes = 10.0  # shortest time that is a stall
    cfg.deterministic = False  # accelerators: only operations that repeat to the bit
    # upload log and results to a tracker, "wandb", "trackio" or "mlflow"; "": to none
    cfg.track = ""
    # run directory whose parameters training starts from
    cfg.init_from = placeholder(str)
    # regular expression: parameters that init_from provides
    cfg.init_params_pattern = ".*"
    # probability mass spread over the vocabulary in the training loss
    cfg.label_smoothing = 0.0
    cfg.z_loss = 0.0  # coefficient of log^2 Z, which keeps logits small
    # language models: train on this last fraction of each segment
    cfg.loss_fraction = 1.0
    cfg.model = model(name)  # one of MODELS above
    _add_data(cfg)
    _add_optim(cfg)
    _add_run(cfg)
    _add_decode(cfg)
    _add_eval(cfg)
    _add_understanding(cfg)
    return cfg.lock()


def _add_data(cfg: ConfigDict) -> None:
    """Adds the keys of corpora, tokenizers and batches."""
    cfg.data = ConfigDict()
    # corpus of this project or TFDS; "a/en-de+b/en-de:3" mixes corpora
    cfg.data.name = placeholder(str)
    # directory of prepared and tokenised corpora
    cfg.data.dir = "~/tensorflow_datasets"
    # local copies, if data.dir is a bucket
    cfg.data.cache_dir = "~/.cache/attention-lab"
    # directory with the files of the corpus, instead of a download
    cfg.data.source_dir = placeholder(str)
    cfg.data.seed = 0  # seed of the order of examples
    # translation: translate from the second language to the first
    cfg.data.reverse = False
    # Moses normalisation and tokenisation, undone in output
    cfg.data.moses_tokenize = False
    # lower-case all text; wordpiece: without accents
    cfg.data.lowercase = False
    # translation: start each source with a tag such as <2de>
    cfg.data.target_tag = False
    # "sentencepiece" (BPE), "unigram", "wordpiece" (BERT), "word", "char" or "byte"
    cfg.data.tokenizer = "sentencepiece"
    # vocabulary file, instead of learning a vocabulary
    cfg.data.vocabulary = placeholder(str)
    # largest vocabulary; word, wordpiece and SentencePiece tokenizers only
    cfg.data.vocab_size = 8000
    cfg.data.min_count = 1  # word tokenizer: rarer words become <unk>
    cfg.data.joint_vocab = True  # translation: one vocabulary for source and target
    # in tokens: longer training pairs are dropped, longer labelled texts are cut
    cfg.data.max_length = 128
    cfg.data.min_length = 1  # training pairs with a shorter side are dropped; in tokens
    # training pairs with a larger length ratio are dropped; 0: none
    cfg.data.max_ratio = 0.0
    cfg.data.drop_identical = False  # drop training pairs whose sides are equal
    cfg.data.drop_duplicates = False  # drop repeated training pairs
    cfg.data.bpe_dropout = 0.0  # BPE-dropout rate of training pairs; 0: none
    cfg.data.bpe_dropout_copies = 4  # number of segmentations, used in turn by epochs
    # translation: batch size x longest side, over all devices
    cfg.data.tokens_per_batch = 4096
    cfg.data.buckets = 8  # number of batch shapes, hence of compilations
    # translation, masked language modeling: batch_size documents in parallel, in order
    cfg.data.document_order = False
    # text, documents: parallel streams; labelled texts: examples; over all devices
    cfg.data.batch_size = 32
    cfg.data.segment_length = 128  # text: tokens per stream and step
    # columns of a table of labelled texts; None: there is none
    cfg.data.text_column = placeholder(str)  # the text, or the words of tagged text
    cfg.data.pair_column = placeholder(str)  # second text of a pair
    cfg.data.label_column = placeholder(str)  # class, grade or intent of a text
    cfg.data.tag_column = placeholder(str)  # IOB2 tags of the words
    # columns of a table of text pairs; None: the languages of a parallel corpus
    cfg.data.source_column = placeholder(str)  # the text that is read
    cfg.data.target_column = placeholder(str)  # the text that is generated
    # columns of further references; a text that is empty there is none
    cfg.data.reference_columns = ()
    # labels that only evaluation has: "error", or "count" each as a wrong answer
    cfg.data.unseen_labels = "error"


def _add_optim(cfg: ConfigDict) -> None:
    """Adds the keys of optimiser and learning rate."""
    cfg.optim = ConfigDict()
    cfg.optim.name = "adamw"  # a name in training/optim/optimizers.py
    cfg.optim.lr = 1e-3  # peak learning rate; schedule "noam": a factor
    cfg.optim.schedule = "cosine"  # a name in training/optim/schedules.py
    cfg.optim.warmup = 0  # steps of linear warm-up
    # cosine, linear, wsd, plateau, step_decay: lowest rate as a fraction of lr
    cfg.optim.final_lr_ratio = 0.0
    # wsd: last fraction of steps, in which the rate falls
    cfg.optim.wsd_decay_fraction = 0.2
    cfg.optim.plateau_factor = 0.5  # plateau: factor of the rate at a plateau
    cfg.optim.plateau_patience = 5  # plateau: validations without improvement
    cfg.optim.step_decay_start = 1000  # step_decay: first step of the first lower rate
    cfg.optim.step_decay_interval = 1000  # step_decay: steps with the same lower rate
    cfg.optim.step_decay_factor = 0.5  # step_decay: factor of the rate each time
    # (("embedding", 0.1),): factors of lr by parameter name; first match
    cfg.optim.lr_scales = ()
    cfg.optim.freeze = ""  # regular expression: parameters that are not trained
    cfg.optim.b1 = 0.9  # Adam, Lion: decay of the first moment
    cfg.optim.b2 = 0.98  # Adam, Lion: decay of the second moment
    cfg.optim.eps = 1e-9  # Adam, Adadelta: added to the denominator
    cfg.optim.rho = 0.95  # Adadelta: decay of its averages
    cfg.optim.momentum = 0.0  # SGD: momentum
    # Muon, matrices: momentum; other parameters use Adam
    cfg.optim.muon_momentum = 0.95
    # adamw, adafactor, lion, muon, nt_asgd: decoupled weight decay
    cfg.optim.weight_decay = 0.0
    # Pattern of the names of parameters that weight_decay acts on.
    cfg.optim.weight_decay_params = (
        r"(^|/)(kernel|(cluster_)?table|projection|recurrent)(_\d+)?$"
    )
    cfg.optim.non_monotone_interval = 5  # nt_asgd: n, validations without improvement
    # exponential moving average of parameters, for evaluation; 0: none
    cfg.optim.ema_decay = 0.0
    cfg.optim.clip_norm = 1.0  # largest global norm of the gradient; 0: no clipping


def _add_run(cfg: ConfigDict) -> None:
    """Adds the keys of checkpoints, intervals and devices."""
    cfg.keep = ConfigDict()
    cfg.keep.last = 2  # newest checkpoints to keep
    cfg.keep.best = 1  # checkpoints with the best validation score to keep
    # that score; None: the task's (BLEU, or loss for text)
    cfg.keep.metric = placeholder(str)
    cfg.keep.patience = 0  # early stopping: validations without improvement; 0: never

    cfg.every = ConfigDict()
    cfg.every.log = 100  # steps between log lines
    cfg.every.eval = 1000  # steps between validations
    cfg.every.checkpoint = 1000  # steps between checkpoints
    # minutes after a checkpoint until the next one at the latest; 0: any number
    cfg.every.checkpoint_minutes = 0.0
    # steps between lines of split "watch": norms of parameters, gradients and updates
    # by layer; 0: none. May change when a run resumes
    cfg.every.watch = 0
    # steps between digests of batch, carry and state, which python -m analysis.diverge
    # compares; 0: none. May change when a run resumes
    cfg.every.fingerprint = 0

    cfg.parallel = ConfigDict()  # may change when a run resumes
    # "jit" over a mesh, or "pmap" (data parallel, one process)
    cfg.parallel.mode = "jit"
    cfg.parallel.data = -1  # mesh axis over examples; -1: all remaining devices
    cfg.parallel.fsdp = 1  # mesh axis over examples and parameters
    cfg.parallel.tensor = 1  # mesh axis over heads, feed-forward units and vocabulary


def _add_decode(cfg: ConfigDict) -> None:
    """Adds the keys of decoding."""
    cfg.decode = ConfigDict()  # may change after training
    cfg.decode.max_length = 128  # most tokens of a hypothesis
    # translation: at most this times the source length + 10
    cfg.decode.max_length_ratio = 2.0
    cfg.decode.min_length = 0  # fewest tokens before the end symbol
    # translation: longer sources are cut; None: data.max_length
    cfg.decode.max_source_length = placeholder(int)
    cfg.decode.method = "greedy"  # "greedy", "beam", "sample" or "mbr"
    cfg.decode.n_best = 1  # hypotheses per line: best of the beam, or samples
    # no n-gram of this many tokens occurs twice in a hypothesis; 0: any may
    cfg.decode.no_repeat_ngram_size = 0
    # above 1: tokens that occurred are less likely (Keskar et al. 2019); 1: none
    cfg.decode.repetition_penalty = 1.0
    cfg.decode.beam_size = 4  # beam: N, beams per sentence
    cfg.decode.length_penalty = 0.6  # beam: alpha of Wu et al. (2016); 0: none
    # beam, translation: beta of Wu et al. (2016); 0: none
    cfg.decode.coverage_penalty = 0.0
    # beam: stop at beam_size finished; else when none can win
    cfg.decode.early_stopping = False
    # beam: groups that differ from each other (Vijayakumar et al. 2018); 1: plain beam
    cfg.decode.beam_groups = 1
    # beam_groups: lambda, what a token chosen by a hypothesis of a group before costs
    cfg.decode.diversity_penalty = 0.5
    # mbr: samples, among which the one of least Bayes risk is chosen
    cfg.decode.mbr_samples = 32
    cfg.decode.mbr_utility = "chrf"  # mbr: "chrf" or "bleu" of one sample to another
    cfg.decode.temperature = 1.0  # sample, mbr: temperature; 0: greedy
    cfg.decode.top_k = 0  # sample, mbr: from the k most probable tokens; 0: all
    # sample, mbr: from the most probable tokens of this total mass; 1: all
    cfg.decode.top_p = 1.0
    cfg.decode.seed = 0  # sample, mbr: seed
    # translation: replace <unk> by the most attended source word
    cfg.decode.replace_unknown = False


def _add_eval(cfg: ConfigDict) -> None:
    """Adds the keys of evaluation."""
    cfg.eval = ConfigDict()  # may change after training
    # text pairs: names in tasks/text_metrics/registry.py; the first one selects
    # checkpoints; (): the task's
    cfg.eval.metrics = ()
    cfg.eval.batch_size = 8  # text, documents: parallel streams
    # text: tokens per segment; None: data.segment_length
    cfg.eval.segment_length = placeholder(int)
    # text: sliding-window evaluation with windows of this many tokens
    cfg.eval.window = placeholder(int)
    # text: tokens between windows; None: eval.window
    cfg.eval.stride = placeholder(int)
    cfg.eval.attention_window = placeholder(int)  # None: model.attention_window
    cfg.eval.memory_length = placeholder(int)  # None: model.memory_length
    cfg.eval.same_length = placeholder(bool)  # None: model.same_length
    cfg.eval.clamp_length = placeholder(int)  # None: model.clamp_length


def _add_understanding(cfg: ConfigDict) -> None:
    """Adds the keys of language understanding: labels, tags and masked tokens."""
    cfg.head = ConfigDict()
    # vector of a text: "cls" (its first token), "mean", "max" or "attention"
    cfg.head.pooling = "cls"
    # pool each text of a pair, and compare the vectors (Conneau et al. 2017)
    cfg.head.compare_pair = False
    cfg.head.crf = False  # tagging: conditional random field over the tags
    # loss of a class: "none" (all the same) or "balanced" (by inverse frequency)
    cfg.head.class_weights = "none"
    cfg.head.regression = False  # labels are grades, predicted by least squares
    # rate before the output layer; None: model.dropout
    cfg.head.dropout = placeholder(float)

    cfg.mlm = ConfigDict()  # masked language modeling (Devlin et al. 2019, section 3.1)
    cfg.mlm.probability = 0.15  # fraction of tokens that are predicted
    cfg.mlm.whole_word = False  # choose all tokens of a word together
    # pairs of texts, half of which are not consecutive, and their classification
    cfg.mlm.next_sentence = False
    # fraction of training segments of a random length, 2 tokens to all; BERT: 0.1
    cfg.mlm.short_fraction = 0.0

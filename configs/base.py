"""Every key an experiment has, its default and what it means.

A config file starts from here and holds only differences. The result is locked:
a key that is not listed here cannot be set by mistake.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

STACK = {
    "layers": 6,  # of the encoder and of the decoder, or of the language model
    "width": 512,  # D
    "heads": 8,  # must divide width, unless head_dim says otherwise
    "head_dim": 0,  # Dh; 0: width / heads
    "feed_forward": 2048,  # F
    "activation": "relu",  # or "gelu"; gated "reglu", "geglu", "swiglu"
    "norm": "post",  # "post" as published, or "pre": trains without much care
    "final_norm": True,  # with norm="pre": once more after the last layer
    "max_positions": 1024,  # places of learned positions; later ones share the last
    "max_distance": 16,  # at which position_encoding="shaw" clips
    "clamp_length": 0,  # position_encoding="relative": farther is as far; 0: never
    "untie_biases": False,  # position_encoding="relative": u and v of each layer
    "share_qkv": False,  # one matrix for queries, keys and values
    "tie_embeddings": True,  # output weights = embeddings
    "embedding_width": 0,  # E of a token; 0: width
    "cutoffs": (),  # first tokens of rarer clusters: adaptive embedding and softmax
    "div_val": 1,  # each cluster's vectors are so many times narrower
    "tie_projections": True,  # from vectors to width and back, of rarer clusters
    "dropout": 0.1,  # of embeddings and sublayers; 0 switches off all dropout
    "attention_dropout": 0.0,  # of attention weights
    "feed_forward_dropout": None,  # a rate after its inner layer; None: dropout
    "attention_impl": "xla",  # or "blockwise", "pallas" (TPU), "cudnn" (GPU)
    "dtype": "float32",  # or "bfloat16": of what is computed; parameters are float32
    "remat": False,  # the backward pass computes each layer again: less memory
    "scan_layers": False,  # layers as a loop: programs of many compile faster
}

MODELS = {
    "rnn": {
        "cell": "gru",  # or "gru_reset_before" (reset gate as published), "lstm"
        "layers": 1,  # of the encoder and of the decoder, or of the language model
        "width": 256,  # of a recurrent state, a direction
        "embedding_width": 256,  # of a token, and of what a "tanh" readout gives
        "score": "additive",  # of the attention; "dot", "scaled_dot", "bilinear"
        "attention_width": 256,  # additive: the layer in which a query meets a key
        "attention_window": 10,  # language models: own last outputs to attend to
        "readout": "tanh",  # or "maxout" (as published), "none" (without attention)
        "maxout_width": 256,  # of what a "maxout" readout gives
        "input_feeding": False,  # translation: what predicted a word enters with it
        "conditional_gru": False,  # translation: it attends between two cells a word
        "initialization": "default",  # or "published", of Bahdanau et al.
        "tie_embeddings": True,  # output weights = embeddings
        "dropout": 0.1,  # wherever no key below says else; 0 switches off all dropout
        "dropout_input": 0.1,  # language models: of a token's vector
        "dropout_hidden": 0.1,  # language models: between layers
        "dropout_embedding": 0.0,  # language models: of whole words of the table
        "weight_dropout": 0.0,  # language models: of recurrent weights
        "variational_dropout": False,  # language models: one mask for all steps
        "activation_regularization": 0.0,  # language models: AR, alpha
        "temporal_activation_regularization": 0.0,  # language models: TAR, beta
        "dtype": "float32",  # or "bfloat16": of what is computed, not of parameters
        "remat": False,  # the backward pass computes attention again: less memory
    },
    "transformer": {
        **STACK,
        "position_encoding": "sinusoidal",  # others: models/attention/positions.py
        "attention_dropout": 0.1,
    },
    "transformer_xl": {
        **STACK,
        "position_encoding": "relative",  # others: models/attention/positions.py
        "attention_dropout": 0.0,
        "memory_length": 128,  # M: remembered tokens a layer, in training
        "same_length": False,  # each query sees M keys, not those of its segment more
        "attend_empty_memory": False,  # a memory starts as zeros that are seen
    },
}


def model(name: str, **changes) -> ConfigDict:
    """The keys of one architecture, some of them changed."""
    if name not in MODELS:
        raise KeyError(f"no model {name!r}; there are {', '.join(MODELS)}")
    keys = {  # a placeholder is its config's own: what is set in one shows in all
        key: placeholder(float) if value is None else value
        for key, value in MODELS[name].items()
    }
    cfg = ConfigDict({"name": name, **keys}).lock()
    cfg.update(changes)
    return cfg


def get_config(name: str = "transformer") -> ConfigDict:
    """The defaults, with one of the MODELS."""
    cfg = ConfigDict()
    cfg.seed = 0  # of parameters and dropout
    cfg.task = "translation"  # a module of tasks/
    cfg.steps = 10_000  # updates of the parameters
    cfg.epochs = 0.0  # of the training split, instead of steps; 0: steps
    cfg.grad_accum_steps = 1  # parts of a batch, one after another: less memory
    cfg.max_nonfinite_steps = 10  # in a row without a finite loss: training stops
    cfg.deterministic = False  # accelerators: only operations that repeat to the bit
    cfg.init_from = placeholder(str)  # run directory that the first parameters are of
    cfg.init_params_pattern = ".*"  # regular expression of their names; rest is fresh
    cfg.label_smoothing = 0.0  # mass that all V tokens share in the training loss
    cfg.z_loss = 0.0  # times log^2 of the softmax's normaliser: keeps logits small
    cfg.loss_fraction = 1.0  # of a segment, its last part: what text models train on
    cfg.model = model(name)  # one of MODELS above

    cfg.data = ConfigDict()
    cfg.data.name = placeholder(str)  # of ours or TFDS's; "a/en-de+b/en-de:3" mixes
    cfg.data.dir = "~/tensorflow_datasets"  # prepared and encoded corpora
    cfg.data.cache_dir = "~/.cache/attention-lab"  # copies, if data.dir is a gs://
    cfg.data.source_dir = placeholder(str)  # the corpus's files, instead of a download
    cfg.data.seed = 0  # of the order of sentences
    cfg.data.reverse = False  # translation: from the second language to the first
    cfg.data.moses_tokenize = False  # and normalise as Moses does; undone in output
    cfg.data.lowercase = False
    cfg.data.target_tag = False  # translation: a source begins with <2de>, or the like
    cfg.data.tokenizer = "sentencepiece"  # BPE; or "unigram", "word", "char", "byte"
    cfg.data.vocabulary = placeholder(str)  # a file with it, instead of learning one
    cfg.data.vocab_size = 8000  # at most; words and sentencepiece only
    cfg.data.min_count = 1  # rarer words are <unk>; words only
    cfg.data.joint_vocab = True  # one vocabulary for source and target
    cfg.data.max_length = 128  # tokens; longer pairs are left out of training
    cfg.data.min_length = 1  # tokens; pairs with a shorter side are left out
    cfg.data.max_ratio = 0.0  # of a pair's lengths; others are left out; 0: any
    cfg.data.drop_identical = False  # pairs whose sides are the same
    cfg.data.drop_duplicates = False  # pairs that were there before
    cfg.data.bpe_dropout = 0.0  # share of merges left out, in training pairs; 0: none
    cfg.data.bpe_dropout_copies = 4  # segmentations that epochs take in turn
    cfg.data.tokens_per_batch = 4096  # translation: rows x longest side, all devices
    cfg.data.buckets = 8  # translation: shapes of batches, so many compilations
    cfg.data.document_order = False  # translation: batch_size documents at once
    cfg.data.batch_size = 32  # text, documents: parallel streams, all devices
    cfg.data.segment_length = 128  # text: tokens a stream moves on by a step

    cfg.optim = ConfigDict()
    cfg.optim.name = "adamw"  # or another of RULES in training/optim/optimizers.py
    cfg.optim.lr = 1e-3  # the highest; "noam": a factor
    cfg.optim.schedule = "cosine"  # or another of training/optim/schedules.py
    cfg.optim.warmup = 0  # steps of linear rise from 0
    # Cosine, linear, wsd, plateau: the lowest rate as a share of lr.
    cfg.optim.final_lr_ratio = 0.0
    cfg.optim.wsd_decay_fraction = (
        0.2  # wsd: share of steps at the end in which it falls
    )
    cfg.optim.plateau_factor = 0.5  # plateau: what the rate is then multiplied by
    cfg.optim.plateau_patience = 5  # plateau: validations it waits for a better one
    cfg.optim.lr_scales = ()  # (("embedding", 0.1),): factors of lr by name, first wins
    cfg.optim.freeze = ""  # pattern of names of parameters that never change
    cfg.optim.b1 = 0.9
    cfg.optim.b2 = 0.98
    cfg.optim.eps = 1e-9
    cfg.optim.rho = 0.95  # adadelta: share of the past in its averages
    cfg.optim.momentum = 0.0  # sgd
    cfg.optim.muon_momentum = 0.95  # muon, of matrices; b1, b2, eps of all others
    cfg.optim.weight_decay = 0.0  # adamw, adafactor, lion, muon; nt_asgd: of all
    # Pattern of the names of parameters that weight_decay acts on.
    cfg.optim.weight_decay_params = (
        r"(^|/)(kernel|(cluster_)?table|projection|recurrent)(_\d+)?$"
    )
    cfg.optim.non_monotone_interval = 5  # nt_asgd: validations it waits for a better
    cfg.optim.ema_decay = 0.0  # of a mean of parameters, evaluated instead; 0: none
    cfg.optim.clip_norm = 1.0  # global norm of the gradient; 0: never

    cfg.keep = ConfigDict()  # checkpoints
    cfg.keep.last = 2  # the newest
    cfg.keep.best = 1  # those with the best validation score
    cfg.keep.metric = placeholder(str)  # that score; None: BLEU, or loss of text
    cfg.keep.patience = 0  # validations without a better one: training ends; 0: never

    cfg.every = ConfigDict()  # all in steps
    cfg.every.log = 100
    cfg.every.eval = 1000
    cfg.every.checkpoint = 1000

    cfg.parallel = ConfigDict()  # may change when a run goes on
    cfg.parallel.mode = "jit"  # over a mesh; or "pmap": data parallel, one process
    # The mesh; -1: all devices that are left.
    cfg.parallel.data = -1  # axis over rows
    cfg.parallel.fsdp = 1  # axis over rows and parameters
    cfg.parallel.tensor = 1  # axis over heads, feed-forward and vocabulary

    cfg.decode = ConfigDict()  # how hypotheses are made; may change after training
    cfg.decode.max_length = 128  # tokens
    cfg.decode.max_length_ratio = 2.0  # translation: at most this x source + 10 tokens
    cfg.decode.min_length = 0  # tokens before the end, at least
    cfg.decode.method = "greedy"  # or "beam", "sample"
    cfg.decode.n_best = 1  # hypotheses a line: a beam's best, or so many samples
    cfg.decode.beam_size = 4  # beam: hypotheses that go on
    cfg.decode.length_penalty = 0.6  # beam: alpha of Wu et al. (2016); 0: none
    cfg.decode.coverage_penalty = 0.0  # beam, translation: their beta; 0: none
    cfg.decode.early_stopping = False  # beam: once as many have ended; else when sure
    cfg.decode.temperature = 1.0  # sample: 0 is greedy
    cfg.decode.top_k = 0  # sample: from so many of the likeliest; 0: all
    cfg.decode.top_p = 1.0  # sample: from the likeliest with so much mass; 1: all
    cfg.decode.seed = 0  # sample
    cfg.decode.replace_unknown = False  # translation: <unk> by what it looks at most

    cfg.eval = ConfigDict()  # how scores are made; may change after training
    cfg.eval.batch_size = 8  # text, documents: parallel streams
    cfg.eval.segment_length = placeholder(int)  # text; None: data.segment_length
    cfg.eval.window = placeholder(int)  # text: tokens read at once, each time anew
    cfg.eval.stride = placeholder(int)  # tokens a window moves on by; None: all of it
    # Text, documents; None: as cfg.model has them.
    cfg.eval.attention_window = placeholder(int)
    cfg.eval.memory_length = placeholder(int)
    cfg.eval.same_length = placeholder(bool)
    cfg.eval.clamp_length = placeholder(int)
    return cfg.lock()

"""Make the golden files beside this script from independent PyTorch implementations.

    python3.11 -m venv goldens-venv
    goldens-venv/bin/pip install torch==2.13.0 \\
        --index-url https://download.pytorch.org/whl/cpu
    goldens-venv/bin/pip install transformers==4.35.2 numpy==1.26.4
    goldens-venv/bin/python tests/goldens/make.py

The committed files were made with exactly these, on Python 3.11.7. transformers must
be old enough to have TransfoXLLMHeadModel. Not run in CI: the tests read the files
only. The same versions write the same bytes again; `--out` writes elsewhere, to
compare.

An array's name is `parameters/<state dict name>`, `inputs/...`, `outputs/...`,
`gradients/<state dict name>`, `gradients/inputs/...` or `sizes/...`; README.md says
what each file holds. All parameters are N(0, 0.2), norm gains 1 + N(0, 0.2), so
nothing stands at a default. Everything runs in float64 and is rounded to float32 at
the end, so that all of a tolerance is left to our own rounding. Nothing has dropout.

What Hugging Face's Transformer-XL was found to do (columns, mask and memory are
asserted below):

Head columns. The head's softmax is over [shortlist ; one column a tail], the columns
being the rows of `crit.cluster_weight`. The authors' PyTorch criterion reads tail i
(from 1) in `head_logprob[:, -i]`: tail 1 in the LAST column, the last tail in the
first after the shortlist. HF's `forward`, and the authors' TensorFlow code, read
`cutoffs[0] + i - 1`: tail 1 in the first, the last tail in the LAST. Both are
distributions; with two tails or more the same weights mean different ones, and
reversing the rows of cluster_weight and cluster_bias leads from one to the other.
HF's `log_prob` means the authors' PyTorch columns but cannot run:
`out[:, start, stop]` is an IndexError and `head_logprob[:, -i]` lacks an axis. So
`log_probabilities` below is that formula mended, and it is what losses and gradients
use; `log_probabilities_tf` is what HF's `forward` says of the same weights (third
segment only).

Mask. With i a query's place in the segment and j a key's (memory is j < 0), a key is
seen iff 0 <= i - j, and with `same_length` iff 0 <= i - j < mem_len: mem_len keys,
itself among them. That holds whether memory is full or not. `clamp_len` c > 0: the
encoding of distance i - j is R[min(i - j, c)], so c itself is not clamped.

Memory of a layer: the last mem_len of [its old memory ; this segment's INPUT of that
layer], the scaled embedding for layer 0; the last layer's output is not kept. With
pre_lnorm it is the un-normalised residual stream, and LN(memory) is taken anew.
An empty start grows: T, then min(2T, mem_len), ...; the default start is
mem_len zero vectors, attended to like any other.
"""

import argparse
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    TransfoXLConfig,
    TransfoXLLMHeadModel,
)

SCALE = 0.2  # of parameters and loss weights
GRID = 256  # drawn numbers are multiples of 1/256: exact in float32, and they compress


class Draw:
    """Random numbers of one file."""

    def __init__(self, seed):
        self.generator = np.random.Generator(np.random.PCG64(seed))

    def normal(self, *shape, scale=1.0):
        values = scale * self.generator.standard_normal(shape)
        return torch.tensor(np.round(values * GRID) / GRID)

    def parameters(self, module):
        """`module` with every parameter redrawn: N(0, 0.2), gains around 1."""
        module.double()  # Hugging Face asks for FloatTensors by name
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                is_gain = "norm" in name.lower() and name.endswith("weight")
                drawn = self.normal(*parameter.shape, scale=SCALE)
                parameter.copy_(drawn + is_gain)
        return module


def padding(lengths, longest):
    """True where a row of `lengths` is padded: [B, longest]."""
    return torch.arange(longest) >= torch.tensor(lengths)[:, None]


def later_keys(length):
    """True where a key stands after the query, and so is blocked: [T, T]."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def gradients(loss, tensors):
    """d loss / d tensor of each; a tensor that plays no part is an error."""
    found = torch.autograd.grad(loss, list(tensors.values()))
    for name, gradient in zip(tensors, found, strict=True):
        if not gradient.any():
            raise ValueError(f"the gradient of {name} is zero everywhere")
    return dict(zip(tensors, found, strict=True))


def with_inputs(module, inputs):
    """Tensors to differentiate by: all parameters, and `inputs/<name>` of `inputs`."""
    named = {f"inputs/{name}": x.requires_grad_() for name, x in inputs.items()}
    return {**dict(module.named_parameters()), **named}


def state(module):
    """Every state dict name that is a parameter, tied ones under each name."""
    names = dict(module.named_parameters(remove_duplicate=False))
    return {key: x for key, x in module.state_dict().items() if key in names}


def to_array(value):
    """float32, int32 or bool."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    array = np.asarray(value)
    kinds = {"f": np.float32, "i": np.int32, "b": np.bool_}
    return array.astype(kinds[array.dtype.kind])


def save(path, **groups):
    """Write `<group>/<name>` arrays; `groups` are dictionaries by name."""
    arrays = {
        f"{group}/{name}": to_array(value)
        for group, values in groups.items()
        for name, value in values.items()
    }
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path.name}: {name} is not finite")
    np.savez_compressed(path, **arrays)


def make_multihead_attention(path):
    """Self-attention (padded; padded and causal) and cross-attention (padded).

    loss = sum(outputs/self_causal * inputs/weights_self at unpadded queries)
         + sum(outputs/cross * inputs/weights_cross at unpadded queries)
    """
    draw = Draw(1)
    B, T, S, D, H = 2, 5, 7, 24, 3
    target_padding, source_padding = padding([5, 3], T), padding([4, 7], S)
    module = nn.ModuleDict(
        {
            "self": nn.MultiheadAttention(D, H, batch_first=True),
            "cross": nn.MultiheadAttention(D, H, batch_first=True),
        }
    )
    draw.parameters(module)
    x, source = draw.normal(B, T, D), draw.normal(B, S, D)
    weights_self, weights_cross = (draw.normal(B, T, D, scale=SCALE) for _ in range(2))
    tensors = with_inputs(module, {"x": x, "source": source})
    own = {"key_padding_mask": target_padding}
    calls = {
        "self": (module["self"], (x, x, x), own),
        "self_causal": (module["self"], (x, x, x), own | {"attn_mask": later_keys(T)}),
        "cross": (
            module["cross"],
            (x, source, source),
            {"key_padding_mask": source_padding},
        ),
    }
    outputs = {}
    for name, (attention, vectors, masks) in calls.items():
        outputs[name], outputs[f"{name}_weights"] = attention(
            *vectors, **masks, average_attn_weights=False
        )
        _, outputs[f"{name}_weights_averaged"] = attention(*vectors, **masks)
    seen = ~target_padding[..., None]
    loss = (outputs["self_causal"] * weights_self * seen).sum()
    loss = loss + (outputs["cross"] * weights_cross * seen).sum()
    save(
        path,
        parameters=state(module),
        inputs={
            "x": x,
            "source": source,
            "target_padding": target_padding,
            "source_padding": source_padding,
            "weights_self": weights_self,
            "weights_cross": weights_cross,
        },
        outputs=outputs | {"loss": loss},
        gradients=gradients(loss, tensors),
        sizes={"batch": B, "target": T, "source": S, "width": D, "heads": H},
    )


def make_transformer(path, *, is_pre, activation, seed):
    """nn.Transformer: memory is the encoder's output, output the decoder's.

    Both end with a LayerNorm, also in post-norm. The gelu is the exact one (erf).

    loss = sum(outputs/output * inputs/weights at unpadded target places)
    """
    draw = Draw(seed)
    B, T, S, D, H, F, N = 3, 5, 7, 24, 4, 40, 2
    source_padding = padding([7, 4, 6], S)
    target_padding = padding([3, 5, 2], T)
    module = nn.Transformer(
        D, H, N, N, F, 0.0, activation, batch_first=True, norm_first=is_pre
    )
    # Left in training mode: the fast path of evaluation zeroes the padding.
    draw.parameters(module)
    source, target = draw.normal(B, S, D), draw.normal(B, T, D)
    weights = draw.normal(B, T, D, scale=SCALE)
    tensors = with_inputs(module, {"source": source, "target": target})
    memory = module.encoder(source, src_key_padding_mask=source_padding)
    output = module.decoder(
        target,
        memory,
        tgt_mask=later_keys(T),
        tgt_key_padding_mask=target_padding,
        memory_key_padding_mask=source_padding,
    )
    loss = (output * weights * ~target_padding[..., None]).sum()
    save(
        path,
        parameters=state(module),
        inputs={
            "source": source,
            "target": target,
            "source_padding": source_padding,
            "target_padding": target_padding,
            "weights": weights,
        },
        outputs={"memory": memory, "output": output, "loss": loss},
        gradients=gradients(loss, tensors),
        sizes={
            "batch": B,
            "target": T,
            "source": S,
            "width": D,
            "heads": H,
            "feed_forward": F,
            "layers": N,
            "is_pre_norm": is_pre,
            "is_exact_gelu": activation == "gelu",
        },
    )


def make_transformer_post(path):
    """Post-norm with relu, as in the paper but for the final norms."""
    make_transformer(path, is_pre=False, activation="relu", seed=2)


def make_transformer_pre(path):
    """Pre-norm with exact gelu."""
    make_transformer(path, is_pre=True, activation="gelu", seed=3)


def run_packed(module, x, lengths, initial):
    """Outputs, zero in the padding, and the last states, at each row's last token."""
    packed = nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    output, last = module(packed, initial)
    output, _ = nn.utils.rnn.pad_packed_sequence(
        output, batch_first=True, total_length=x.shape[1]
    )
    return output, last


def make_gru(path):
    """Two layers in both directions.

    loss = sum(outputs/output * inputs/weights)
         + sum(outputs/last * inputs/weights_last)
    """
    draw = Draw(4)
    B, T, D, K, N = 3, 6, 7, 10, 2
    lengths = [4, 6, 2]
    module = draw.parameters(
        nn.GRU(D, K, num_layers=N, batch_first=True, bidirectional=True)
    )
    x, initial = draw.normal(B, T, D), draw.normal(2 * N, B, K)
    weights = draw.normal(B, T, 2 * K, scale=SCALE)
    weights_last = draw.normal(2 * N, B, K, scale=SCALE)
    tensors = with_inputs(module, {"x": x, "initial": initial})
    output, last = run_packed(module, x, lengths, initial)
    loss = (output * weights).sum() + (last * weights_last).sum()
    save(
        path,
        parameters=state(module),
        inputs={
            "x": x,
            "initial": initial,
            "lengths": lengths,
            "weights": weights,
            "weights_last": weights_last,
        },
        outputs={"output": output, "last": last, "loss": loss},
        gradients=gradients(loss, tensors),
        sizes={"batch": B, "length": T, "input": D, "width": K, "layers": N},
    )


def make_lstm(path):
    """Two layers in one direction.

    loss = sum(outputs/output * inputs/weights)
         + sum(outputs/last_hidden * inputs/weights_hidden)
         + sum(outputs/last_cell * inputs/weights_cell)
    """
    draw = Draw(5)
    B, T, D, K, N = 4, 7, 9, 11, 2
    lengths = [5, 7, 1, 6]
    module = draw.parameters(nn.LSTM(D, K, num_layers=N, batch_first=True))
    x = draw.normal(B, T, D)
    initial_hidden, initial_cell = draw.normal(N, B, K), draw.normal(N, B, K)
    weights = draw.normal(B, T, K, scale=SCALE)
    weights_hidden, weights_cell = (draw.normal(N, B, K, scale=SCALE) for _ in range(2))
    initial = {"initial_hidden": initial_hidden, "initial_cell": initial_cell}
    tensors = with_inputs(module, {"x": x} | initial)
    output, (last_hidden, last_cell) = run_packed(
        module, x, lengths, (initial_hidden, initial_cell)
    )
    loss = (output * weights).sum() + (last_hidden * weights_hidden).sum()
    loss = loss + (last_cell * weights_cell).sum()
    save(
        path,
        parameters=state(module),
        inputs={
            "x": x,
            **initial,
            "lengths": lengths,
            "weights": weights,
            "weights_hidden": weights_hidden,
            "weights_cell": weights_cell,
        },
        outputs={
            "output": output,
            "last_hidden": last_hidden,
            "last_cell": last_cell,
            "loss": loss,
        },
        gradients=gradients(loss, tensors),
        sizes={"batch": B, "length": T, "input": D, "width": K, "layers": N},
    )


def log_probabilities(criterion, hidden):
    """Log probabilities of all tokens, tail i in head column -i: [B, T, V]."""
    sizes = np.diff(criterion.cutoff_ends).tolist()
    if criterion.div_val == 1:
        tables = criterion.out_layers[0].weight.split(sizes)
        biases = criterion.out_layers[0].bias.split(sizes)
    else:
        tables = [layer.weight for layer in criterion.out_layers]
        biases = [layer.bias for layer in criterion.out_layers]

    def log_softmax(table, bias, projection):
        logits = nn.functional.linear(hidden @ projection, table, bias)
        return logits.log_softmax(-1)

    head = log_softmax(
        torch.cat([tables[0], criterion.cluster_weight]),
        torch.cat([biases[0], criterion.cluster_bias]),
        criterion.out_projs[0],
    )
    parts = [head[..., : sizes[0]]]
    for i in range(1, len(sizes)):
        tail = log_softmax(tables[i], biases[i], criterion.out_projs[i])
        parts.append(head[..., -i, None] + tail)
    return torch.cat(parts, -1)


def run_segment(model, tokens, labels, memory):
    """What the model says of one segment, and its mean loss as a tensor."""
    run = model.transformer(
        tokens, mems=memory, output_hidden_states=True, output_attentions=True
    )
    check_mask(model.config, run.attentions)
    check_memory(model.config, memory, run)
    hidden = run.last_hidden_state
    everything = log_probabilities(model.crit, hidden)
    chosen = everything.gather(-1, labels[..., None])[..., 0]
    return {
        "hidden": hidden,
        "log_probabilities": everything,
        "log_probabilities_tf": model.crit(hidden).view(everything.shape),
        "label_log_probabilities": chosen,
        "loss": -chosen.mean(),
        "memory": torch.stack(run.mems),
    }


def check_mask(config, attentions):
    """Weight is where `0 <= i - j`, under same_length also `< mem_len`."""
    for weights in attentions:
        T, klen = weights.shape[2:]
        distance = torch.arange(T)[:, None] - (torch.arange(klen) - (klen - T))
        seen = distance >= 0
        if config.same_length:
            seen &= distance < config.mem_len
        assert ((weights > 0) == seen).all()


def check_memory(config, memory, run):
    """New memory is the last mem_len of old memory and each layer's input."""
    inputs = torch.stack(run.hidden_states[:-1]).transpose(1, 2)
    expected = torch.cat([torch.stack(memory), inputs], 1)[:, -config.mem_len :]
    assert torch.equal(torch.stack(run.mems), expected)


def check_columns(model, outputs):
    """HF's forward differs, and agrees once the rows of the tails are reversed."""
    ours, theirs = outputs["log_probabilities"], outputs["log_probabilities_tf"]
    with torch.no_grad():
        for rows in (model.crit.cluster_weight, model.crit.cluster_bias):
            rows.copy_(rows.flip(0))
        reversed_rows = model.crit(outputs["hidden"]).view(ours.shape)
        for rows in (model.crit.cluster_weight, model.crit.cluster_bias):
            rows.copy_(rows.flip(0))
    assert (ours - theirs).abs().max() > 0.01
    torch.testing.assert_close(reversed_rows, ours, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.exp().sum(-1), torch.ones(ours.shape[:2]))
    torch.testing.assert_close(theirs.exp().sum(-1), torch.ones(ours.shape[:2]))


def check_empty_memory(model, tokens, hidden):
    """Memories of length zero equal no memory at all."""
    config = model.config
    model.reset_memory_length(0)
    model.transformer.same_length = False  # it would block all keys
    alone = model.transformer(tokens).last_hidden_state
    model.reset_memory_length(config.mem_len)
    model.transformer.same_length = config.same_length
    assert torch.equal(alone, hidden)


def draw_text(draw, batch, segments, length, cutoffs, vocabulary):
    """Tokens and the tokens after them, [N, B, T] each, of all clusters everywhere.

    The first and last token of each cluster stand in the third segment.
    """
    starts, ends = [0, *cutoffs], [*cutoffs, vocabulary]
    cluster = draw.generator.integers(len(starts), size=(batch, segments * length + 1))
    text = draw.generator.integers(np.take(starts, cluster), np.take(ends, cluster))
    edges = np.stack([starts, np.array(ends) - 1])
    text[:2, 2 * length + 1 : 2 * length + 4] = edges
    split = [text[:, :-1], text[:, 1:]]
    shape = (batch, segments, length)
    tokens, labels = (x.reshape(shape).swapaxes(0, 1) for x in split)
    for part in (*tokens, *labels):
        assert len(set(np.digitize(part, cutoffs).flat)) == len(starts)
    return torch.tensor(tokens), torch.tensor(labels)


def make_transfo_xl(path, *, seed, batch, segments, length, **config):
    """Segments with memory, from an empty memory ("fresh") and HF's zeros ("zeros").

    loss = the third segment's -mean(label_log_probabilities); memory is a constant.
    """
    draw = Draw(seed)
    config = TransfoXLConfig(dropout=0.0, dropatt=0.0, **config)
    model = draw.parameters(TransfoXLLMHeadModel(config)).eval()
    tokens, labels = draw_text(
        draw, batch, segments, length, config.cutoffs, config.vocab_size
    )
    empty = list(torch.zeros(config.n_layer, 0, batch, config.d_model))
    outputs, slopes = {}, {}
    for case, memory in {"fresh": empty, "zeros": model.init_mems(batch)}.items():
        for n in range(segments):
            run = run_segment(model, tokens[n], labels[n], memory)
            if n == 2:
                found = gradients(run["loss"], dict(model.named_parameters()))
                slopes |= {f"{case}/{name}": x for name, x in found.items()}
            check_columns(model, run)
            if n != 2:
                del run["log_probabilities_tf"]
            outputs |= {f"{case}/{n}/{name}": x for name, x in run.items()}
            memory = list(run["memory"])
    check_empty_memory(model, tokens[0], outputs["fresh/0/hidden"])
    save(
        path,
        parameters=state(model),
        inputs={"tokens": tokens, "labels": labels},
        outputs=outputs,
        gradients=slopes,
        sizes={"batch": batch, "segments": segments, "length": length}
        | {name: getattr(config, name) for name in TRANSFO_XL_SIZES},
    )


TRANSFO_XL_SIZES = (
    *("vocab_size", "cutoffs", "d_model", "d_embed", "n_head", "d_head", "d_inner"),
    *("n_layer", "mem_len", "clamp_len", "div_val"),
    *("pre_lnorm", "same_length", "untie_r", "tie_projs", "tie_word_embeddings"),
)


def make_transformer_xl(path):
    """As in the paper: post-norm, shared u and v, div_val 2."""
    make_transfo_xl(
        path,
        seed=6,
        batch=2,
        segments=3,
        length=7,
        vocab_size=60,
        cutoffs=[13, 31],
        div_val=2,
        d_model=24,
        d_embed=24,
        n_head=4,
        d_head=6,
        d_inner=40,
        n_layer=3,
        mem_len=9,
        clamp_len=-1,
        same_length=False,
        untie_r=False,
        pre_lnorm=False,
    )


def make_transformer_xl_large(path):
    """What the large models add, and pre-norm: own u and v, clamp, same_length."""
    make_transfo_xl(
        path,
        seed=8,
        batch=2,
        segments=7,
        length=5,
        vocab_size=53,
        cutoffs=[11, 30],
        div_val=1,
        d_model=24,
        d_embed=20,
        n_head=4,
        d_head=7,
        d_inner=40,
        n_layer=3,
        mem_len=8,
        clamp_len=4,  # under same_length the longest distance seen is 7
        same_length=True,
        untie_r=True,
        pre_lnorm=True,
    )


BERT_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "layer_norm_eps"),
)


def make_bert(path, *, seed, lengths, **config):
    """Pairs of texts with masked tokens; the first label of `is_next` means other text.

    hidden_states are the output of the embeddings, then of each layer.

    loss = mean(-log p(label) over all labels that are not -100)
         + mean(-log p(next_labels)), where class 0 is "next" and 1 is "other"
    """
    draw = Draw(seed)
    B, T = len(lengths), max(lengths)
    config = BertConfig(
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **config
    )
    model = draw.parameters(BertForPreTraining(config)).eval()
    blocked = padding(lengths, T)
    tokens = torch.tensor(draw.generator.integers(1, config.vocab_size, (B, T)))
    tokens[blocked] = 0
    segments = (torch.arange(T) >= torch.tensor(lengths)[:, None] // 2).long()
    labels = torch.tensor(draw.generator.integers(0, config.vocab_size, (B, T)))
    chosen = torch.tensor(draw.generator.random((B, T))) < 0.4
    labels[blocked | ~chosen] = -100
    next_labels = torch.arange(B) % 2
    run = model(
        tokens,
        attention_mask=(~blocked).long(),
        token_type_ids=segments,
        labels=labels,
        next_sentence_label=next_labels,
        output_hidden_states=True,
    )
    save(
        path,
        parameters=state(model),
        inputs={
            "tokens": tokens,
            "segment_ids": segments,
            "padding": blocked,
            "labels": labels,
            "next_labels": next_labels,
        },
        outputs={
            "hidden_states": torch.stack(run.hidden_states),
            "logits": run.prediction_logits,
            "next_logits": run.seq_relationship_logits,
            "loss": run.loss,
        },
        gradients=gradients(run.loss, dict(model.named_parameters())),
        sizes={name: getattr(config, name) for name in BERT_SIZES},
    )


def make_bert_base(path):
    """As published, but small."""
    make_bert(
        path,
        seed=9,
        lengths=[9, 6, 8],
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=12,
    )


def make_bert_deep(path):
    """Four layers, and a text as long as the positions."""
    make_bert(
        path,
        seed=10,
        lengths=[5, 7],
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=7,
    )


def make_bert_wide(path):
    """One wide layer with small heads, whose output weights are not the embeddings."""
    make_bert(
        path,
        seed=11,
        lengths=[4, 11, 7, 9],
        vocab_size=60,
        hidden_size=40,
        num_hidden_layers=1,
        num_attention_heads=10,
        intermediate_size=48,
        max_position_embeddings=16,
        layer_norm_eps=1e-7,
        tie_word_embeddings=False,
    )


MAKERS = {
    "multihead_attention": make_multihead_attention,
    "transformer_post": make_transformer_post,
    "transformer_pre": make_transformer_pre,
    "gru": make_gru,
    "lstm": make_lstm,
    "transformer_xl": make_transformer_xl,
    "transformer_xl_large": make_transformer_xl_large,
    "bert": make_bert_base,
    "bert_deep": make_bert_deep,
    "bert_wide": make_bert_wide,
}


def main():
    """Make every file and print a table of their sizes."""
    parser = argparse.ArgumentParser(description="Make the golden files.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    total = 0
    for name, make in MAKERS.items():
        path = out / f"{name}.npz"
        # Hugging Face's attention calls `.float()` on its scores before masking them.
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            make(path)
        size = path.stat().st_size
        total += size
        with np.load(path) as arrays:
            print(f"{path.name:26} {len(arrays.files):4} arrays {size:9,} bytes")
    print(f"{'in all':26} {'':11} {total:9,} bytes")


if __name__ == "__main__":
    main()

"""What a model reads of a micro-batch, and what it says of it: packed rows for decoders, corrupted ones for encoders, source and
target for encoder-decoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from data.batch import Batch
from data.errors import UserError
from rlhf.engine.microbatch import lay_out
from rlhf.interfaces import Output
from rlhf.ops.logprobs import shift_left

Kind = Literal["decoder", "encoder", "encoder_decoder"]


@dataclass(frozen=True)
class Form:
    """What must be known of a model to lay out its inputs. packing: whether documents may share a row, that is, whether the
    architecture keeps them apart. prefixes: whether a decoder obeys a mask that opens a row's beginning in both directions.
    start_token: what an encoder-decoder's targets begin with."""

    kind: Kind = "decoder"
    packing: bool = True
    prefixes: bool = True
    start_token: int = 0


@dataclass(frozen=True)
class Inputs:
    """Of one micro-batch of b rows. arguments: those of the transformers model's forward; the states it returns, flattened over
    rows and positions, are the `places` (N,) int64 those that answer."""

    arguments: Mapping[str, Tensor]
    places: Tensor


@dataclass(frozen=True)
class Packed:
    """A micro-batch of b documents in R rows of L tokens."""

    tokens: Tensor  # (R, L) int64, 0 where no document lies
    positions: Tensor  # (R, L) int64, from 0 in each document; padding goes on counting, so that it begins none
    starts: Tensor  # (b,) int64, where each document begins in the flattened rows


def pack_documents(tokens: Tensor, lengths: Tensor, packing: bool = True) -> Packed:
    """tokens (b, T), lengths (b,) -> their packed rows; one row of one token where b = 0, for a rank without work must
    still run the model."""
    sizes = lengths.tolist()
    rows = lay_out(sizes, packing)
    shape = max(len(rows), 1), max(sizes, default=1)
    packed = torch.zeros(shape, dtype=torch.int64)
    positions = torch.arange(shape[1]).repeat(shape[0], 1)
    starts = torch.zeros(len(sizes), dtype=torch.int64)
    for row, documents in enumerate(rows):
        offset = 0
        for document in documents:
            size = sizes[document]
            packed[row, offset : offset + size] = tokens[document, :size]
            positions[row, offset:] = torch.arange(shape[1] - offset)
            starts[document] = row * shape[1] + offset
            offset += size
    return Packed(packed, positions, starts)


def outputs(
    model: nn.Module, microbatch: Batch, output: Output, temperature: float, form: Form, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """(b, T), with entropies or normalisers (2, b, T), 0 where action_mask is False; for "scores" (b,). And the loss of a
    mixture of experts' routers, the mean over the model's positions, None where it has none. On the device. model: an
    EngineModel, or DeepSpeed's wrapper of one. An empty micro-batch runs it, too: its ranks are waited for.

    Raises UserError where the rows are not such as the model reads.
    """
    inputs = inputs_of(microbatch, output, form)
    targets = microbatch.tokens[microbatch.action_mask].to(device) if output.startswith("logprobs") else None
    arguments = {name: value.to(device) for name, value in inputs.arguments.items()}
    out, router_loss = model(arguments, inputs.places.to(device), targets, temperature, output)
    return in_rows(out, microbatch, output), router_loss


def in_rows(out: Tensor, microbatch: Batch, output: Output) -> Tensor:
    """The answers at the model's places, (N,) or (2, N), as `outputs` gives them: (b, T), (2, b, T), or for "scores" (b,)."""
    if output == "scores":
        return out
    mask = microbatch.action_mask.to(out.device)
    shape = (*out.shape[:-1], *mask.shape)
    return torch.zeros(shape, dtype=out.dtype, device=out.device).masked_scatter(mask.expand(shape), out)


def inputs_of(microbatch: Batch, output: Output, form: Form) -> Inputs:
    """What the model reads, and where the states are that answer.

    Raises UserError where the rows are not such as the model reads.
    """
    prefixed, restored = "prefix_lengths" in microbatch, "inputs" in microbatch
    if form.kind == "encoder":
        if not restored:
            raise UserError("an encoder restores masked tokens: take objective masked, or a decoder such as llama")
        return _encoder(microbatch)
    if restored:
        raise UserError("the objective masks tokens for an encoder: take an architecture such as bert or modernbert")
    if form.kind == "encoder_decoder":
        if not prefixed:
            raise UserError(
                "an encoder-decoder reads a source and writes a target: take objective spans, denoisers or prefix"
            )
        return _encoder_decoder(microbatch, form.start_token)
    packed = pack_documents(microbatch.tokens, microbatch.lengths, form.packing)
    arguments = {"input_ids": packed.tokens}
    if len(packed.tokens) < len(microbatch):  # else each document has a row, and needs no mask beyond the causal one
        arguments["position_ids"] = packed.positions
    if prefixed:
        if not form.prefixes:
            raise UserError(
                "this architecture takes no mask of its own (sliding window, ALiBi, or routers), so it cannot read a prefix in both "
                "directions: take one with full attention, such as llama or qwen3"
            )
        arguments |= {"attention_mask": prefix_mask(microbatch, packed), "position_ids": packed.positions}
    places = ending(microbatch, packed) if output == "scores" else predicting(microbatch, packed)
    return Inputs(arguments, places)


def predicting(microbatch: Batch, packed: Packed) -> Tensor:
    """(N,) int64: where, in the flattened rows, the states before the N action tokens are, in row-major order."""
    places = packed.starts[:, None] + torch.arange(microbatch.width)
    return places[shift_left(microbatch.action_mask)[:, : microbatch.width]]  # the shift makes a column out of none


def ending(microbatch: Batch, packed: Packed) -> Tensor:
    """(b,) int64: where, in the flattened rows, each document's last token is."""
    return packed.starts + microbatch.lengths - 1


def prefix_mask(microbatch: Batch, packed: Packed) -> Tensor:
    """(R, 1, L, L) bool, True where a query (third axis) sees a key (fourth): what lies before it in its document, and the whole
    of the document's prefix. Padding sees what is before it, so that no query sees nothing."""
    rows, length = packed.tokens.shape
    document = torch.full((rows * length,), -1)
    prefix = torch.zeros(rows * length, dtype=torch.int64)
    spans = zip(packed.starts.tolist(), microbatch.lengths.tolist(), microbatch.prefix_lengths.tolist(), strict=True)
    for number, (start, size, in_prefix) in enumerate(spans):
        document[start : start + size] = number
        prefix[start : start + size] = in_prefix
    document, prefix = document.view(rows, length), prefix.view(rows, length)
    same = document[:, :, None] == document[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    in_prefix = packed.positions < prefix
    return (same & (causal | in_prefix[:, None, :]))[:, None]


def _encoder(microbatch: Batch) -> Inputs:
    """Rows under each other: encoders know no packed rows. Each masked place answers for itself."""
    rows, length = max(len(microbatch), 1), max(microbatch.width, 1)
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    seen = torch.ones(rows, length, dtype=torch.int64)
    if len(microbatch):
        tokens[:], seen[:] = microbatch.inputs, microbatch.attention_mask
    places = microbatch.action_mask.flatten().nonzero()[:, 0]
    return Inputs({"input_ids": tokens, "attention_mask": seen}, places)


def _encoder_decoder(microbatch: Batch, start_token: int) -> Inputs:
    """The encoder reads each row's prefix; the decoder reads the rest, after the start token and without its last one."""
    sources = microbatch.prefix_lengths.tolist() or [1]
    targets = (microbatch.lengths - microbatch.prefix_lengths).tolist() or [1]
    rows, longest = len(sources), max(max(targets), 1)
    source = torch.zeros(rows, max(sources), dtype=torch.int64)
    seen = torch.zeros_like(source)
    target = torch.full((rows, longest), start_token)
    if not len(microbatch):
        seen[:] = 1
    places = torch.zeros(len(microbatch), microbatch.width, dtype=torch.int64)
    for row in range(len(microbatch)):
        tokens, prefix, size = microbatch.tokens[row], sources[row], targets[row]
        source[row, :prefix], seen[row, :prefix] = tokens[:prefix], 1
        target[row, 1:size] = tokens[prefix : prefix + size - 1]
        places[row, prefix : prefix + size] = row * longest + torch.arange(size)
    arguments = {"input_ids": source, "attention_mask": seen, "decoder_input_ids": target}
    return Inputs(arguments, places[microbatch.action_mask])

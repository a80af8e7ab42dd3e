"""What encoders, encoder-decoders and decoders with a prefix say is what transformers' own models say, one unpadded row at a time."""

import pytest
import torch
from architectures import DECODERS, ENCODER_DECODERS, ENCODERS, NO_PREFIX, build, twin

from data.batch import Batch
from data.errors import UserError
from rlhf.engine.inputs import Form, outputs, prefix_mask
from rlhf.engine.inputs import pack_documents as pack

CPU = torch.device("cpu")
ROWS = [[3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20, 21, 22, 23]]
PREFIXES = [4, 1, 5]


def prefixed():
    masks = [[place >= prefix for place in range(len(row))] for row, prefix in zip(ROWS, PREFIXES)]
    return Batch.from_rows(ROWS, masks, prefix_lengths=PREFIXES)


def masked():
    batch = Batch.from_rows(ROWS, [[place % 3 == 1 for place in range(len(row))] for row in ROWS])
    return batch.with_columns(inputs=torch.where(batch.action_mask, 2, batch.tokens))


def said(model, batch, **form):
    """(B, T) log-probs by the engine."""
    return outputs(model, batch, "logprobs", 1.0, Form(**{**vars(model.form), **form}), CPU)[0]


def logprobs(logits, tokens):
    return torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_says_what_each_masked_token_was(name):
    model, batch = build(ENCODERS[name], "masked"), masked()
    assert model.form.kind == "encoder"
    found, theirs = said(model, batch), twin(model)
    for row, length in enumerate(batch.lengths.tolist()):
        logits = theirs(input_ids=batch.inputs[row : row + 1, :length].long()).logits[0]
        wanted = logprobs(logits, batch.tokens[row, :length].long()) * batch.action_mask[row, :length]
        assert torch.allclose(found[row, :length], wanted, atol=1e-5)
    assert not found[~batch.action_mask].any()


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoder_decoder_reads_the_prefix_and_writes_the_rest(name):
    model, batch = build(ENCODER_DECODERS[name]), prefixed()
    assert model.form.kind == "encoder_decoder"
    found, theirs = said(model, batch), twin(model)
    for row, (tokens, prefix) in enumerate(zip(ROWS, PREFIXES)):
        source, target = torch.tensor([tokens[:prefix]]), torch.tensor([tokens[prefix:]])
        loss = theirs(input_ids=source, labels=target).loss  # its own shift by its own start token
        assert -found[row, prefix : len(tokens)].mean().item() == pytest.approx(loss.item(), rel=1e-5)
        assert not found[row, :prefix].any() and not found[row, len(tokens) :].any()


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_reads_a_prefix_in_both_directions(name, packing):
    model, batch = build(DECODERS[name]), prefixed()
    assert model.form == Form(prefixes=True, packing=True)
    found, theirs = said(model, batch, packing=packing), twin(model)
    for row, (tokens, prefix) in enumerate(zip(ROWS, PREFIXES)):
        seen = torch.ones(1, 1, len(tokens), len(tokens), dtype=torch.bool).tril()
        seen[..., :prefix] = True
        ids = torch.tensor([tokens])
        logits = theirs(input_ids=ids, attention_mask=seen, use_cache=False).logits[0]
        wanted = logprobs(logits[prefix - 1 : -1], ids[0, prefix:])
        assert torch.allclose(found[row, prefix : len(tokens)], wanted, atol=1e-5)


def test_a_prefix_mask_by_hand():
    batch = Batch.from_rows([[1, 2, 3], [4, 5]], [[0, 0, 1], [0, 1]], prefix_lengths=[2, 1])
    mask = prefix_mask(batch, pack(batch.tokens, torch.tensor([3, 2]), packing=False))
    assert mask[:, 0].int().tolist() == [
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [0, 0, 1]],  # the last column is padding, which sees itself
    ]


def test_the_rest_of_a_row_does_not_see_what_comes_after_it():
    model, batch = build(DECODERS["llama"]), prefixed()
    changed = batch.tokens.clone()
    changed[0, 8] = 33  # beyond the prefix
    before, after = said(model, batch), said(model, batch.with_columns(tokens=changed))
    assert torch.equal(before[0, :8], after[0, :8]) and not torch.equal(before[0, 9:], after[0, 9:])
    changed[0, 2] = 34  # in the prefix: seen by its end, which predicts the first token after it
    assert said(model, batch.with_columns(tokens=changed))[0, 4] != before[0, 4]


@pytest.mark.parametrize("name", [*DECODERS, *NO_PREFIX])
def test_decoders_say_the_same_packed_or_not_as_transformers_does(name):
    model = build((DECODERS | NO_PREFIX)[name])
    batch = prefixed().keep({"tokens", "lengths", "action_mask"})
    found, theirs = said(model, batch), twin(model)
    for row, (tokens, prefix) in enumerate(zip(ROWS, PREFIXES)):
        logits = theirs(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
        wanted = logprobs(logits[prefix - 1 : -1], torch.tensor(tokens[prefix:]))
        assert torch.allclose(found[row, prefix : len(tokens)], wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["experts", "many experts"])
def test_routers_learn_by_transformers_own_loss(name):
    model = build(NO_PREFIX[name])
    ids = torch.tensor([ROWS[0]])
    batch = Batch.from_rows([ROWS[0]], [[False] + [True] * 9])
    found, router_loss = outputs(model, batch, "logprobs", 1.0, model.form, CPU)
    theirs = twin(model)(input_ids=ids, labels=ids, use_cache=False)
    assert router_loss.item() > 0
    assert -found[0, 1:].mean().item() + router_loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS, *ENCODER_DECODERS])
def test_a_rank_without_rows_runs_the_model_too(name):
    head = "masked" if name in ENCODERS else "lm"
    model = build((DECODERS | ENCODERS | ENCODER_DECODERS)[name], head)
    batch = (masked() if head == "masked" else prefixed()).select([])
    assert said(model, batch).shape == (0, 0)


@pytest.mark.parametrize(
    ("architecture", "head", "message"),
    [
        (ENCODERS["bert"], "lm", "BertLMHeadModel reads in both directions, so it cannot predict the next token"),
        (DECODERS["llama"], "masked", "llama cannot be trained with this objective; take an encoder such as bert"),
        (ENCODER_DECODERS["t5"], "masked", "t5 cannot be trained with this objective; take an encoder such as bert"),
        ({"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}, "lm", "changes its logits"),
    ],
)
def test_an_architecture_that_does_not_go_with_the_objective_is_refused(architecture, head, message):
    with pytest.raises(UserError, match=r"models\.policy|changes") as caught:
        build(architecture, head)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "head", "batch", "message"),
    [
        (ENCODERS["bert"], "masked", prefixed, "take objective masked"),
        (
            ENCODER_DECODERS["t5"],
            "lm",
            lambda: prefixed().keep({"tokens", "lengths", "action_mask"}),
            "take objective spans",
        ),
        (DECODERS["llama"], "lm", masked, "take an architecture such as bert"),
        (NO_PREFIX["window"], "lm", prefixed, "take one with full attention"),
        (NO_PREFIX["alibi"], "lm", prefixed, "take one with full attention"),
    ],
)
def test_rows_that_a_model_cannot_read_are_refused(architecture, head, batch, message):
    with pytest.raises(UserError, match=message):
        said(build(architecture, head), batch())


@pytest.mark.parametrize("name", ["experts", "many experts"])
def test_experts_without_a_loss_of_their_routers_take_a_prefix(name):
    assert build(NO_PREFIX[name] | {"output_router_logits": False}).form.prefixes

"""The parts of the model as functions of tensors: what the model itself answers, however an answer is divided."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from open_florence.export.graphs import graphs
from open_florence.model.florence import Florence, Memory


@pytest.fixture(scope="module", params=["tied", "untied"])
def model(request, tied, exported):
    return tied if request.param == "tied" else exported.model


def parts(model):
    return {graph.name: graph for graph in graphs(model, 24)}


@given(
    pieces=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    shown=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_an_answer_in_pieces_is_the_models(model: Florence, pieces: list[int], shown: list[int]) -> None:
    torch.manual_seed(0)
    states = torch.randn(len(shown), max(shown), 32)
    mask = torch.arange(max(shown)) < torch.tensor(shown)[:, None]  # (B, S)
    said = torch.randint(0, 100, (len(shown), sum(pieces)))
    found, graph = parts(model), "decoder_model"
    with torch.no_grad():
        wanted = model.decode(said, Memory(states, mask))
        past, memory, logits = [], [states], []
        for ids in said.split(pieces, dim=1):
            embedded = found["embed_tokens"].module(ids)
            given_now = (mask.long(), *memory, embedded, *past)
            step, *kept = found[graph].module(*given_now)
            logits.append(step)
            if graph == "decoder_model":
                past = kept
            else:
                past = [kept[i // 4 * 2 + i % 4] if i % 4 < 2 else old for i, old in enumerate(past)]
            graph, memory = "decoder_with_past_model", []
    torch.testing.assert_close(torch.cat(logits, dim=1), wanted, rtol=0, atol=1e-4)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_the_encoder_hides_what_is_padded(model: Florence, lengths: list[int]) -> None:
    torch.manual_seed(1)
    embedded = torch.randn(len(lengths), max(lengths), 32)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    encode = parts(model)["encoder_model"].module
    with torch.no_grad():
        found = encode(mask.long(), embedded)
        torch.testing.assert_close(found, model.language_model.encoder(embedded, mask), rtol=0, atol=1e-4)
        for row, length in enumerate(lengths):
            alone = encode(mask[row : row + 1, :length].long(), embedded[row : row + 1, :length])
            torch.testing.assert_close(found[row : row + 1, :length], alone, rtol=0, atol=1e-4)


def test_parts_answer_with_the_shapes_they_state(model: Florence) -> None:
    for graph in graphs(model, 24):
        sizes = {"encoder_sequence_length_out": 4, "encoder_sequence_length": 4}
        free = {axis for axes in graph.inputs.values() for axis in axes if isinstance(axis, str)}
        sizes |= {axis: 2 + len(axis) % 3 for axis in sorted(free) if axis not in sizes}
        before = "past_decoder_sequence_length"
        sizes[f"{before} + 1"] = sizes.get(before, 0) + sizes.get("decoder_sequence_length", 0)
        given_now = []
        for name, axes in graph.inputs.items():
            shape = [sizes.get(axis, axis) for axis in axes]
            given_now.append(
                torch.ones(shape, dtype=torch.long) if "ids" in name or "mask" in name else torch.ones(shape)
            )
        with torch.no_grad():
            found = graph.module(*given_now)
        found = found if isinstance(found, tuple) else (found,)
        wanted = [tuple(sizes.get(axis, axis) for axis in axes) for axes in graph.outputs.values()]
        assert [tuple(tensor.shape) for tensor in found] == wanted, graph.name


def test_a_tied_output_layer_is_the_embedding(tied: Florence) -> None:
    decoder = parts(tied)["decoder_model"]
    assert decoder.module.head is tied.language_model.shared
    assert decoder.outputs["logits"][-1] == tied.config.text.vocab_size

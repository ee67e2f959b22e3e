"""The whole model: padding, the cache, several prompts an image, dtypes, and the projector by its definition."""

import ast
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import open_florence.model
from open_florence.model.florence import Projector, temporal_table
from open_florence.model.kv_cache import KVCache


def test_a_padded_batch_equals_one_by_one(make_model, inputs):
    model = make_model().double()  # so that only a mistake can make a difference
    pixels, input_ids, mask, labels = inputs
    with torch.inference_mode():
        batch = model(pixels, input_ids, mask, labels)
        for row in range(3):
            length = int(mask[row].sum())
            alone = model(
                pixels[row : row + 1],
                input_ids[row : row + 1, :length],
                mask[row : row + 1, :length],
                labels[row : row + 1],
            )
            torch.testing.assert_close(batch[row], alone[0])


def test_what_pads_a_prompt_does_not_matter(make_model, inputs):
    model = make_model()
    pixels, input_ids, mask, labels = inputs
    with torch.inference_mode():
        noise = torch.where(mask == 1, input_ids, 77)
        torch.testing.assert_close(model(pixels, input_ids, mask, labels), model(pixels, noise, mask, labels))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("first", [1, 2])
def test_cached_decoding_equals_uncached(make_model, inputs, beams, first):
    """`first` tokens at once, then one a step; every beam of a memory row says something else."""
    model = make_model()
    pixels, input_ids, mask, _ = inputs
    said = torch.randint(3, 140, (3 * beams, 7), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        memory = model.encode(model.encode_image(pixels), input_ids, mask)
        whole = model.decode(said, memory)
        cache = KVCache()
        steps = [model.decode(said[:, :first], memory, cache)]
        steps += [model.decode(said[:, t : t + 1], memory, cache) for t in range(first, 7)]
        assert cache.length == 7
        torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)
        for row in range(3):  # and each memory row is read by its own beams
            one = type(memory)(memory.hidden[row : row + 1], memory.mask[row : row + 1])
            mine = slice(row * beams, (row + 1) * beams)
            torch.testing.assert_close(model.decode(said[mine], one), whole[mine], rtol=1e-4, atol=1e-5)


def test_reordered_beams_continue_the_text_they_took_over(make_model, inputs):
    model = make_model()
    pixels, input_ids, mask, _ = inputs
    said = torch.randint(3, 140, (6, 4), generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([1, 1, 3, 2, 4, 5])
    with torch.inference_mode():
        memory = model.encode(model.encode_image(pixels), input_ids, mask)
        cache = KVCache()
        model.decode(said[:, :3], memory, cache)
        held = [cache.memory(layer) for layer in range(3)]
        cross = [part.data_ptr() for part in held]
        assert [part.shape[1] for part in held] == [3] * 3  # memory rows, not beams
        cache.reorder(rows)
        logits = model.decode(said[:, 3:], memory, cache)
        expected = model.decode(torch.cat([said[rows, :3], said[:, 3:]], 1), memory)[:, 3:]
    assert [cache.memory(layer).data_ptr() for layer in range(3)] == cross
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_an_image_encoded_once_for_several_rows_equals_repeating_it(make_model, inputs):
    """Logits and, through the shared encoding, every gradient; in float64, so that only a mistake can differ."""
    pixels, input_ids, mask, labels = inputs
    image_index = torch.tensor([1, 0, 1])
    gradients = []
    for packed in (True, False):
        model = make_model().double()
        images = pixels.double()[:2]
        logits = (
            model(images, input_ids, mask, labels, image_index)
            if packed
            else model(images[image_index], input_ids, mask, labels)
        )
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        gradients.append((logits.detach(), {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert all(bool(grad.any()) for name, grad in gradients[0][1].items())


def test_labels_are_shifted_behind_the_start_token(make_model):
    labels = torch.tensor([[0, 50, 2, -100], [0, 2, -100, -100]])
    assert make_model().shift_right(labels).tolist() == [[2, 0, 50, 2], [2, 0, 2, 1]]
    assert labels[0, 3] == -100


def test_the_projector_by_its_definition(config):
    torch.manual_seed(0)
    projector = Projector(config.vision)
    grid = torch.randn(2, 64, 3, 4)
    tokens = torch.empty(2, 12, 64)
    for y in range(3):
        for x in range(4):
            place = torch.cat([projector.column_embeddings.weight[x], projector.row_embeddings.weight[y]])
            tokens[:, 4 * y + x] = grid[:, :, y, x] + place + torch.tensor([0.0, 1.0] * 32)  # frame 0: sin 0, cos 0
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
    expected = projector.image_proj_norm(tokens @ projector.image_projection.weight.T)
    torch.testing.assert_close(projector(grid), expected)


def test_the_temporal_table():
    table = temporal_table(100, 8)
    assert table.shape == (100, 8)
    assert table[3, 4].item() == pytest.approx(torch.tensor(3 * 10000 ** (-4 / 8)).sin().item())
    assert table[3, 5].item() == pytest.approx(torch.tensor(3 * 10000 ** (-4 / 8)).cos().item())


def test_an_image_beyond_the_position_table_is_refused(config):
    with pytest.raises(ValueError, match="51 x 2 cells, more than the 50 x 50"):
        Projector(config.vision)(torch.randn(1, 64, 51, 2))


def test_bfloat16_weights(make_model, inputs):
    model = make_model()
    with torch.inference_mode():
        exact = model(*inputs)
        rounded = model.bfloat16()(*inputs)  # pixels stay float32: the model casts them
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded).norm() < 0.2 * exact.norm()


def test_training_under_bfloat16_autocast(make_model, inputs):
    labels = inputs[3]
    losses = []
    for enabled in (False, True):
        model = make_model()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = model(*inputs)
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_the_model_can_be_lifted_out():
    """Its files import PyTorch, safetensors, numpy, the standard library and each other."""
    allowed = {"torch", "safetensors", "numpy", *sys.stdlib_module_names}
    for path in Path(open_florence.model.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("open_florence.model."), f"{path.name}: {name}"

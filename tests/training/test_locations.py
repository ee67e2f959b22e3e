import torch
import torch.nn.functional as F
from torch import nn

from open_florence.training.locations import fold_locations, sequence_loss, smooth_locations

START, COUNT = 7, 1000


def test_folding_leaves_a_plain_table_with_the_same_rows() -> None:
    embedding = nn.Embedding(START + COUNT + 5, 16)
    plain = embedding.weight.detach().clone()
    smooth_locations(embedding, START, COUNT)
    ids = torch.arange(START + COUNT + 5)
    before = embedding(ids).detach().clone()
    assert torch.equal(before[:START], plain[:START])
    assert torch.equal(before[START + COUNT :], plain[START + COUNT :])
    assert not torch.allclose(before[START : START + COUNT], plain[START : START + COUNT])
    fold_locations(embedding)
    assert [name for name, _ in embedding.named_parameters()] == ["weight"]
    assert torch.equal(embedding(ids), before)
    fold_locations(embedding)


def test_neighbouring_locations_start_out_alike() -> None:
    embedding = nn.Embedding(START + COUNT, 16)
    nn.init.zeros_(embedding.weight)
    smooth_locations(embedding, START, COUNT)
    rows = embedding.weight[START:]
    near = (rows[1:] - rows[:-1]).norm(dim=1).mean()
    far = (rows[500:] - rows[:-500]).norm(dim=1).mean()
    assert near < 0.8 * far


def test_without_softness_it_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, START + COUNT)
    labels = torch.randint(0, START + COUNT, (2, 5))
    labels[1, 3:] = -100
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(2, 5)
    assert torch.allclose(sequence_loss(logits, labels, START, COUNT, sigma=0.0), expected)
    assert sequence_loss(logits, labels, START, COUNT, sigma=0.0)[1, 3:].abs().max() == 0


def test_soft_targets_touch_locations_only_and_forgive_near_misses() -> None:
    labels = torch.tensor([[3, START + 500]])
    near, far = torch.zeros(1, 2, START + COUNT), torch.zeros(1, 2, START + COUNT)
    near[0, 1, START + 503] = 10.0
    far[0, 1, START + 900] = 10.0
    loss_near = sequence_loss(near, labels, START, COUNT, sigma=5.0)
    loss_far = sequence_loss(far, labels, START, COUNT, sigma=5.0)
    assert loss_near[0, 1] < loss_far[0, 1] - 0.5
    hard = sequence_loss(near, labels, START, COUNT, sigma=0.0)
    assert torch.equal(loss_near[0, 0], hard[0, 0])


def test_a_soft_target_by_hand() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 1, START + COUNT)
    weights = torch.exp(-0.5 * ((torch.arange(COUNT) - 20) / 4.0) ** 2)
    expected = -(weights / weights.sum() * logits[0, 0].log_softmax(0)[START:]).sum()
    loss = sequence_loss(logits, torch.tensor([[START + 20]]), START, COUNT, sigma=4.0)
    assert torch.allclose(loss[0, 0], expected, atol=1e-5)

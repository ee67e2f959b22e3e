import torch

from open_florence.training.grounding import WordHeads

WIDTH, VOCABULARY, START, COUNT = 16, 60, 40, 20


def labels_of(rows: int = 2, grid: int = 3) -> dict[str, torch.Tensor]:
    colour = torch.full((rows, grid, grid), -100)
    colour[:, 1, 1] = torch.arange(rows) % 2
    box = torch.full((rows, grid, grid, 4), float("nan"))
    box[:, 1, 1] = torch.tensor([0.25, 0.25, 0.25, 0.25])
    return {"colour": colour, "background": torch.arange(rows) % 2, "box": box}


def test_tokens_learn_the_words_and_corners_of_their_place() -> None:
    torch.manual_seed(0)
    heads = WordHeads([("colour", [5, 6]), ("colour", [7, -1]), ("background", [8, 9])], (START, COUNT), WIDTH)
    table, hidden = torch.randn(VOCABULARY, WIDTH), torch.randn(2, 10, WIDTH)
    labels = labels_of()
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
    first = heads.loss(hidden, table, labels, 0.0).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = heads.loss(hidden, table, labels, 0.0)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
    corner = heads.corners[0](hidden[0, 1 + 4]) @ table[START : START + COUNT].T
    assert int(corner.argmax()) == 5, "a quarter of the image left of the middle, in 20 bins"
    word = heads.layers[0](hidden[1, 1 + 4]) @ table[[5, 6]].T
    assert int(word.argmax()) == 1


def test_nothing_known_costs_nothing() -> None:
    heads = WordHeads([("colour", [5, 6])], (START, COUNT), WIDTH)
    labels = {"colour": torch.full((1, 3, 3), -100), "box": torch.full((1, 3, 3, 4), float("nan"))}
    assert heads.loss(torch.randn(1, 10, WIDTH), torch.randn(VOCABULARY, WIDTH), labels, 3.0).item() == 0
    only_unnamed = {"colour": torch.ones(1, 3, 3, dtype=torch.long), "box": labels["box"]}
    heads = WordHeads([("colour", [5, -1])], (START, COUNT), WIDTH)
    assert heads.loss(torch.randn(1, 10, WIDTH), torch.randn(VOCABULARY, WIDTH), only_unnamed, 3.0).item() == 0

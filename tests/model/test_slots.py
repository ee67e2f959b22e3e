"""Answers that begin and end at different times: each has the states it has when it is decoded alone."""

import copy
import random

import pytest
import torch

from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence, Memory


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    vision = VisionConfig(dims=(4, 4), depths=(1, 1), heads=(1, 1), groups=(1, 1), projection_dim=16)
    text = TextConfig(
        vocab_size=60,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_heads=2,
        decoder_heads=2,
        encoder_ffn=32,
        decoder_ffn=32,
        max_positions=200,
    )
    return Florence(FlorenceConfig(vision=vision, text=text)).double().eval()


def memory_of(length: int) -> Memory:
    return Memory(torch.randn(1, length, 16, dtype=torch.float64), torch.rand(1, length) > 0.2)


def alone(model: Florence, memory: Memory, tokens: list[int]) -> torch.Tensor:
    """The states (T, d) of one answer, read at once."""
    return model.hidden(torch.tensor([tokens]), memory)[0]


@pytest.mark.parametrize("is_fixed", [False, True])
@torch.inference_mode()
def test_answers_come_and_go_without_touching_each_other(model, is_fixed):
    """A random schedule of admissions, steps and releases, with more tokens than room was made for at first."""
    dice = random.Random(1)
    slots = model.new_slots(4, is_fixed=is_fixed)
    running: list[tuple[Memory, list[int], list[torch.Tensor]]] = []
    checked = longest = 0
    for turn in range(400):
        while slots.active < 4 and dice.random() < 0.5:
            fresh = [memory_of(dice.randint(3, 9)) for _ in range(dice.randint(1, 4 - slots.active))]
            wide = max(memory.hidden.shape[1] for memory in fresh)
            joined = Memory(
                torch.cat([torch.nn.functional.pad(m.hidden, (0, 0, 0, wide - m.hidden.shape[1])) for m in fresh]),
                torch.cat([torch.nn.functional.pad(m.mask, (0, wide - m.mask.shape[1])) for m in fresh]),
            )
            assert list(model.admit(joined, slots)) == [len(running) + i for i in range(len(fresh))]
            running += [(memory, [], []) for memory in fresh]
        if not running:
            continue
        tokens = [dice.randrange(3, 60) for _ in running]
        states = model.step(torch.tensor(tokens), slots)  # (R, d)
        for (_, said, kept), token, state in zip(running, tokens, states, strict=True):
            said.append(token)
            kept.append(state)
        longest = max(longest, *(len(said) for _, said, _ in running))
        for slot in reversed(range(len(running))):
            if dice.random() < (0.2 if slot else 0.012) or turn == 399:
                memory, said, kept = running[slot]
                torch.testing.assert_close(torch.stack(kept), alone(model, memory, said), rtol=1e-9, atol=1e-9)
                checked += 1
                slots.release(slot)
                running[slot] = running[-1]
                running.pop()
    assert checked > 50
    assert longest > 70  # beyond what a slot had room for


@pytest.mark.parametrize("is_fixed", [False, True])
@torch.inference_mode()
def test_beams_of_a_slot_share_its_memory_and_change_places(model, is_fixed):
    slots = model.new_slots(3, beams=2, is_fixed=is_fixed)
    memories = [memory_of(5), memory_of(8)]
    for memory in memories:
        model.admit(memory, slots)
    said: list[list[int]] = [[], [], [], []]
    dice = random.Random(2)
    for _ in range(12):
        tokens = [dice.randrange(3, 60) for _ in said]
        states = model.step(torch.tensor(tokens), slots)
        said = [[*row, token] for row, token in zip(said, tokens, strict=True)]
        for row, state in enumerate(states):
            torch.testing.assert_close(state, alone(model, memories[row // 2], said[row])[-1], rtol=1e-9, atol=1e-9)
        rows = [dice.randrange(2), dice.randrange(2), 2 + dice.randrange(2), 2 + dice.randrange(2)]
        slots.reorder(torch.tensor(rows))
        said = [said[row] for row in rows]
    slots.release(0)
    states = model.step(torch.tensor([7, 8]), slots)
    for row, state in enumerate(states):
        expected = alone(model, memories[1], [*said[2 + row], 7 + row])[-1]
        torch.testing.assert_close(state, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records a CUDA graph")
@torch.inference_mode()
def test_a_recorded_step_is_the_step(model):
    fast = copy.deepcopy(model).to("cuda", torch.float32)
    recorded, plain = fast.new_slots(3), fast.new_slots(3, is_fixed=False)
    memory = Memory(torch.randn(2, 5, 16, device="cuda"), torch.ones(2, 5, dtype=torch.bool, device="cuda"))
    for slots in (recorded, plain):
        fast.admit(memory, slots)
    for token in range(3, 59):
        tokens = torch.tensor([token, 60 - token], device="cuda")
        torch.testing.assert_close(fast.step(tokens, recorded), fast.step(tokens, plain), rtol=1e-4, atol=1e-4)
        if token == 30:
            for slots in (recorded, plain):
                slots.release(0)
                fast.admit(Memory(memory.hidden[:1], memory.mask[:1]), slots)

"""Draws: those of an epoch are the same whatever was drawn before, and those of another epoch are others."""

import torch

from training.draws import EpochSampler, TrainingCollator


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, warmed_up=0):
        sampler = EpochSampler(torch.utils.data.RandomSampler(range(20)), seed)
        for _ in range(warmed_up):
            list(sampler)
        torch.rand(3)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(1, 0)) == list(range(20))
    assert order(1, 2, warmed_up=2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed, epoch in ((1, 0), (1, 1), (5, 0), (5, 1))}) == 4


def draw(rows):
    return {"drawn": torch.rand(len(rows)).tolist()}


def test_what_a_batch_draws_depends_on_seed_epoch_and_rows_alone():
    rows = [{"segment_id": name} for name in "abc"]
    collator = TrainingCollator(draw, seed=1)
    first = collator(rows)
    assert first["segment_id"] == ["a", "b", "c"]
    torch.rand(3)
    assert collator(rows) == first
    seen = [first, collator(rows[:2] + [{"segment_id": "d"}]), TrainingCollator(draw, seed=2)(rows)]
    collator.set_epoch(1)
    seen.append(collator(rows))
    assert len({tuple(batch["drawn"]) for batch in seen}) == 4
    # One row that comes twice in a batch is drawn for twice.
    assert len(set(collator([rows[0]] * 2)["drawn"])) == 2


def test_what_others_draw_stays_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert TrainingCollator(draw, seed=1)([{"text": "정말"}]).keys() == {"drawn"}
    assert torch.equal(torch.rand(2), expected)

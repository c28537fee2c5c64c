"""The queue: first in first out, wrapping around, untouched by a bad step."""

import pytest
import torch
import torch.nn.functional as F

from ssl_core.networks.queue import Queue

FINITE, BAD = torch.tensor(True), torch.tensor(False)


def unit(*rows: int) -> torch.Tensor:
    return F.normalize(
        torch.randn(*rows, generator=torch.Generator().manual_seed(sum(rows))), dim=1
    )


def test_rows_start_at_unit_length():
    torch.testing.assert_close(Queue(10, 4).rows.norm(dim=1), torch.ones(10))


def test_the_oldest_rows_go_first_and_writing_wraps_around():
    queue, batches = Queue(7, 3), [unit(3, 3), unit(2, 3), unit(4, 3)]
    for batch in batches:
        queue.push(5 * batch, finite=FINITE)
    torch.testing.assert_close(queue.rows[5:], batches[2][:2])
    torch.testing.assert_close(queue.rows[:2], batches[2][2:])
    torch.testing.assert_close(queue.rows[2], batches[0][2])
    torch.testing.assert_close(queue.rows[3:5], batches[1])
    assert int(queue.cursor) == 2


def test_a_batch_larger_than_the_queue_leaves_its_end():
    queue, batch = Queue(3, 2), unit(8, 2)
    queue.push(batch, finite=FINITE)
    assert {tuple(row) for row in queue.rows.tolist()} == {
        tuple(row) for row in F.normalize(batch, dim=1)[-3:].tolist()
    }


def test_a_bad_step_changes_nothing_even_with_nan():
    queue = Queue(5, 2)
    before = queue.rows.clone()
    queue.push(torch.full((3, 2), torch.nan), finite=BAD)
    assert torch.equal(queue.rows, before)
    assert int(queue.cursor) == 0


def test_embeddings_in_the_queue_carry_no_gradient():
    queue = Queue(5, 2)
    queue.push(torch.randn(2, 2, requires_grad=True), finite=FINITE)
    assert not queue.rows.requires_grad


@pytest.mark.parametrize(("size", "dim"), [(0, 4), (4, 0)])
def test_an_empty_queue_is_refused(size, dim):
    with pytest.raises(ValueError, match="at least 1"):
        Queue(size, dim)

"""One stream of batches for several heads: their threads run one at a time, a batch after another.

Each head trains in a thread of its own by the very code that trains it alone; each thread
runs for exactly one batch, then yields to the next. So the heads share nothing but batches, and one head's
activations are freed before another's are made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Turns:
    """Runs `seats` threads one at a time, in the order of their numbers; seat 0 starts."""

    def __init__(self, seats: int) -> None:
        self._there = list(range(seats))
        self._turn = 0
        self._changed = threading.Condition()

    def wait(self, seat: int) -> None:
        """Returns when it is this seat's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == seat)

    def pass_on(self, seat: int) -> None:
        """Ends this seat's turn and returns when it has come round again."""
        with self._changed:
            self._end_turn(seat)
            self._changed.wait_for(lambda: self._turn == seat)

    def leave(self, seat: int) -> None:
        """Ends this seat's turn for good."""
        with self._changed:
            self._end_turn(seat)
            self._there.remove(seat)

    def _end_turn(self, seat: int) -> None:
        after = [other for other in self._there if other > seat]
        self._turn = (after or self._there)[0]
        self._changed.notify_all()


class SharedBatches(Generic[Batch]):
    """Hands each batch of `source` to every seat whose turn it is, and takes the next one when all had it.

    Args:
        source: batches of the steps from the least of `first_steps` on.
        first_steps: of each seat, the first step it wants a batch of; it sleeps through those before.
    """

    def __init__(self, source: Iterator[Batch], first_steps: list[int]) -> None:
        self.turns = Turns(len(first_steps))
        self.error: BaseException | None = None
        """What ended the source for all, once it did."""
        self._source = source
        self._wanted = dict(enumerate(first_steps))
        self._waited_s = [0.0] * len(first_steps)
        self._step = min(first_steps) - 1
        self._batch: Batch | None = None

    def batches(self, seat: int) -> Iterator[Batch]:
        """The batches of one seat, whose thread has the turn.

        Raises whatever the source raised, in every seat.
        """
        while True:
            self._let_others_run(seat)
            while (step := self._wanted[seat]) != self._step:
                if step == min(self._wanted.values()):
                    self._advance()
                else:  # this one is ahead of others, as where a run was killed between two checkpoints
                    self._let_others_run(seat)
            self._refuse_ended()
            yield self._take(seat)
            self._wanted[seat] = step + 1

    def waited_s(self, seat: int) -> float:
        """Seconds a seat has waited while others had their turns, since it had its first."""
        return self._waited_s[seat]

    def leave(self, seat: int) -> None:
        """Removes this seat, whose thread has the turn; the others continue."""
        del self._wanted[seat]
        if not any(step <= self._step for step in self._wanted.values()):
            self._batch = None
        self.turns.leave(seat)

    def stop(self, error: BaseException) -> None:
        """Makes every seat raise `error` when it asks for its next batch. From any thread."""
        if self.error is None:
            self.error = error

    def _let_others_run(self, seat: int) -> None:
        began = time.perf_counter()
        self.turns.pass_on(seat)
        self._waited_s[seat] += time.perf_counter() - began

    def _take(self, seat: int) -> Batch:
        batch = self._batch
        assert batch is not None
        if all(step > self._step for other, step in self._wanted.items() if other != seat):
            self._batch = None  # the last to have it: memory holds it no longer than that seat does
        return batch

    def _advance(self) -> None:
        self._refuse_ended()
        self._batch = None  # before the next one is made
        try:
            self._batch = next(self._source)
        except BaseException as error:  # StopIteration too: no seat asks for more steps than there are
            self.stop(error)
            raise
        self._step += 1

    def _refuse_ended(self) -> None:
        if self.error is not None:
            raise self.error

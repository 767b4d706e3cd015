# SPDX-License-Identifier: Apache-2.0
"""One at a time on the event loop, by class, and the loop left to others after each."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from typing import NamedTuple

# What took longer than this gives the loop to others, for so many times as long.
SHORT_SECONDS, REST = 0.005, 4.0
LONGEST_REST_SECONDS = 2.0
# Whose work leaves the loop for longer than this waits for something else, and gives its turn up.
IDLE_SECONDS = 0.05


class _Waiting(NamedTuple):
    level: int
    number: int  # by which equals are in order, also where one comes again
    entry: int
    asked: asyncio.Future[Turn]
    turn: Turn


class Turns:
    """The most urgent first, equals in the order in which they came. Belongs to one event loop.

    Nobody waits for the turn of a less urgent class, nor for the rest after it. What has such a
    turn is stopped meanwhile, where it leaves the loop to others anyway. A turn counts while its
    work has the loop or could have it: who waits for a download, or for a lock of somebody who is
    stopped, gives it up meanwhile and queues for it again. Whoever has waited for the time that its
    class is to wait at most counts as the most urgent from then on.
    """

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()
        self._held: list[Turn] = []
        self._rests: list[int] = []  # their levels
        self._stopped: list[asyncio.Future[None]] = []

    async def take(self, level: int, patience: float = math.inf) -> Turn:
        """Wait for one's turn; it lasts until it is given back.

        Args:
            level: index of the class.
            patience: seconds after which it is as urgent as any.
        """
        asked = self.ask(level, patience)
        try:
            return await asked
        except BaseException:
            withdraw(asked)
            raise

    def ask(self, level: int, patience: float = math.inf) -> asyncio.Future[Turn]:
        """As :meth:`take`, for who may not wait to the end, and then has to :func:`withdraw`."""
        return self.queue(Turn(self, level, next(self._numbers), patience))

    def queue(self, turn: Turn) -> asyncio.Future[Turn]:
        """As :meth:`ask`, for a turn that was given up."""
        asked: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        turn.asked = asked
        self.enter(turn)
        return asked

    def enter(self, turn: Turn) -> None:
        """Let a turn that is asked for wait where it belongs; it may wait elsewhere already."""
        assert turn.asked is not None
        entry = next(self._numbers)
        waiting = _Waiting(turn.urgency, turn.number, entry, turn.asked, turn)
        heapq.heappush(self._waiting, waiting)
        self.changed()

    def leave(self, turn: Turn) -> None:
        """A turn does not count until it comes again."""
        self._held.remove(turn)
        self.changed()

    def release(self, turn: Turn, rest: float) -> None:
        """A turn is over; after ``rest`` seconds the next of its class may come."""
        if turn in self._held:
            self._held.remove(turn)
        if rest > 0:
            self._rests.append(turn.level)
            asyncio.get_running_loop().call_later(rest, self._rested, turn.level)
        self.changed()

    def stop_for(self, turn: Turn) -> asyncio.Future[None] | None:
        """What is done when a turn may go on, or has to ask again; None: it may."""
        if turn in self._held and all(other.urgency >= turn.urgency for other in self._held):
            return None
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped.append(stopped)
        return stopped

    def changed(self) -> None:
        """Let in whoever may come now."""
        while self._waiting:
            level, _, _, asked, turn = self._waiting[0]
            if not asked.done() and not self._may_come(level):
                break  # and so nobody else may, being less urgent
            heapq.heappop(self._waiting)
            if not asked.done():  # withdrawn
                self._held.append(turn)
                turn.came()
                asked.set_result(turn)
        stopped, self._stopped = self._stopped, []
        for each in stopped:  # those who must stop again do so
            if not each.done():
                each.set_result(None)

    def _may_come(self, level: int) -> bool:
        return all(turn.urgency > level for turn in self._held) and all(
            rest > level for rest in self._rests
        )

    def _rested(self, level: int) -> None:
        self._rests.remove(level)
        self.changed()


def withdraw(asked: asyncio.Future[Turn]) -> None:
    """Do without a turn that was asked for, whether it has come or not."""
    if not asked.cancel() and not asked.cancelled():
        asked.result().give_back()


class Turn:
    """The right to keep the event loop busy, until :meth:`give_back`.

    Attributes:
        level: index of the class.
        number: it is before those of its class with greater ones.
        asked: done when it comes, also when it comes again.
    """

    def __init__(self, turns: Turns, level: int, number: int, patience: float = math.inf) -> None:
        self.level, self.number = level, number
        self._is_overdue = False
        self.asked: asyncio.Future[Turn] | None = None
        self._turns: Turns | None = turns
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None
        if patience < math.inf:
            self._patience = self._loop.call_later(patience, self._hurry)
        # Of the loop's time, that of this turn's own work alone: others have theirs meanwhile.
        self._seconds = 0.0
        self._since: float | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._is_held = False

    @property
    def urgency(self) -> int:
        """Index of the class as which it counts."""
        return 0 if self._is_overdue else self.level

    def came(self) -> None:
        """It counts from now on, as long as its work does not wait for others."""
        self._is_held = True
        if self._since is None:
            self._wait()

    def classed(self, level: int) -> None:
        """The class has been found out, and is another one."""
        self.level = level
        if self._turns is not None:
            self._turns.changed()

    @property
    def _is_waiting(self) -> bool:
        return self.asked is not None and not self.asked.done()

    def _hurry(self) -> None:
        """It has waited for long enough."""
        turns, self._is_overdue = self._turns, True
        if turns is None:
            return
        if self._is_waiting:
            turns.enter(self)
        else:
            turns.changed()

    def begin(self) -> bool:
        """Its work has the loop from now on; False if that was known."""
        if self._since is not None:
            return False
        self._since = self._loop.time()
        self._go_on()
        return True

    def pause(self) -> None:
        """Its work leaves the loop to others."""
        if self._since is not None:
            self._seconds += self._loop.time() - self._since
            self._since = None
            if self._is_held:
                self._wait()

    def must_stop(self) -> asyncio.Future[None] | None:
        """What to wait for before its work may go on, if it has to wait."""
        if self._turns is None:
            return None
        if not self._is_held and not self._is_waiting:
            self._turns.queue(self)
        return self._turns.stop_for(self)

    def _wait(self) -> None:
        self._go_on()
        self._idle = self._loop.call_later(IDLE_SECONDS, self._leave)

    def _go_on(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _leave(self) -> None:
        self._idle = None
        if self._turns is not None and self._is_held:
            self._is_held = False
            self._turns.leave(self)

    def give_back(self) -> None:
        """Let the next one in, soon; called again it does nothing."""
        turns, self._turns = self._turns, None
        if turns is None:
            return
        if self._patience is not None:
            self._patience.cancel()
        self.pause()
        self._go_on()
        self._is_held = False
        if self.asked is not None:
            self.asked.cancel()  # which does nothing once it is done
        # An urgent request needs the loop a dozen times before it is with the engine. If the next
        # large one came at once, it would meet as many of them. The most urgent wait for nobody.
        rests = self.level > 0 and self._seconds > SHORT_SECONDS
        turns.release(self, min(REST * self._seconds, LONGEST_REST_SECONDS) if rests else 0.0)

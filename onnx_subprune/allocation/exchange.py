"""Exchange: narrow one group, widen another with what that saves, while the sum of the errors falls."""

from dataclasses import dataclass

import numpy as np

from onnx_subprune.allocation.descent import State

STRIDES = (1, 2, 4, 8, 16, 32)
"""How many steps a group is narrowed for another one."""
PASSES = 10
"""How often every group is tried."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Room `narrowed` goes to `place`, and room `widened` to `wider`; the sum of the errors falls by `gain`."""

    gain: float
    narrowed: int
    place: int
    widened: int
    wider: int


def widen(state: State, limit: float) -> None:
    """Widen rooms while anything fits below `limit`, the most error per cost first; ties to the first room."""
    closed: set[int] = set()
    while True:
        slack = limit - state.spent
        best: tuple[float, int, int] | None = None
        for number, place in enumerate(state.places):
            extra = state.changes(number)[place + 1 :]
            extra = extra[extra <= slack]
            if number in closed or not extra.size:
                continue
            errors = state.errors[number][place : place + 1 + len(extra)]
            rates = (errors[0] - errors[1:]) / np.maximum(extra, 1e-12)
            steps = int(np.argmax(rates))
            if best is None or rates[steps] > best[0]:
                best = (float(rates[steps]), number, place + 1 + steps)
        if best is None:
            return
        before = state.places[best[1]]
        state.move(best[1], best[2])
        if state.spent > limit:  # only by rounding
            state.move(best[1], before)
            closed.add(best[1])


def exchange(state: State, limit: float) -> None:
    """Swap while that helps; the state must be within `limit`, and stays there."""
    for _ in range(PASSES):
        swapped = [_try(state, limit, number) for number in range(len(state.places))]
        if not any(swapped):
            return


def _try(state: State, limit: float, narrowed: int) -> bool:
    swap = _best(state, limit, narrowed)
    if swap is None:
        return False
    before = state.places[swap.narrowed], state.places[swap.widened]
    state.move(swap.narrowed, swap.place)
    state.move(swap.widened, swap.wider)
    if state.spent > limit:  # only by rounding
        state.move(swap.narrowed, before[0])
        state.move(swap.widened, before[1])
        return False
    widen(state, limit)
    return True


def _best(state: State, limit: float, narrowed: int) -> Swap | None:
    """Return the swap that narrows this room and lowers the sum of the errors most."""
    numbers = range(len(state.places))
    now = np.array([state.errors[number][state.places[number]] for number in numbers])
    least = 1e-9 * float(now.sum())
    slack = limit - state.spent
    best: Swap | None = None
    for stride in STRIDES:
        place = state.places[narrowed] - stride
        if place < 0:
            break
        lost = float(state.errors[narrowed][place] - now[narrowed])
        if lost >= float(now.sum()):
            break
        room = slack - float(state.changes(narrowed)[place])
        for number in numbers:
            if number == narrowed or now[number] <= lost:
                continue
            near = number in state.near(narrowed)
            changes = state.changes_after(narrowed, place, number) if near else state.changes(number)
            wider = int(np.searchsorted(changes, room, side="right")) - 1
            gain = float(now[number] - state.errors[number][max(wider, 0)]) - lost
            if gain > max(least, best.gain if best else 0.0):
                best = Swap(gain, narrowed, place, number, wider)
    return best

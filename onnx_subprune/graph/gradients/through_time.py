"""One direction of a recurrent layer: gates of all steps at once, one scan back through time, then weights from all steps at once.

With g gates of H units, T steps of N samples and I features: what goes back through time is the gradient of the state, and in it those of the gates are
linear, with factors that are known before the scan begins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import TensorProto, helper

from onnx_subprune.graph.gradients.linear import product
from onnx_subprune.graph.gradients.tape import Tape

DATA, WEIGHT, RECURRENCE, BIAS, LENGTHS, HIDDEN, CELL, PEEPHOLES = range(8)
"""The inputs of a layer."""
Body = Callable[[Tape, list[str], list[str]], tuple[list[str], list[str]]]
"""From states and shares of a step to new states and what is put out."""


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a layer.

    x: data (T N, I). w, r: weights (g H, I), (g H, H). inner, outer: biases (g H) of w and of r, None where there are none. before: the states
    before each step (T N, H). grad: of the states (T, N, H). back: True if it reads its steps from the last to the first.
    """

    tape: Tape
    sizes: tuple[int, int, int]
    x: str
    w: str
    r: str
    inner: str | None
    outer: str | None
    before: str
    grad: str
    back: bool

    def gates(self) -> tuple[str, str]:
        """Return what data and states put into all gates (T N, g H)."""
        both = product(self.tape, self.x, self.w, (False, True)), product(self.tape, self.before, self.r, (False, True))
        first, second = (
            part if bias is None else self.tape.op("Add", part, bias)
            for part, bias in zip(both, (self.inner, self.outer), strict=True)
        )
        return first, second

    def gate(self, joined: str, number: int) -> str:
        """Return one gate (T N, H) of all."""
        size = self.sizes[2]
        return self.tape.cut(joined, [1], [number * size], [(number + 1) * size])

    def steps(self, tensor: str) -> str:
        """Return (T N, H) as (T, N, H)."""
        return self.tape.reshape(tensor, self.sizes)

    def rows(self, tensor: str, wide: int = 1) -> str:
        """Return (T, N, wide H) as (T N, wide H)."""
        return self.tape.reshape(tensor, (self.sizes[0] * self.sizes[1], wide * self.sizes[2]))

    def scan(self, carried: Sequence[str], read: Sequence[str], body: Body, *, ahead: bool = False) -> list[str]:
        """Return final states and what each step puts out, in order.

        read: (T, N, ...), a step's share of which `body` has beside the states; it returns new states and what is put out. ahead: in the order of time.
        """
        tape = self.tape
        inner = Tape({}, tape.opset, f"{tape.prefix}{len(tape.nodes)}/")
        states = [f"{inner.prefix}state {place}" for place in range(len(carried))]
        shares = [f"{inner.prefix}share {place}" for place in range(len(read))]
        new, out = body(inner, states, shares)
        outputs = [inner.op("Identity", name) for name in (*new, *out)]
        graph = helper.make_graph(
            inner.nodes,
            "step",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*states, *shares)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            inner.constants,
        )
        direction = int(ahead == self.back)
        return tape.several(
            "Scan",
            [*carried, *read],
            len(outputs),
            body=graph,
            num_scan_inputs=len(read),
            scan_input_directions=[direction] * len(read),
            scan_output_directions=[direction] * len(out),
        )

    def learned(self, inner: str, outer: str, pairs: Sequence[tuple[str, str]]) -> dict[int, str]:
        """Return the gradients of data, weights and biases, from those of the gates.

        inner, outer: gradients (T N, g H) of what data and states put into the gates. pairs: gradients of the latter, with what the rows of r met.
        """
        tape = self.tape
        rows = [product(tape, grad, met, (True, False)) for grad, met in pairs]
        found = {
            DATA: product(tape, inner, self.w),
            WEIGHT: product(tape, inner, self.x, (True, False)),
            RECURRENCE: rows[0] if len(rows) == 1 else tape.op("Concat", *rows, axis=0),
        }
        if self.inner is not None:
            found[BIAS] = tape.op("Concat", tape.total(inner, [0]), tape.total(outer, [0]), axis=0)
        return found


def rnn(way: Way, state: str) -> dict[int, str]:
    """RNN: h = tanh(x w + h' r)."""
    tape = way.tape
    own = tape.op("Tanh", tape.op("Add", *way.gates()))
    slope = way.steps(_slope(tape, own))

    def body(tape: Tape, states: list[str], shares: list[str]) -> tuple[list[str], list[str]]:
        grad = tape.op("Mul", tape.op("Add", states[0], shares[0]), shares[1])
        return [tape.op("MatMul", grad, way.r)], [grad]

    first, made = way.scan([state], [way.grad, slope], body)
    grads = way.rows(made)
    return {**way.learned(grads, grads, [(grads, way.before)]), HIDDEN: first}


def gru(way: Way, state: str, *, late: bool) -> dict[int, str]:
    """GRU: h = (1 - z) n + z h'. late: the reset gate comes behind the product (linear_before_reset)."""
    tape = way.tape
    data, states = way.gates()
    update, reset = (tape.op("Sigmoid", tape.op("Add", way.gate(data, k), way.gate(states, k))) for k in (0, 1))
    size = way.sizes[2]
    own_r = tape.cut(way.r, [0], [2 * size], [3 * size])
    held = way.gate(states, 2)
    passed = tape.op("Mul", reset, way.before)
    if late:
        inside = tape.op("Mul", reset, held)
    else:
        inside = product(tape, passed, own_r, (False, True))
        if way.outer is not None:
            inside = tape.op("Add", inside, tape.cut(way.outer, [0], [2 * size], [3 * size]))
    new = tape.op("Tanh", tape.op("Add", way.gate(data, 2), inside))
    keeps = tape.op("Sub", tape.number(1), update)
    by_update = tape.op("Mul", tape.op("Sub", way.before, new), tape.op("Mul", update, keeps))
    by_new = tape.op("Mul", keeps, _slope(tape, new))
    by_reset = tape.op(
        "Mul", tape.op("Mul", reset, tape.op("Sub", tape.number(1), reset)), held if late else way.before
    )
    two_r = tape.cut(way.r, [0], [0], [2 * size])

    def body(tape: Tape, states: list[str], shares: list[str]) -> tuple[list[str], list[str]]:
        above, update, by_update, by_new, by_reset, reset = shares
        grad = tape.op("Add", states[0], above)
        z, n = tape.op("Mul", grad, by_update), tape.op("Mul", grad, by_new)
        behind = n if late else tape.op("MatMul", n, own_r)
        r = tape.op("Mul", behind, by_reset)
        straight = tape.op("Mul", grad, update)
        if late:
            back = tape.op("MatMul", tape.op("Concat", z, r, tape.op("Mul", n, reset), axis=1), way.r)
        else:
            through = tape.op("MatMul", tape.op("Concat", z, r, axis=1), two_r)
            back = tape.op("Add", through, tape.op("Mul", behind, reset))
        return [tape.op("Add", straight, back)], [tape.op("Concat", z, r, n, axis=1)]

    parts = [way.steps(name) for name in (update, by_update, by_new, by_reset, reset)]
    first, made = way.scan([state], [way.grad, *parts], body)
    inner = way.rows(made, 3)
    both, last = tape.cut(inner, [1], [0], [2 * size]), way.gate(inner, 2)
    if not late:
        return {**way.learned(inner, inner, [(both, way.before), (last, passed)]), HIDDEN: first}
    outer = tape.op("Concat", both, tape.op("Mul", last, reset), axis=1)
    return {**way.learned(inner, outer, [(outer, way.before)]), HIDDEN: first}


def lstm(way: Way, state: str, cell: str, last: str) -> dict[int, str]:
    """LSTM: c = f c' + i g, h = o tanh(c). cell: the first cells; last: the gradient of the final ones."""
    tape = way.tape
    joined = tape.op("Add", *way.gates())
    into, out, keep = (tape.op("Sigmoid", way.gate(joined, k)) for k in (0, 1, 2))
    new = tape.op("Tanh", way.gate(joined, 3))

    def forth(tape: Tape, states: list[str], shares: list[str]) -> tuple[list[str], list[str]]:
        found = tape.op("Add", tape.op("Mul", states[0], shares[0]), shares[1])
        return [found], [states[0], found]

    _, before, after = way.scan([cell], [way.steps(keep), way.steps(tape.op("Mul", into, new))], forth, ahead=True)
    bent = tape.op("Tanh", way.rows(after))
    one = tape.number(1)

    def leaning(gate: str) -> str:
        return tape.op("Mul", gate, tape.op("Sub", one, gate))

    factors = [
        keep,
        tape.op("Mul", out, _slope(tape, bent)),
        tape.op("Mul", new, leaning(into)),
        tape.op("Mul", bent, leaning(out)),
        tape.op("Mul", way.rows(before), leaning(keep)),
        tape.op("Mul", into, _slope(tape, new)),
    ]

    def body(tape: Tape, states: list[str], shares: list[str]) -> tuple[list[str], list[str]]:
        above, keep, bending, by_in, by_out, by_keep, by_new = shares
        grad = tape.op("Add", states[0], above)
        cells = tape.op("Add", states[1], tape.op("Mul", grad, bending))
        pairs = ((cells, by_in), (grad, by_out), (cells, by_keep), (cells, by_new))
        found = tape.op("Concat", *(tape.op("Mul", *pair) for pair in pairs), axis=1)
        return [tape.op("MatMul", found, way.r), tape.op("Mul", cells, keep)], [found]

    first, first_cell, made = way.scan([state, last], [way.grad, *map(way.steps, factors)], body)
    grads = way.rows(made, 4)
    return {**way.learned(grads, grads, [(grads, way.before)]), HIDDEN: first, CELL: first_cell}


def _slope(tape: Tape, bent: str) -> str:
    """1 - tanh²."""
    return tape.op("Sub", tape.number(1), tape.op("Mul", bent, bent))

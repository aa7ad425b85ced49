"""Recognises groups of primitive operators that ONNX has a single operator for, and removes redundant ones."""

import math

import numpy as np

from emokd.exporting.graph import Graph, Node

_SMALL = 16  # constants with fewer entries than this are compared, to merge equal ones


def name_operators(graph: Graph) -> None:
    """Replaces written-out means, softmax, layer norms, GELU, ReLU6 and average pooling by one operator each."""
    for rewrite in (_means, _reshapes, _kept_axes, _softmax, _layer_norm, _gelu, _clip, _average_pools, _global_pools):
        rewrite(graph)
        graph.sort()


def simplify(graph: Graph) -> None:
    """Removes reshapes that change nothing or precede another reshape, and computations that are done twice."""
    _reshapes(graph)
    graph.sort()
    _repetitions(graph)
    graph.sort()


def _repetitions(graph: Graph) -> None:
    """Merges nodes with the same operator, inputs and attributes (common subexpressions)."""
    same: dict[tuple, str] = {}
    for name, array in graph.constants.items():
        if array.size < _SMALL:
            key = (graph.dtypes[name], array.shape, array.tobytes())
            if key in same:
                graph.replace(name, same[key])
            same.setdefault(key, name)
    for node in graph.nodes:
        known = (node.op, *node.inputs, repr(sorted(node.attributes.items())))
        if known in same:
            graph.replace(node.outputs[0], same[known])
        same.setdefault(known, node.outputs[0])


def _made_by(producers: dict[str, Node], name: str, op: str) -> Node | None:
    node = producers.get(name)
    return node if node is not None and node.op == op else None


def _pairs(node: Node) -> tuple[tuple[str, str], tuple[str, str]]:
    """The two operands in both orders."""
    a, b = node.inputs
    return (a, b), (b, a)


def _axes(graph: Graph, node: Node) -> list[int]:
    return [int(axis) for axis in graph.constants[node.inputs[1]]]


def _means(graph: Graph) -> None:
    """ReduceMean: a sum divided by the number of its terms."""
    producers = graph.producers()
    for node in graph.nodes:
        if node.op == "Div" and (total := _made_by(producers, node.inputs[0], "ReduceSum")):
            terms = math.prod(graph.shapes[total.inputs[0]][axis] for axis in _axes(graph, total))
            if graph.scalar(node.inputs[1]) == terms:
                node.op, node.inputs, node.attributes = "ReduceMean", list(total.inputs), dict(total.attributes)


def _reshapes(graph: Graph) -> None:
    producers = graph.producers()
    for node in graph.nodes:
        if node.op == "Reshape":
            while inner := _made_by(producers, node.inputs[0], "Reshape"):
                node.inputs[0] = inner.inputs[0]
    for node in graph.nodes:
        if node.op == "Reshape" and graph.shapes[node.inputs[0]] == graph.shapes[node.outputs[0]]:
            graph.replace(node.outputs[0], node.inputs[0])


def _kept_axes(graph: Graph) -> None:
    """keepdims: a reduction followed by a reshape that restores its axes with size 1."""
    producers = graph.producers()
    for node in graph.nodes:
        inner = producers.get(node.inputs[0]) if node.op == "Reshape" else None
        if inner is not None and inner.op.startswith("Reduce") and not inner.attributes["keepdims"]:
            axes = _axes(graph, inner)
            kept = tuple(1 if i in axes else size for i, size in enumerate(graph.shapes[inner.inputs[0]]))
            if kept == graph.shapes[node.outputs[0]]:
                node.op, node.inputs, node.attributes = inner.op, list(inner.inputs), {"keepdims": 1}


def _softmax(graph: Graph) -> None:
    """Softmax: exp(x - m) divided by its sum along the last axis, for any m that is constant along that axis."""
    producers = graph.producers()
    for node in graph.nodes:
        total = _made_by(producers, node.inputs[1], "ReduceSum") if node.op == "Div" else None
        exponential = _made_by(producers, node.inputs[0], "Exp") if total else None
        if total is None or exponential is None or total.inputs[0] != node.inputs[0]:
            continue
        rank = len(graph.shapes[node.inputs[0]])
        shifted = _made_by(producers, exponential.inputs[0], "Sub")
        if shifted and _axes(graph, total) == [rank - 1] and graph.shapes[shifted.inputs[1]][-1:] == (1,):
            node.op, node.inputs, node.attributes = "Softmax", [shifted.inputs[0]], {"axis": -1}


def _layer_norm(graph: Graph) -> None:
    """LayerNormalization: (x - mean) * (rsqrt(var + epsilon) * scale) + bias over the last axis."""
    producers = graph.producers()

    def mean_of(name: str) -> str:
        node = _made_by(producers, name, "ReduceMean")
        if node is None or _axes(graph, node) != [len(graph.shapes[node.inputs[0]]) - 1]:
            return ""
        return node.inputs[0]

    def centred(name: str) -> str:
        """x of x - mean(x)."""
        node = _made_by(producers, name, "Sub")
        return node.inputs[0] if node and mean_of(node.inputs[1]) == node.inputs[0] else ""

    def match(node: Node) -> tuple[str, str, float, str] | None:
        for product, bias in _pairs(node):
            multiply = _made_by(producers, product, "Mul")
            if multiply is None or bias not in graph.constants:
                continue
            for difference, factor in _pairs(multiply):
                source, scaled = centred(difference), _made_by(producers, factor, "Mul")
                if not source or scaled is None:
                    continue
                for inverse, scale in _pairs(scaled):
                    epsilon = variance_of(inverse, source)
                    if epsilon is not None and scale in graph.constants:
                        return source, scale, epsilon, bias
        return None

    def variance_of(inverse: str, source: str) -> float | None:
        """Epsilon, where `inverse` is rsqrt(mean((x - mean(x))^2) + epsilon) of `source`."""
        reciprocal = _made_by(producers, inverse, "Reciprocal")
        root = _made_by(producers, reciprocal.inputs[0], "Sqrt") if reciprocal else None
        total = _made_by(producers, root.inputs[0], "Add") if root else None
        for variance, epsilon in _pairs(total) if total else ():
            squares = _made_by(producers, mean_of(variance), "Mul")
            if squares and squares.inputs[0] == squares.inputs[1] and centred(squares.inputs[0]) == source:
                return graph.scalar(epsilon)
        return None

    for node in graph.nodes:
        if node.op == "Add" and (found := match(node)):
            source, scale, epsilon, bias = found
            width = graph.shapes[source][-1:]
            weights = [graph.constants[name].reshape(-1) for name in (scale, bias)]
            if all(array.shape == width for array in weights):
                node.op, node.attributes = "LayerNormalization", {"axis": -1, "epsilon": epsilon}
                node.inputs = [source, *map(graph.constant, weights)]


def _gelu(graph: Graph) -> None:
    """Gelu: x / 2 * (1 - erf(-x / sqrt 2))."""
    producers = graph.producers()

    def scaled(name: str) -> tuple[str, float]:
        """(x, k) of k * x."""
        factor = 1.0
        while (node := producers.get(name)) is not None:
            number = graph.scalar(node.inputs[-1]) if node.op == "Mul" else None
            first = graph.scalar(node.inputs[0]) if node.op == "Mul" else None
            if node.op == "Neg":
                name, factor = node.inputs[0], -factor
            elif number is not None:
                name, factor = node.inputs[0], factor * number
            elif first is not None:
                name, factor = node.inputs[1], factor * first
            else:
                break
        return name, factor

    for node in graph.nodes:
        for half, tail in _pairs(node) if node.op == "Mul" else ():
            complement = _made_by(producers, tail, "Sub")
            error = _made_by(producers, complement.inputs[1], "Erf") if complement else None
            if complement is None or error is None or graph.scalar(complement.inputs[0]) != 1:
                continue
            (source, a), (other, b) = scaled(half), scaled(error.inputs[0])
            if source == other and math.isclose(a, 0.5) and math.isclose(b, -math.sqrt(0.5), rel_tol=1e-6):
                node.op, node.inputs = "Gelu", [source]
                break


def _clip(graph: Graph) -> None:
    """Clip: min(relu(x), c) or min(max(x, b), c). Runtimes fuse a Clip with the convolution before it, not a pair."""
    producers = graph.producers()

    def bounded_below(name: str) -> tuple[str, float] | None:
        node = producers.get(name)
        if node is not None and node.op == "Relu":
            return node.inputs[0], 0.0
        for value, bound in _pairs(node) if node is not None and node.op == "Max" else ():
            if (number := graph.scalar(bound)) is not None:
                return value, number
        return None

    for node in graph.nodes:
        for value, bound in _pairs(node) if node.op == "Min" else ():
            below, high = bounded_below(value), graph.scalar(bound)
            if below is not None and high is not None:
                limits = [graph.constant(np.asarray(limit, graph.dtypes[value])) for limit in (below[1], high)]
                node.op, node.inputs = "Clip", [below[0], *limits]
                break


def _average_pools(graph: Graph) -> None:
    """AveragePool: a sum over windows divided by the window's size, or by the number of its entries inside the map."""
    producers = graph.producers()
    for node in graph.nodes:
        pool = _made_by(producers, node.inputs[0], "SumPool") if node.op == "Div" else None
        divisor = graph.constants.get(node.inputs[1]) if pool else None
        if pool is None or divisor is None:
            continue
        sizes = graph.shapes[pool.inputs[0]][1:-1]
        for include, counts in ((1, math.prod(pool.attributes["kernel_shape"])), (0, _entries(pool, sizes))):
            if divisor.size == np.size(counts) and np.array_equal(divisor.reshape(np.shape(counts)), counts):
                node.op, node.inputs = "AveragePool", list(pool.inputs)
                node.attributes = {**pool.attributes, "count_include_pad": include}
                break


def _entries(pool: Node, sizes: tuple[int, ...]) -> np.ndarray:
    """The number of entries inside the map for each window."""
    counts = np.ones((), np.float32)
    for axis, size in enumerate(sizes):
        window, stride = pool.attributes["kernel_shape"][axis], pool.attributes["strides"][axis]
        low, high = pool.attributes["pads"][axis], pool.attributes["pads"][axis + len(sizes)]
        starts = np.arange(0, size + low + high - window + 1, stride) - low
        held = np.minimum(starts + window, size) - np.maximum(starts, 0)
        counts = np.multiply.outer(counts, held)
    return counts


def _global_pools(graph: Graph) -> None:
    """GlobalAveragePool: means over all positions of maps."""
    for node in list(graph.nodes):
        if node.op != "ReduceMean" or _axes(graph, node) != list(range(1, len(graph.shapes[node.inputs[0]]) - 1)):
            continue
        shape, kept = graph.shapes[node.inputs[0]], node.attributes["keepdims"]
        if len(shape) < 4:
            continue
        if kept:
            node.op, node.inputs, node.attributes = "GlobalAveragePool", node.inputs[:1], {}
            continue
        pooled = graph.add(
            "GlobalAveragePool", node.inputs[:1], (shape[0], *[1] * (len(shape) - 2), shape[-1]), np.float32
        )
        target = graph.constant(np.asarray(graph.shapes[node.outputs[0]], np.int64))
        node.op, node.inputs, node.attributes = "Reshape", [pooled, target], {}

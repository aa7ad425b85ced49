"""Folds scales and shifts of channels, such as BatchNorm in evaluation, into the products before or after them.

The folded constants are computed in float64, so that folding costs no accuracy. [ours]
"""

import numpy as np

from emokd.exporting.graph import Graph, Node

PRODUCTS = ("Conv", "Linear")


def fold_affine(graph: Graph) -> None:
    """Merges each chain of scales and shifts into one `Affine`, and folds that into a product where possible."""
    for node in graph.nodes:
        _recognise(graph, node)
    while any(rewrite(graph) for rewrite in (_merge, _into_product_before, _into_product_after, _residual)):
        graph.sort()


def _recognise(graph: Graph, node: Node) -> None:
    """Turns arithmetic with one constant per channel, or one for all channels, into an Affine."""
    output = node.outputs[0]
    if node.op not in ("Add", "Sub", "Mul", "Div", "Neg") or graph.dtypes[output] != np.float32:
        return
    if node.op == "Neg":
        _become(node, node.inputs[0], np.float64(-1), np.float64(0))
        return
    left, right = node.inputs
    first = left in graph.constants
    source, array = (right, graph.constants[left]) if first else (left, graph.constants.get(right))
    if array is None or graph.shapes[source] != graph.shapes[output] or (first and node.op == "Div"):
        return
    if array.size != 1 and array.shape[-1:] != (array.size,):
        return
    values = array.astype(np.float64).reshape(-1) if array.size != 1 else np.float64(array.item())
    if node.op == "Add":
        _become(node, source, np.float64(1), values)
    elif node.op == "Sub":
        _become(node, source, np.float64(-1 if first else 1), values if first else -values)
    else:
        _become(node, source, 1 / values if node.op == "Div" else values, np.float64(0))


def _become(node: Node, source: str, scale, shift) -> None:
    node.op, node.inputs, node.attributes = "Affine", [source], {"scale": scale, "shift": shift}


def _only_reader(graph: Graph, users: dict[str, list[Node]], name: str) -> bool:
    return len(users[name]) == 1 and name not in graph.outputs.values()


def _merge(graph: Graph) -> bool:
    producers, users = graph.producers(), graph.users()
    for node in graph.nodes:
        inner = producers.get(node.inputs[0]) if node.op == "Affine" else None
        if inner is not None and inner.op == "Affine" and _only_reader(graph, users, node.inputs[0]):
            scale, shift = node.attributes["scale"], node.attributes["shift"]
            _become(node, inner.inputs[0], scale * inner.attributes["scale"], scale * inner.attributes["shift"] + shift)
            return True
    return False


def _into_product_before(graph: Graph) -> bool:
    """Folds scale * (W x + b) + shift into W and b."""
    producers, users = graph.producers(), graph.users()
    for node in graph.nodes:
        product = producers.get(node.inputs[0]) if node.op == "Affine" else None
        if product is None or product.op not in PRODUCTS or not _only_reader(graph, users, node.inputs[0]):
            continue
        weights, bias = (graph.constants[name].astype(np.float64) for name in product.inputs[1:])
        scale = np.broadcast_to(node.attributes["scale"], bias.shape)
        axis = 0 if product.op == "Conv" else 1
        weights = weights * scale.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
        _weigh(graph, product, weights, bias * scale + node.attributes["shift"])
        graph.replace(node.outputs[0], product.outputs[0])
        return True
    return False


def _into_product_after(graph: Graph) -> bool:
    """Folds W (scale * x + shift) + b into W and b.

    A padded convolution takes no shift, because its padding zeros are not shifted.
    """
    producers, users = graph.producers(), graph.users()
    for node in graph.nodes:
        affine = producers.get(node.inputs[0]) if node.op in PRODUCTS else None
        if affine is None or affine.op != "Affine" or not _only_reader(graph, users, node.inputs[0]):
            continue
        weights, bias = (graph.constants[name].astype(np.float64) for name in node.inputs[1:])
        shift = affine.attributes["shift"]
        if any(node.attributes.get("pads", ())) and np.any(shift):
            continue
        groups = node.attributes.get("group", 1)
        channels = weights.shape[1] * groups if node.op == "Conv" else weights.shape[0]
        scale, shift = (np.broadcast_to(affine.attributes[name], channels) for name in ("scale", "shift"))
        if node.op == "Conv":
            # Input i of output channel o is channel i of o's group.
            of_output = np.arange(weights.shape[0]) // (weights.shape[0] // groups)
            scale, shift = (v.reshape(groups, -1)[of_output] for v in (scale, shift))
            extra = [1] * (weights.ndim - 2)
            bias = bias + (weights * shift.reshape(*shift.shape, *extra)).sum(tuple(range(1, weights.ndim)))
            weights = weights * scale.reshape(*scale.shape, *extra)
        else:
            bias, weights = bias + shift @ weights, weights * scale[:, None]
        _weigh(graph, node, weights, bias)
        node.inputs[0] = affine.inputs[0]
        return True
    return False


def _weigh(graph: Graph, product: Node, weights: np.ndarray, bias: np.ndarray) -> None:
    product.inputs[1:] = [graph.constant(array, np.float32) for array in (weights, bias)]


def _residual(graph: Graph) -> bool:
    """Rewrites x + (scale * (p - x) + shift) as (scale * p + shift) + (1 - scale) * x, without the difference."""
    producers, users = graph.producers(), graph.users()
    for node in graph.nodes:
        for source, name in (node.inputs, node.inputs[::-1]) if node.op == "Add" else ():
            affine = producers.get(name)
            difference = producers.get(affine.inputs[0]) if affine is not None and affine.op == "Affine" else None
            if affine is None or difference is None or difference.op != "Sub" or difference.inputs[1] != source:
                continue
            if not (_only_reader(graph, users, name) and _only_reader(graph, users, affine.inputs[0])):
                continue
            shape, (scale, shift) = graph.shapes[source], (affine.attributes[k] for k in ("scale", "shift"))
            parts = [
                graph.add("Affine", [difference.inputs[0]], shape, scale=scale, shift=shift),
                graph.add("Affine", [source], shape, scale=1 - scale, shift=np.float64(0)),
            ]
            node.inputs = parts
            return True
    return False

"""ONNX, written by emokd from the network's jaxpr and run in ONNX Runtime."""

import emokd
from emokd.exporting.formats.format import Format, Request, Written
from emokd.exporting.half import to_half
from emokd.exporting.quantisation import is_trained, quantise, write_trained
from emokd.exporting.session import Session
from emokd.exporting.student import Student, create_graph
from emokd.exporting.writing import to_model


def _write(request: Request) -> Written:
    graph, notes = create_graph(request.student), {}
    if request.precision == "float16":
        to_half(graph)
    elif request.precision == "int8":
        trained = is_trained(graph)
        notes = write_trained(graph) if trained else quantise(graph, request.student, request.calibration())
    return Written(to_model(graph, emokd.__version__).SerializeToString(), notes)


def _open(student: Student, content: bytes, suffix: str) -> Session:
    del student, suffix
    return Session(content)


FORMAT = Format(
    name="onnx",
    file="model.onnx",
    suffixes=(".onnx",),
    library="onnx",
    precisions=("float32", "float16", "int8"),
    channels_first=True,
    takes_raw=True,
    write=_write,
    open=_open,
)

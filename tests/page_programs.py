"""A process of node that runs the programs of the report's form, and files of one operator."""

import base64
import json
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import onnx
import pytest

from cnf.export import OPSET
from cnf.report.templates import asset

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node here: apt-get install nodejs")
# Answers a line of a graph and its rows, if it takes any, by a line of the outputs of each row.
LINES = """
const onnx = new Function(process.argv[1] + "; return onnx")();
const floats = (text) => new Float64Array(Uint8Array.from(Buffer.from(text, "base64")).buffer);
const text = (data) => Buffer.from(data.slice().buffer).toString("base64");
const told = ({ data, shape }) => [data.constructor.name, shape, text(data)];
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { graph, rows, width } = JSON.parse(line), run = onnx(graph), data = floats(rows);
  const row = (i) => ({ data: data.slice(i * width, (i + 1) * width), shape: [1, width] });
  const count = width ? data.length / width : 1;
  const found = Array.from({ length: count }, (_, i) => run(row(i)).map(told));
  console.log(JSON.stringify(found));
});
"""
TYPES = {"Float32Array": "<f4", "Float64Array": "<f8", "Int32Array": "<i4", "Uint8Array": "|u1"}
NO_ROWS = np.zeros((0, 0))


class Interpreter:
    """A process of node that runs onnx.js."""

    def __init__(self):
        command = [NODE, "-e", LINES, asset("onnx.js")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, graph, rows=NO_ROWS):
        """What the graph answers, each output (rows, ...); once for a graph without inputs."""
        text = base64.b64encode(rows.astype("<f8").tobytes()).decode()
        asked = json.dumps({"graph": graph, "rows": text, "width": rows.shape[1]})
        print(asked, file=self.process.stdin, flush=True)
        answers = json.loads(self.process.stdout.readline())
        return [np.stack([read(*output) for output in outputs]) for outputs in zip(*answers)]


def read(kind, shape, text):
    return np.frombuffer(base64.b64decode(text), TYPES[kind]).reshape(shape)


@contextmanager
def interpreting():
    """A process, ended after the block."""
    found = Interpreter()
    yield found
    found.process.stdin.close()
    assert found.process.wait(10) == 0
    found.process.stdout.close()


def model_of(operator, inputs, attributes, outputs):
    """A file of one node, whose inputs are constants."""
    names = [f"x{i}" for i in range(len(inputs))]
    constants = [onnx.numpy_helper.from_array(np.asarray(x), n) for x, n in zip(inputs, names)]
    found = [f"y{i}" for i in range(outputs)]
    node = onnx.helper.make_node(operator, names, found, **attributes)
    told = [onnx.helper.make_empty_tensor_value_info(name) for name in found]
    return saved([node], [], told, constants)


def saved(nodes, inputs, outputs, constants):
    graph = onnx.helper.make_graph(nodes, "one", inputs, outputs, constants)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)

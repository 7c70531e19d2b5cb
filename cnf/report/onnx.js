"use strict";
// Programs of ONNX, written as JSON by `cnf.export.graph`, on small tensors. A tensor is { data, shape }; the class
// of its typed array is its type, so that single precision rounds where a result is stored.
const onnx = (() => {
  const BOOL = 9;
  const TYPES = { 1: Float32Array, 7: Int32Array, [BOOL]: Uint8Array, 11: Float64Array };

  const ZERO = [1, [1], "AAAAAA=="]; // in single precision

  const size = (shape) => shape.reduce((product, length) => product * length, 1);
  const typeOf = (x) => x.data.constructor;
  const range = (length) => [...Array(length).keys()];
  const times = (count, value) => Array(count).fill(value);
  const place = (axis, rank) => (axis < 0 ? axis + rank : axis);
  const places = (axes, rank) => Array.from(axes.data, (axis) => place(axis, rank));

  // How far apart elements lie along each axis.
  function strides(shape) {
    const found = times(shape.length, 1);
    for (let axis = shape.length - 2; axis >= 0; axis--) found[axis] = found[axis + 1] * shape[axis + 1];
    return found;
  }

  // The tensor of a shape whose elements lie so far apart in the data, from a first one.
  function strided({ data }, shape, apart, first = 0) {
    const found = new data.constructor(size(shape));
    const at = times(shape.length, 0);
    for (let i = 0, from = first; i < found.length; i++) {
      found[i] = data[from];
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        from += apart[axis];
        if (++at[axis] < shape[axis]) break;
        from -= apart[axis] * shape[axis];
        at[axis] = 0;
      }
    }
    return { data: found, shape };
  }

  // ---- element by element

  function common(shapes) {
    const rank = Math.max(...shapes.map((shape) => shape.length));
    return range(rank).map((axis) =>
      shapes.map((shape) => shape[axis - rank + shape.length] ?? 1).find((length) => length !== 1) ?? 1);
  }

  function expand(x, wanted) {
    const shape = common([x.shape, wanted]);
    if (size(shape) === x.data.length) return { data: x.data, shape };
    const full = [...times(shape.length - x.shape.length, 1), ...x.shape];
    return strided(x, shape, strides(full).map((stride, axis) => (full[axis] === 1 ? 0 : stride)));
  }

  // An operator of a function of one to three numbers; its type is that of the first input unless another is given.
  function each(f, Type) {
    return (inputs) => {
      const shape = common(inputs.map((x) => x.shape));
      const [a, b = a, c = a] = inputs.map((x) => expand(x, shape).data);
      const data = new (Type ?? typeOf(inputs[0]))(size(shape));
      for (let i = 0; i < data.length; i++) data[i] = f(a[i], b[i], c[i]);
      return { data, shape };
    };
  }

  const asked = (f) => each(f, Uint8Array);
  const toEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
  const clip = each((x, low, high) => Math.min(Math.max(x, low), high));
  const scalar = (value) => ({ data: [value], shape: [] });

  function cast([x], { to }) {
    return { data: TYPES[to].from(x.data, to === BOOL ? (value) => value !== 0 : undefined), shape: x.shape };
  }

  // ---- along axes

  function reduced(f) {
    return ([x, axes], { keepdims = 1, noop_with_empty_axes = 0 }) => {
      const all = range(x.shape.length), apart = strides(x.shape);
      const unnamed = noop_with_empty_axes ? [] : all;
      const gone = axes?.data.length ? places(axes, all.length) : unnamed;
      const order = [...all.filter((axis) => !gone.includes(axis)), ...gone];
      const rows = strided(x, order.map((axis) => x.shape[axis]), order.map((axis) => apart[axis])).data;
      const shape = all.flatMap((axis) => (!gone.includes(axis) ? x.shape[axis] : keepdims ? 1 : []));
      const data = new (typeOf(x))(size(shape)), length = rows.length / data.length;
      for (let i = 0; i < data.length; i++) data[i] = f(Array.from(rows.subarray(i * length, (i + 1) * length)));
      return { data, shape };
    };
  }

  const sum = (values) => values.reduce((total, value) => total + value, 0);

  function logSumExp(values) {
    const peak = Math.max(...values);
    return Math.abs(peak) === Infinity ? peak : peak + Math.log(sum(values.map((value) => Math.exp(value - peak))));
  }

  function cumulative([x, along], { exclusive = 0, reverse = 0 }) {
    const axis = place(along.data[0], x.shape.length), length = x.shape[axis], stride = strides(x.shape)[axis];
    const data = x.data.slice();
    for (let i = 0; i < data.length; i++) {
      const at = Math.floor(i / stride) % length;
      const lines = range(length).filter((k) => (reverse ? k >= at : k <= at) && !(exclusive && k === at));
      data[i] = sum(lines.map((k) => x.data[i + (k - at) * stride]));
    }
    return { data, shape: x.shape };
  }

  // ---- shapes

  function reshape([x, wanted], { allowzero = 0 }) {
    const shape = Array.from(wanted.data, (length, axis) => (length === 0 && !allowzero ? x.shape[axis] : length));
    const known = size(shape.filter((length) => length !== -1));
    return { data: x.data, shape: shape.map((length) => (length === -1 ? x.data.length / known : length)) };
  }

  function squeeze([x, axes]) {
    const gone = axes ? places(axes, x.shape.length) : range(x.shape.length).filter((axis) => x.shape[axis] === 1);
    return { data: x.data, shape: x.shape.filter((_, axis) => !gone.includes(axis)) };
  }

  function unsqueeze([x, axes]) {
    const rank = x.shape.length + axes.data.length, lengths = [...x.shape], added = places(axes, rank);
    return { data: x.data, shape: range(rank).map((axis) => (added.includes(axis) ? 1 : lengths.shift())) };
  }

  function transpose([x], { perm = range(x.shape.length).reverse() }) {
    const apart = strides(x.shape);
    return strided(x, perm.map((axis) => x.shape[axis]), perm.map((axis) => apart[axis]));
  }

  function shapeOf([x], { start = 0, end }) {
    const data = Int32Array.from(x.shape.slice(start, end));
    return { data, shape: [data.length] };
  }

  // ---- parts

  function slice([x, starts, ends, axes, jumps]) {
    const shape = [...x.shape], apart = strides(shape);
    let first = 0;
    starts.data.forEach((start, k) => {
      const axis = place(axes ? axes.data[k] : k, shape.length), jump = jumps ? jumps.data[k] : 1, length = shape[axis];
      const clamped = (at, low, high) => Math.min(Math.max(place(at, length), low), high);
      const forward = jump > 0;
      const from = forward ? clamped(start, 0, length) : clamped(start, 0, length - 1);
      const to = forward ? clamped(ends.data[k], 0, length) : clamped(ends.data[k], -1, length - 1);
      shape[axis] = Math.max(0, Math.ceil((to - from) / jump));
      first += from * apart[axis];
      apart[axis] *= jump;
    });
    return strided(x, shape, apart, first);
  }

  function split([x, lengths], { axis = 0 }) {
    const along = place(axis, x.shape.length), apart = strides(x.shape);
    let start = 0;
    return Array.from(lengths.data, (length) => {
      const part = strided(x, x.shape.with(along, length), apart, start * apart[along]);
      start += length;
      return part;
    });
  }

  function concat(parts, { axis }) {
    const [{ shape: first }] = parts, along = place(axis, first.length), outer = size(first.slice(0, along));
    const shape = first.with(along, sum(parts.map((part) => part.shape[along])));
    const data = new (typeOf(parts[0]))(size(shape));
    let to = 0;
    for (let i = 0; i < outer; i++) {
      for (const part of parts) {
        const length = part.data.length / outer;
        data.set(part.data.subarray(i * length, (i + 1) * length), to);
        to += length;
      }
    }
    return { data, shape };
  }

  function gather([x, index], { axis = 0 }) {
    const along = place(axis, x.shape.length), inner = size(x.shape.slice(along + 1)), length = x.shape[along];
    const shape = [...x.shape.slice(0, along), ...index.shape, ...x.shape.slice(along + 1)];
    const data = new (typeOf(x))(size(shape)), count = index.data.length;
    for (let i = 0; i < data.length; i++) {
      const outer = Math.floor(i / (count * inner)), at = index.data[Math.floor(i / inner) % count];
      data[i] = x.data[(outer * length + place(at, length)) * inner + (i % inner)];
    }
    return { data, shape };
  }

  function gatherElements([x, index], { axis = 0 }) {
    const along = place(axis, x.shape.length), apart = strides(x.shape), within = strides(index.shape);
    const from = (at, i) => sum(apart.map((stride, k) =>
      stride * (k === along ? place(at, x.shape[k]) : Math.floor(i / within[k]) % index.shape[k])));
    return { data: typeOf(x).from(index.data, (at, i) => x.data[from(at, i)]), shape: index.shape };
  }

  // ---- products of matrices

  function matmul([a, b]) {
    const [rows, inner] = [1, ...a.shape].slice(-2), columns = b.shape.length > 1 ? b.shape.at(-1) : 1;
    const batch = common([a.shape.slice(0, -2), b.shape.slice(0, -2)]);
    const left = expand(a, [...batch, rows, inner]).data;
    const right = b.shape.length > 1 ? expand(b, [...batch, inner, columns]).data : b.data;
    const shape = [...batch, ...(a.shape.length > 1 ? [rows] : []), ...(b.shape.length > 1 ? [columns] : [])];
    const data = new (typeOf(a))(size(shape));
    for (let i = 0; i < data.length; i++) {
      const row = Math.floor(i / columns);
      const first = right.length > inner * columns ? Math.floor(row / rows) * inner * columns : 0;
      let total = 0;
      for (let k = 0; k < inner; k++) total += left[row * inner + k] * right[first + k * columns + (i % columns)];
      data[i] = total;
    }
    return { data, shape };
  }

  function gemm([a, b, c], { alpha = 1, beta = 1, transA = 0, transB = 0 }) {
    const product = matmul([transA ? transpose([a], {}) : a, transB ? transpose([b], {}) : b]);
    return each((x, y) => alpha * x + beta * y)([product, c ?? scalar(0)]);
  }

  // ---- loops and graphs

  function scan(inputs, { body, num_scan_inputs }, outer) {
    const along = inputs.slice(-num_scan_inputs), told = [];
    let states = inputs.slice(0, -num_scan_inputs);
    for (let k = 0; k < along[0].shape[0]; k++) {
      const found = evaluate(body, [...states, ...along.map((x) => gather([x, scalar(k)], {}))], outer);
      told.push(found.slice(states.length).map(({ data, shape }) => ({ data, shape: [1, ...shape] })));
      states = found.slice(0, states.length);
    }
    return [...states, ...told[0].map((_, i) => concat(told.map((parts) => parts[i]), { axis: 0 }))];
  }

  // Each takes its inputs, its attributes, and the values of the graph that it stands in.
  const OPERATORS = {
    Abs: each(Math.abs),
    Add: each((x, y) => x + y),
    And: asked((x, y) => x && y),
    Cast: cast,
    Clip: ([x, low, high]) => clip([x, low ?? scalar(-Infinity), high ?? scalar(Infinity)]),
    Concat: concat,
    ConstantOfShape: ([{ data }], { value = ZERO }) => expand({ ...constant(value), shape: [] }, [...data]),
    Cos: each(Math.cos),
    CumSum: cumulative,
    Div: each((x, y) => x / y),
    Equal: asked((x, y) => x === y),
    Exp: each(Math.exp),
    Expand: ([x, { data }]) => expand(x, [...data]),
    Gather: gather,
    GatherElements: gatherElements,
    Gemm: gemm,
    Greater: asked((x, y) => x > y),
    GreaterOrEqual: asked((x, y) => x >= y),
    Identity: ([x]) => x,
    IsInf: asked((x) => Math.abs(x) === Infinity),
    IsNaN: asked(Number.isNaN),
    Less: asked((x, y) => x < y),
    LessOrEqual: asked((x, y) => x <= y),
    Log: each(Math.log),
    MatMul: matmul,
    Max: each((x, y) => Math.max(x, y)),
    Min: each((x, y) => Math.min(x, y)),
    Mul: each((x, y) => x * y),
    Neg: each((x) => -x),
    Not: asked((x) => !x),
    Or: asked((x, y) => x || y),
    Pow: each((x, y) => x ** y),
    Reciprocal: each((x) => 1 / x),
    ReduceL2: reduced((values) => Math.sqrt(sum(values.map((x) => x * x)))),
    ReduceLogSumExp: reduced(logSumExp),
    ReduceMax: reduced((values) => Math.max(...values)),
    ReduceMin: reduced((values) => Math.min(...values)),
    ReduceSum: reduced(sum),
    Reshape: reshape,
    Round: each(toEven),
    Scan: scan,
    Shape: shapeOf,
    Sigmoid: each((x) => 1 / (1 + Math.exp(-x))),
    Sign: each(Math.sign),
    Sin: each(Math.sin),
    Slice: slice,
    Split: split,
    Sqrt: each(Math.sqrt),
    Squeeze: squeeze,
    Sub: each((x, y) => x - y),
    Transpose: transpose,
    Unsqueeze: unsqueeze,
    Where: ([chosen, x, y]) => each((a, b, first) => (first ? a : b))([x, y, chosen]),
  };

  function evaluate(graph, inputs, outer) {
    const values = Object.assign(Object.create(outer), graph.constants);
    graph.inputs.forEach((name, i) => { values[name] = inputs[i]; });
    for (const { operator, inputs, outputs, attributes } of graph.nodes) {
      const found = [OPERATORS[operator](inputs.map((name) => values[name]), attributes, values)].flat();
      outputs.forEach((name, i) => { values[name] = found[i]; });
    }
    return graph.outputs.map((name) => values[name]);
  }

  // ---- what a page carries

  function constant([type, shape, text]) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return { data: new TYPES[type](bytes.buffer), shape };
  }

  function unpacked(graph) {
    const constants = Object.entries(graph.constants).map(([name, packed]) => [name, constant(packed)]);
    const nodes = graph.nodes.map(({ attributes, ...node }) => {
      const { body } = attributes;
      return { ...node, attributes: body ? { ...attributes, body: unpacked(body) } : attributes };
    });
    return { ...graph, nodes, constants: Object.fromEntries(constants) };
  }

  // The program of a graph: a function from its inputs, in order, to its outputs.
  return (graph) => {
    const ready = unpacked(graph);
    return (...inputs) => evaluate(ready, inputs, null);
  };
})();

"use strict";
// The form that scores a row: whenever a cell changes, the program runs and its answer is shown.
(() => {
  const element = (id) => document.getElementById(id);
  const { graph, widths, tolerance, columns } = JSON.parse(element("program").textContent);
  const score = onnx(graph);
  const cells = columns.map((_, i) => element(`cell-${i}`));

  function nats(x) {
    if (Number.isNaN(x)) return "unknown";
    return Number.isFinite(x) ? `${x.toFixed(4).replace("-", "−")} nats` : "−∞";
  }

  // Why a cell gives its row a log p of −∞ or none; empty if it does neither.
  function trouble({ name, lower, upper, atoms }, x) {
    if (Number.isNaN(x)) return `${name}: expected a number.`;
    if ((lower !== null && x <= lower) || (upper !== null && x >= upper)) return `${name}: outside its range, where the density is zero.`;
    return atoms.includes(x) ? `${name}: ${x} is an atom; use cnf score.` : "";
  }

  function answer(row) {
    let start = 0;
    const inputs = widths.map((width) => {
      const data = Float64Array.from(row.slice(start, start + width));
      start += width;
      return { data, shape: [1, width] };
    });
    return score(...inputs).map(({ data }) => data[0]);
  }

  function show() {
    const row = cells.map((cell) => cell.valueAsNumber);
    const [logProb, bound, ok] = answer(row);
    const troubles = row.map((x, i) => trouble(columns[i], x));
    cells.forEach((cell, i) => cell.setAttribute("aria-invalid", troubles[i] !== ""));
    const unsure = ok ? "" : `The error bound exceeds ${tolerance} nats, or an integer cell is too wide; use cnf score.`;
    element("log-prob").textContent = nats(logProb);
    element("bound").textContent = Number.isNaN(bound) ? "unknown" : `± ${Number(bound.toPrecision(2))} nats`;
    element("ok").textContent = ok ? "yes" : "no";
    element("why").textContent = troubles.filter(Boolean).join(" ") || unsure;
  }

  const form = element("row");
  form.addEventListener("input", show);
  form.addEventListener("reset", () => setTimeout(show));
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();

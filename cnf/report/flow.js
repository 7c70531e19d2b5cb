"use strict";
// The interactive flow. State is one object; `draw` shows it; every control changes it and draws again.
(async () => {
  const element = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const SECONDS = 5; // from base to data
  const LEVELS = 254;

  async function unpack(id) {
    const packed = new Blob([bytes(element(id).textContent)]).stream();
    return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
  }

  const library = document.createElement("script");
  library.textContent = await unpack("library");
  document.head.append(library);
  const scene = JSON.parse(await unpack("scene"));
  const floats = ({ numbers }) => new Float32Array(bytes(numbers).buffer);
  const last = scene.times.length - 1;
  const [axes, , count] = scene.particles.shape;
  const path = floats(scene.particles);
  const table = floats(scene.rows);
  const height = axes - 1; // the axis that is the log-density
  for (const map of Object.values(scene.maps)) map.levels = bytes(map.levels);

  const state = {
    t: 0, across: 0, up: axes > 2 ? 1 : height, rows: false, followed: new Set(), pointed: null, playing: false,
  };

  // ---- what is where at a time

  const at = (axis, k, i) => path[(axis * (last + 1) + k) * count + i];

  function place(axis, i, t) {
    const k = Math.min(Math.floor(t * last), last - 1);
    const part = t * last - k;
    return part === 0 ? at(axis, k, i) : (1 - part) * at(axis, k, i) + part * at(axis, k + 1, i);
  }

  const everyone = [...Array(count).keys()];
  const places = (axis, who) => who.map((i) => place(axis, i, state.t));

  const clock = () => scene.clock[Math.round(state.t * last)];

  // Rows that were seen at a time of their own show at the slider's nearest one.
  function shownRows() {
    const all = [...Array(scene.rows.shape[1]).keys()];
    if (!scene.seen) return all;
    const away = (i) => Math.abs(scene.seen[i] - state.t);
    const nearest = Math.min(...all.map(away));
    return all.filter((i) => away(i) <= nearest + 0.5 / last);
  }

  function trails(axis, who) {
    const stop = Math.floor(state.t * last);
    return who.flatMap((i) => {
      const past = Array.from({ length: stop + 1 }, (_, k) => at(axis, k, i));
      return [...past, place(axis, i, state.t), null];
    });
  }

  function map() {
    const flipped = state.across > state.up;
    const found = scene.maps[flipped ? [state.up, state.across] : [state.across, state.up]];
    if (!found) return null;
    const k = Math.round(state.t * last);
    const { cells, levels } = found;
    const peak = found.peaks[k];
    const level = (row, column) => levels[(k * cells + row) * cells + column];
    const nats = (value) => (value === 0 ? null : peak + scene.depth * ((value - 1) / LEVELS - 1));
    const z = Array.from({ length: cells }, (_, row) =>
      Array.from({ length: cells }, (_, column) => nats(flipped ? level(column, row) : level(row, column))));
    return { z, peak, cells };
  }

  // ---- how it looks

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

  // Colors run evenly with the density itself, while the map holds its logarithm.
  function shades(hues) {
    const stops = hues.map((hue, i) => [i / (hues.length - 1), hue]);
    return [[0, hues[0]], ...stops.map(([p, hue]) => [1 + Math.log(Math.max(p, Math.exp(-scene.depth * 0.999))) / scene.depth, hue])];
  }

  function centers(axis, cells) {
    const [low, high] = scene.limits[axis];
    return Array.from({ length: cells }, (_, i) => low + ((i + 0.5) * (high - low)) / cells);
  }

  function density() {
    const found = map();
    const shown = { type: "heatmap", showscale: false, zsmooth: "fast", hovertemplate: "log-density of both columns: %{z:.2f}<extra></extra>" };
    if (!found) return { ...shown, visible: false, z: [[0]] };
    return {
      ...shown, z: found.z, x: centers(state.across, found.cells), y: centers(state.up, found.cells),
      zmin: found.peak - scene.depth, zmax: found.peak, colorscale: shades(dark.matches ? scene.dark : scene.light),
    };
  }

  function dots(who, marker, more) {
    return {
      type: "scatter", mode: "markers", x: places(state.across, who), y: places(state.up, who), marker,
      customdata: places(height, who), hovertemplate:
        "log-density %{customdata:.3f}<br>%{xaxis.title.text}: %{x:.4g}<br>%{yaxis.title.text}: %{y:.4g}<extra></extra>", ...more,
    };
  }

  function traces() {
    const followed = [...state.followed];
    const accent = color("--accent");
    const crowd = followed.length ? { size: 4, color: color("--soft"), opacity: 0.45 } : { size: 5, color: accent, opacity: 0.85 };
    const outside = state.across === height || state.up === height;
    const row = (axis) => shownRows().map((i) => table[axis * scene.rows.shape[1] + i]);
    const pointed = state.pointed === null ? [] : [state.pointed];
    return [
      density(),
      state.rows && !outside
        ? { type: "scatter", mode: "markers", x: row(state.across), y: row(state.up), hoverinfo: "skip",
            marker: { size: 3, symbol: "cross", color: color("--ink"), opacity: 0.6 } }
        : { type: "scatter", visible: false },
      dots(everyone, crowd),
      { type: "scatter", mode: "lines", x: trails(state.across, followed), y: trails(state.up, followed),
        line: { color: accent, width: 1 }, opacity: 0.7, hoverinfo: "skip" },
      dots(followed, { size: 7, color: accent, line: { color: color("--paper"), width: 1 } }),
      dots(pointed, { size: 13, symbol: "circle-open", color: color("--ink"), line: { width: 2 } }, { hoverinfo: "skip" }),
    ];
  }

  function layout() {
    const ink = color("--ink");
    const axis = (index) => ({
      title: { text: plain(scene.names[index]) }, range: scene.limits[index], color: ink, gridcolor: "rgba(0,0,0,0)",
      zeroline: false, linecolor: color("--soft"), ticks: "outside", constrain: "domain", fixedrange: true, automargin: true,
    });
    const span = (index) => scene.limits[index][1] - scene.limits[index][0];
    const ratio = span(state.across) / span(state.up);
    const alike = ![state.across, state.up].includes(height) && ratio >= 1 / 2 && ratio <= 2;
    return {
      xaxis: axis(state.across), yaxis: { ...axis(state.up), ...(alike ? { scaleanchor: "x" } : {}) },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: (dark.matches ? scene.dark : scene.light)[0], showlegend: false,
      margin: { l: 58, r: 8, t: 8, b: 48 }, dragmode: "select", hovermode: "closest", autosize: true, selections: [],
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--soft"), font: { color: ink } },
    };
  }

  function draw() {
    element("time").value = state.t;
    element("clock").value = clock();
    element("time").setAttribute("aria-valuetext", clock());
    const next = state.playing ? "Pause" : "Play";
    if (element("play").textContent !== next) element("play").textContent = next;
    return Plotly.react("picture", traces(), layout(), { displayModeBar: false, responsive: true, doubleClick: false });
  }

  // ---- what the controls do

  function say() {
    const followed = [...state.followed];
    const heights = places(height, followed);
    const mean = heights.reduce((sum, value) => sum + value, 0) / heights.length;
    const group = followed.length
      ? `Following ${followed.length} of ${count} particles, mean log-density ${mean.toFixed(3)} at time ${clock()}. ` : "";
    const one = state.pointed === null ? "" : `Particle ${state.pointed + 1}: ` +
      [height, ...everyone.slice(0, height)].map((axis) => `${scene.names[axis]} ${place(axis, state.pointed, state.t).toPrecision(4)}`).join(", ") + ".";
    element("said").textContent = group + one || `${count} particles.`;
  }

  function change(news) {
    Object.assign(state, news);
    draw();
    if (!state.playing) say();
  }

  const step = (way) => change({ t: Math.min(1, Math.max(0, (Math.round(state.t * last) + way) / last)), playing: false });
  const release = () => change({ followed: new Set(), pointed: null });

  function play() {
    if (state.playing) return change({ playing: false });
    change({ playing: true, t: state.t >= 1 ? 0 : state.t });
    let before = null;
    requestAnimationFrame(function tick(now) {
      if (!state.playing) return;
      const t = Math.min(1, state.t + (before === null ? 0 : (now - before) / 1000 / SECONDS));
      before = now;
      change({ t, playing: t < 1 });
      requestAnimationFrame(tick);
    });
  }

  // The next particle along the picture's lower edge.
  function point(way) {
    const along = places(state.across, everyone);
    const order = everyone.slice().sort((a, b) => along[a] - along[b]);
    const rank = state.pointed === null ? (way > 0 ? -1 : 0) : order.indexOf(state.pointed);
    change({ pointed: order[(rank + way + count) % count] });
  }

  function toggle() {
    const followed = new Set(state.followed);
    if (state.pointed !== null && !followed.delete(state.pointed)) followed.add(state.pointed);
    change({ followed });
  }

  const KEYS = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => point(1), ArrowDown: () => point(-1),
    Home: () => change({ t: 0 }), End: () => change({ t: 1 }), " ": play, Enter: toggle, Escape: release,
  };

  for (const [id, chosen] of [["across", state.across], ["up", state.up]]) {
    const select = element(id);
    scene.names.forEach((name, index) => select.add(new Option(name, index, false, index === chosen)));
    select.addEventListener("change", () => change({ [id]: Number(select.value) }));
  }
  element("time").addEventListener("input", (event) => change({ t: Number(event.target.value), playing: false }));
  element("rows").addEventListener("change", (event) => change({ rows: event.target.checked }));
  element("play").addEventListener("click", play);
  element("release").addEventListener("click", release);
  dark.addEventListener("change", draw);
  element("picture").addEventListener("keydown", (event) => {
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  await draw();
  say();
  element("picture").on("plotly_selected", (event) => {
    if (!event || !event.range) return;
    const inside = (axis, [a, b]) => (i) => {
      const value = place(axis, i, state.t);
      return value >= Math.min(a, b) && value <= Math.max(a, b);
    };
    const { x, y } = event.range;
    change({ followed: new Set(everyone.filter(inside(state.across, x)).filter(inside(state.up, y))) });
  });
  element("picture").dataset.ready = "yes";
})();

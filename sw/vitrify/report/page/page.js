"use strict";
// Draws the figures of a report.  Names come from models of others: they become text, never markup.

const data = JSON.parse(document.getElementById("figures").textContent);
const run = data.figures, summary = run.summary, other = data.compare;
// Each has a colour in the style.
const CAUSES = ["work", ...Object.keys(run.limits)];
// States of the array by the cause whose colour they have.
const STATES = {row: "work", tile: "weights", dependency: "dependency", drain: "epilogue", bank: "banks", empty: "start"};
const MEANING = {
  work: "multiplies", row: "rows: it multiplies", tile: "waits for a stationary tile",
  drain: "waits for the epilogue", bank: "waits for a bank", empty: "has no instruction", ...run.limits,
  dependency: "waits for an earlier result",
};
const colour = name => `var(--${name})`;
const whole = value => Math.round(value).toLocaleString("en-US");
const share = value => value == null ? "–" : `${(100 * value).toFixed(1)} %`;
const bytes = size => {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (size < 1024) return unit === "B" ? `${Math.round(size)} B` : `${size.toFixed(1)} ${unit}`;
    size /= 1024;
  }
  return `${size.toFixed(1)} GiB`;
};
const brief = value => value >= 1e9 ? `${+(value / 1e9).toPrecision(3)}G` : value >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M`
  : value >= 1e3 ? `${+(value / 1e3).toPrecision(3)}k` : `${+value.toPrecision(3)}`;

// Elements ------------------------------------------------------------------------------------
const SVG = "http://www.w3.org/2000/svg";
function put(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...[children].flat().filter(child => child != null));
  return element;
}
const html = (tag, attributes = {}, children = []) => put(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, children = []) => put(document.createElementNS(SVG, tag), attributes, children);
const text = (x, y, words, attributes = {}) => draw("text", {x, y, ...attributes}, String(words));
const box = (x, y, width, height, fill, tip) =>
  draw("rect", {x, y, width: Math.max(width, 0), height: Math.max(height, 0), fill, "shape-rendering": "crispEdges", ...(tip ? {"data-tip": tip} : {})});

function section(title, note, children) {
  const id = title.toLowerCase().replace(/\W+/g, "-");
  document.getElementById("nav").append(html("a", {href: `#${id}`}, title));
  document.getElementById("main").append(
    html("section", {id}, [html("h2", {}, title), note ? html("p", {class: "quiet"}, note) : null, ...[children].flat()]));
}
const picture = (width, height, label, children) =>
  draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label}, children);
const lossesOf = ones => legend(CAUSES.filter(name => ones.some(one => new Map(parts(one)).get(name) > 0)).map(name => [name, colour(name)]));
const legend = names => html("div", {class: "legend"}, names.map(([name, fill]) =>
  html("span", {}, [html("i", {style: `background:${fill}`}), name])));
function table(headings, rows, texts = 1) {
  const cell = (tag, content, column) => html(tag, column < texts ? {class: "text"} : {}, content == null ? "–" : content);
  return html("table", {}, [
    html("thead", {}, html("tr", {}, headings.map((heading, i) => cell("th", heading, i)))),
    html("tbody", {}, rows.map(row => html("tr", {}, row.map((content, i) => cell("td", content, i))))),
  ]);
}
function ticks(most, count = 5) {
  const rough = most / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough);
  return Array.from({length: Math.floor(most / step + 1e-9) + 1}, (_, i) => i * step);
}
function timeAxis(left, right, bottom, cycles, top) {
  const at = cycle => left + (right - left) * cycle / cycles;
  return ticks(cycles, 8).flatMap(cycle => [
    draw("line", {x1: at(cycle), x2: at(cycle), y1: top, y2: bottom, class: "grid"}),
    text(at(cycle), bottom + 16, brief(cycle), {"text-anchor": "middle"}),
  ]);
}

// Cycles by cause -----------------------------------------------------------------------------
const used = one => Math.max(0, one.cycles - CAUSES.slice(1).reduce((sum, name) => sum + one.lost_cycles[name], 0));
const parts = one => CAUSES.map(name => [name, name === "work" ? used(one) : one.lost_cycles[name]]);
function bar(one, most) {
  const total = Math.max(one.cycles, parts(one).reduce((sum, [, count]) => sum + count, 0));
  return html("div", {class: "bar"}, parts(one).filter(([, count]) => count > 0).map(([name, count]) => html("i", {
    style: `width:${100 * count / Math.max(most, total)}%;background:${colour(name)}`,
    "data-tip": `${name}: ${whole(count)} cycles, ${share(count / one.cycles)}\n${MEANING[name]}`,
  })));
}

// Sections ------------------------------------------------------------------------------------
function overview() {
  const fits = summary.fits === null ? "no part" : summary.fits ? "fits" : "does not fit";
  const facts = [
    [whole(summary.cycles), "cycles a job"],
    [`${summary.milliseconds.toPrecision(4)} ms`, `at ${summary.clock_mhz} MHz`],
    [summary.images_per_second.toFixed(1), "images a second"],
    [share(summary.utilisation), `of ${whole(summary.array_macs)} MACs a cycle`],
    [share(summary.roofline_cycles / summary.cycles), "of the roofline"],
    [bytes(summary.dram_read_bytes), "read from DRAM"],
    [summary.token_memory_bytes == null ? "–" : share(summary.token_memory_bytes / summary.token_memory_capacity),
      `of ${bytes(summary.token_memory_capacity)} token memory`],
    [fits, summary.part],
  ];
  const why = summary.bottleneck === "array" ? "The array is the limit: no wait takes more than 5 % of the cycles."
    : `The largest loss is ${summary.bottleneck}: ${run.limits[summary.bottleneck]}.`;
  section("Summary", why, [
    html("div", {class: "tiles"}, facts.map(([value, name]) => html("div", {}, [html("b", {}, value), html("span", {}, name)]))),
    lossesOf([summary]), bar(summary, summary.cycles),
  ]);
}

function overTime() {
  const {series, cycles} = run.occupancy, left = 70, right = 1100, height = 150, bins = Object.values(series)[0].length;
  const width = (right - left) / bins, marks = [];
  const below = new Array(bins).fill(0);
  for (const [state, cause] of Object.entries(STATES)) {
    const shares = series[`array: ${state}`];
    if (!shares) continue;
    shares.forEach((value, i) => {
      if (value > 0.002) marks.push(box(left + i * width, 10 + height * (1 - below[i] - value), width, height * value,
        colour(cause), `array, cycle ${whole(i * cycles / bins)} on\n${MEANING[state]}: ${share(value)}`));
      below[i] += value;
    });
  }
  const others = Object.keys(series).filter(name => !name.startsWith("array"));
  others.forEach((name, row) => {
    const y = 10 + height + 14 + 24 * row;
    marks.push(text(left - 8, y + 13, name, {"text-anchor": "end"}), box(left, y, right - left, 18, "var(--grid)"));
    series[name].forEach((value, i) => {
      if (value > 0.002) marks.push(draw("rect", {x: left + i * width, y, width, height: 18, fill: "var(--accent)", "shape-rendering": "crispEdges",
        "fill-opacity": Math.min(1, .12 + .88 * value),
        "data-tip": `${name}, cycle ${whole(i * cycles / bins)} on: busy ${share(value)}`}));
    });
  });
  const bottom = 10 + height + 14 + 24 * others.length;
  section("Engines over time", "What the array does over time, and how busy the other engines are (the stronger, the busier).", [
    legend(Object.entries(STATES).filter(([state]) => series[`array: ${state}`]).map(([state, cause]) => [MEANING[state], colour(cause)])),
    picture(1120, bottom + 24, "Occupancy of the engines over the cycles of a job", [
      ...timeAxis(left, right, bottom, cycles, 10), text(left - 8, 20, "array", {"text-anchor": "end"}), ...marks]),
  ]);
}

function layers() {
  const most = Math.max(...run.blocks.map(block => block.cycles));
  const columns = [...new Set(run.layers.filter(layer => layer.block).map(layer => layer.part))];
  const blocks = run.blocks.filter(block => run.layers.some(layer => layer.block === block.name));
  const figures = [
    lossesOf(run.blocks),
    table(["block", "cycles", "of the job", "MMACs", "DRAM in", "where the cycles go"], run.blocks.map(block => [
      block.name, whole(block.cycles), share(block.cycles / summary.cycles), (block.macs / 1e6).toFixed(2),
      bytes(block.dram_read_bytes), bar(block, most)])),
  ];
  if (blocks.length > 1 && columns.length > 1) {
    const cell = Math.min(46, 900 / blocks.length), left = 190, top = 22;
    const peak = Math.max(...blocks.flatMap(block => Object.values(block.parts)));
    const marks = columns.flatMap((part, row) => [
      text(left - 8, top + 20 * row + 14, part.length > 28 ? `…${part.slice(-27)}` : part, {"text-anchor": "end"}),
      ...blocks.map((block, column) => {
        const value = block.parts[part];
        return value == null ? null : draw("rect", {x: left + cell * column, y: top + 20 * row, width: cell - 2, height: 18, rx: 2,
          fill: "var(--accent)", "fill-opacity": .08 + .92 * value / peak,
          "data-tip": `${block.name}, ${part}: ${whole(value)} cycles`});
      }),
    ]);
    blocks.forEach((block, column) => marks.push(text(left + cell * (column + .5), top - 8, block.name.replace(/^.*?(\d+)$/, "$1"), {"text-anchor": "middle"})));
    figures.push(html("h3", {}, "Cycles by block and layer"),
      picture(1120, top + 20 * columns.length + 6, "Cycles of each layer of each block", marks));
  }
  figures.push(html("h3", {}, "Layers"), html("div", {class: "scroll"}, table(
    ["layer", "cycles", "at least", "used", "MMACs", "DRAM in", "bottleneck", "where the cycles go"],
    run.layers.map(layer => [layer.name, whole(layer.cycles), whole(layer.roofline_cycles), share(layer.utilisation),
      (layer.macs / 1e6).toFixed(2), bytes(layer.dram_read_bytes), layer.bottleneck, bar(layer, layer.cycles)]))));
  section("Cycles by block and layer", "A layer's cycles last from the end of the one before to its last write; the losses are seen from the array.", figures);
}

function roofline() {
  const {macs, bytes: sustained} = run.roofline, left = 70, right = 1090, top = 15, bottom = 330;
  const points = run.layers.filter(layer => layer.cycles && layer.macs);
  const fetched = points.filter(layer => layer.dram_read_bytes);
  const ratio = layer => layer.macs / layer.dram_read_bytes, rate = layer => layer.macs / layer.cycles;
  const ridge = macs / sustained;
  const low = Math.log10(Math.min(ridge / 10, ...fetched.map(ratio))), high = Math.log10(Math.max(ridge * 10, ...fetched.map(ratio))) + .25;
  const floor = Math.log10(Math.min(macs / 10, ...points.map(rate))), ceiling = Math.log10(macs) + .12;
  const x = value => left + (right - left) * (Math.log10(value) - low) / (high - low);
  const y = value => bottom - (bottom - top) * (Math.log10(value) - floor) / (ceiling - floor);
  const marks = [];
  for (let power = Math.ceil(low); power <= high; power++) marks.push(
    draw("line", {x1: x(10 ** power), x2: x(10 ** power), y1: top, y2: bottom, class: "grid"}),
    text(x(10 ** power), bottom + 16, brief(10 ** power), {"text-anchor": "middle"}));
  for (let power = Math.ceil(floor); power <= ceiling; power++) marks.push(
    draw("line", {x1: left, x2: right, y1: y(10 ** power), y2: y(10 ** power), class: "grid"}),
    text(left - 8, y(10 ** power) + 4, brief(10 ** power), {"text-anchor": "end"}));
  const start = Math.max(10 ** low, 10 ** floor / sustained);
  marks.push(draw("path", {d: `M${x(start)},${y(start * sustained)} L${x(ridge)},${y(macs)} L${right},${y(macs)}`, class: "limit"}),
    text(right, y(macs) - 6, `${whole(macs)} MACs a cycle`, {"text-anchor": "end"}),
    text(right, bottom + 34, "MACs for each byte read from DRAM", {"text-anchor": "end"}),
    text(left, top - 4, "MACs a cycle"));
  const biggest = Math.max(...points.map(layer => layer.cycles));
  for (const layer of points) {
    const inside = layer.dram_read_bytes > 0;
    marks.push(draw("circle", {cx: inside ? x(ratio(layer)) : right - 4, cy: y(rate(layer)), r: 3 + 6 * Math.sqrt(layer.cycles / biggest),
      fill: layer.bottleneck === "array" ? colour("work") : colour(layer.bottleneck), "fill-opacity": .65, stroke: "var(--card)",
      "data-tip": `${layer.name}\n${whole(layer.cycles)} cycles, ${rate(layer).toFixed(1)} MACs a cycle\n` +
        (inside ? `${ratio(layer).toFixed(1)} MACs a byte` : "reads nothing from DRAM") + `\nbottleneck: ${layer.bottleneck}`}));
  }
  const named = CAUSES.filter(name => points.some(layer => layer.bottleneck === name || (name === "work" && layer.bottleneck === "array")));
  section("Roofline", "A circle is a layer, as large as its cycles, in the colour of its bottleneck; at the right edge those that read nothing from DRAM.", [
    legend(named.map(name => [name === "work" ? "array" : name, colour(name)])),
    picture(1120, bottom + 42, "Roofline plot of the layers", marks)]);
}

function traffic() {
  const {read_gbs, sustained_gbs} = run.traffic, left = 70, right = 1100, top = 15, bottom = 190, cycles = run.occupancy.cycles;
  const most = 1.08 * Math.max(sustained_gbs, ...read_gbs), y = value => bottom - (bottom - top) * value / most;
  const step = (right - left) / read_gbs.length;
  const line = read_gbs.map((value, i) => `L${left + i * step},${y(value)} H${left + (i + 1) * step}`).join(" ");
  section("DRAM traffic", `${bytes(summary.dram_read_bytes)} read and ${bytes(summary.dram_write_bytes)} written a job; the dashed line is what ports and memory sustain.`,
    picture(1120, bottom + 24, "Bytes read from DRAM over time", [
      ...timeAxis(left, right, bottom, cycles, top),
      ...ticks(most, 4).map(value => text(left - 8, y(value) + 4, `${+value.toPrecision(3)}`, {"text-anchor": "end"})),
      text(left, top - 2, "GB/s"),
      draw("path", {d: `M${left},${bottom} ${line} L${right},${bottom} Z`, fill: "var(--accent)", "fill-opacity": .55}),
      draw("line", {x1: left, x2: right, y1: y(sustained_gbs), y2: y(sustained_gbs), class: "limit"}),
      text(right, y(sustained_gbs) - 5, `${sustained_gbs.toPrecision(3)} GB/s`, {"text-anchor": "end"}),
    ]));
}

function memoryMap() {
  const {tensors, bank_words, word_bytes} = run.memory, left = 70, right = 1100, top = 10, bottom = 390, cycles = run.occupancy.cycles;
  // Banks behind the last one in use are left out.
  const banks = Math.ceil(Math.max(...tensors.flatMap(tensor => tensor.words.map(([, high]) => high))) / bank_words);
  const x = cycle => left + (right - left) * cycle / cycles, y = word => top + (bottom - top) * word / (banks * bank_words);
  const fills = ["work", "weights", "epilogue", "dependency", "tiles", "banks", "padding"], marks = timeAxis(left, right, bottom, cycles, top);
  for (let bank = 0; bank <= banks; bank++) marks.push(draw("line", {x1: left, x2: right, y1: y(bank * bank_words), y2: y(bank * bank_words), class: "axis"}));
  for (let bank = 0; bank < banks; bank += Math.ceil(banks / 16)) marks.push(text(left - 8, y((bank + .5) * bank_words) + 4, `bank ${bank}`, {"text-anchor": "end"}));
  tensors.forEach((tensor, number) => {
    const size = tensor.words.reduce((sum, [low, high]) => sum + high - low, 0) * word_bytes;
    for (const [low, high] of tensor.words) {
      const width = Math.max(1, x(tensor.end) - x(tensor.begin)), height = y(high) - y(low);
      marks.push(draw("rect", {x: x(tensor.begin), y: y(low), width, height, fill: colour(fills[number % fills.length]), "fill-opacity": .55,
        stroke: "var(--card)", "stroke-width": .5,
        "data-tip": `${tensor.name}, ${tensor.bits} bits\nup to ${bytes(size)}\ncycles ${whole(tensor.begin)} to ${whole(tensor.end)}`}));
      if (width > 7.2 * tensor.name.length && height > 13) marks.push(text(x(tensor.begin) + 4, y(low) + 12, tensor.name, {class: "ink", style: "pointer-events:none"}));
    }
  });
  section("Token memory over time", `Who has which words from the first write to the last use, in ${banks} of ${run.memory.banks} banks; tensors of 16 bits have a place in both banks of a pair.`,
    picture(1120, bottom + 24, "Tensors in the token memory over time", marks));
}

function graph() {
  const {nodes, edges} = run.graph, step = 20, left = 190, place = new Map(nodes.map(({name}, i) => [name, 14 + i * step]));
  const most = Math.max(...nodes.map(node => node.cycles));
  const marks = edges.map(([source, to, count]) => {
    const y1 = place.get(source), y2 = place.get(to), span = Math.abs(y2 - y1) / step;
    const bow = span === 1 ? 6 : Math.min(230, 34 * Math.sqrt(span - 1));
    return draw("path", {d: `M${left},${y1} C${left - bow},${y1} ${left - bow},${y2} ${left},${y2}`, fill: "none",
      stroke: span === 1 ? "var(--quiet)" : "var(--accent)", "stroke-opacity": span === 1 ? .8 : .5, "stroke-width": 1.3,
      "data-tip": `${source} → ${to}${count > 1 ? `, ${count} reads` : ""}`});
  });
  for (const {name, cycles: value} of nodes) {
    const y = place.get(name);
    marks.push(draw("circle", {cx: left, cy: y, r: 4, fill: value == null ? "var(--quiet)" : "var(--accent)"}),
      text(left + 10, y + 4, name, {class: "ink"}));
    if (value != null) marks.push(box(620, y - 7, 420 * value / most, 13, "var(--accent)", `${name}: ${whole(value)} cycles`),
      text(626 + 420 * value / most, y + 4, whole(value)));
  }
  section("Graph of layers", "In the order of the program; an arc leads from the layer that wrote a tensor to the one that reads it. Bars: cycles.",
    html("div", {class: "scroll"}, picture(1120, 20 + nodes.length * step, "Graph of the layers", marks)));
}

function quantisation() {
  const found = run.quantisation;
  const outputs = html("p", {}, `Outputs: ${run.outputs.map(out => `${out.name} [${out.shape}] of ${out.bits} bits, step ${out.scale.toPrecision(3)}`).join("; ")}.`);
  if (!found) return section("Quantisation", "Ranges, noise and clipping of every tensor need the model and its pictures: vitrify report MODEL.onnx --arch … --calib ….", outputs);
  const scale = 60;
  section("Quantisation", "Integers against the float model on calibration images: signal-to-noise ratio (0 to 60 dB), range of the floats, and the share of values beyond what their format holds.", [
    outputs,
    html("div", {class: "scroll"}, table(["tensor", "bits", "SNR (dB)", "", "lowest", "highest", "largest error", "clipped"], found.map(one => [
      one.name, one.bits, one.sqnr == null ? "exact" : one.sqnr.toFixed(1),
      html("div", {class: "bar"}, html("i", {style: `width:${Math.min(100, 100 * Math.max(0, one.sqnr ?? scale) / scale)}%;background:${one.sqnr != null && one.sqnr < 15 ? "var(--bad)" : "var(--accent)"}`})),
      one.low.toPrecision(3), one.high.toPrecision(3), one.error.toPrecision(3),
      html("span", one.clipped > .01 ? {class: "bad"} : {}, `${(100 * one.clipped).toFixed(2)} %`)])))]);
}

function routing() {
  if (!run.routing) return;
  const found = run.routing.layers, left = 190, top = 22, count = Math.max(...found.map(layer => layer.counts.length));
  const cell = Math.min(46, 900 / count), most = Math.max(...found.flatMap(layer => layer.counts));
  const marks = found.flatMap((layer, row) => [
    text(left - 8, top + 22 * row + 15, layer.name, {"text-anchor": "end"}),
    ...layer.counts.map((rows, expert) => draw("rect", {x: left + cell * expert, y: top + 22 * row, width: cell - 2, height: 20, rx: 2,
      fill: rows ? "var(--accent)" : "var(--grid)", "fill-opacity": rows ? .12 + .88 * rows / most : 1,
      "data-tip": `${layer.name}, expert ${expert}: ${rows} of ${layer.rows * layer.choices} rows\n${bytes(layer.bytes[expert])} of weights${rows ? "" : ", not fetched"}`})),
  ]);
  for (let expert = 0; expert < count; expert += Math.ceil(count / 32)) marks.push(text(left + cell * (expert + .5), top - 8, expert, {"text-anchor": "middle"}));
  const source = run.routing.source === "uniform" ? "All experts alike; --input or --routing replays real pictures." : "Replayed from pictures.";
  section("Routing of experts", `Rows of each expert. ${source}`, picture(1120, top + 22 * found.length + 6, "Rows of each expert", marks));
}

function resources() {
  const kinds = Object.entries(summary.resources).filter(([, use]) => use && typeof use === "object" && "used" in use);
  const names = {lut: "LUTs", ff: "flip-flops", dsp: "DSPs", bram: "block RAMs", uram: "UltraRAMs"};
  section("Resources", `Of ${summary.part}, before any tool has run: multipliers and memories are counted, LUTs and flip-flops modelled.`,
    table(["", "used", "available", "share", ""], kinds.filter(([, use]) => use.used || use.available).map(([kind, use]) => {
      const part = use.available ? use.used / use.available : null;
      return [names[kind] || kind, whole(use.used) + (use.error ? ` ± ${Math.round(100 * use.error)} %` : ""), use.available ? whole(use.available) : "–", share(part),
        html("div", {class: "bar"}, part == null ? [] : html("i", {style: `width:${Math.min(100, 100 * part)}%;background:${part > 1 ? "var(--bad)" : "var(--accent)"}`}))];
    })));
}

function comparison() {
  if (!other) return;
  const then = other.summary, title = one => `${one.model} on ${one.arch}`;
  const change = (now, before, lessIsBetter = true) => {
    if (!before) return "–";
    const ratio = now / before - 1;
    return html("span", Math.abs(ratio) < .0005 ? {} : {class: (ratio < 0) === lessIsBetter ? "good" : "bad"}, `${ratio >= 0 ? "+" : "−"}${(100 * Math.abs(ratio)).toFixed(1)} %`);
  };
  const rows = [
    ["cycles a job", whole(summary.cycles), whole(then.cycles), change(summary.cycles, then.cycles)],
    ["milliseconds", summary.milliseconds.toPrecision(4), then.milliseconds.toPrecision(4), change(summary.milliseconds, then.milliseconds)],
    ["images a second", summary.images_per_second.toFixed(1), then.images_per_second.toFixed(1), change(summary.images_per_second, then.images_per_second, false)],
    ["MACs used", share(summary.utilisation), share(then.utilisation), change(summary.utilisation, then.utilisation, false)],
    ["read from DRAM", bytes(summary.dram_read_bytes), bytes(then.dram_read_bytes), change(summary.dram_read_bytes, then.dram_read_bytes)],
    ...Object.keys(run.limits).map(name => [`lost: ${name}`, whole(summary.lost_cycles[name]), whole(then.lost_cycles[name] ?? 0), change(summary.lost_cycles[name], then.lost_cycles[name])]),
    ...["lut", "ff", "dsp", "bram", "uram"].map(kind => [kind.toUpperCase(), whole(summary.resources[kind].used), whole(then.resources[kind].used), change(summary.resources[kind].used, then.resources[kind].used)]),
  ];
  const before = new Map(other.layers.map(layer => [layer.name, layer]));
  const both = run.layers.filter(layer => before.has(layer.name));
  section("Comparison", `This: ${title(summary)}. Against: ${title(then)}. The change is that of this from the other.`, [
    table(["", "this", "against", "change"], rows),
    both.length ? html("h3", {}, "Layers of both") : null,
    both.length ? html("div", {class: "scroll"}, table(["layer", "cycles", "against", "change", "bottleneck", "against"], both.map(layer => {
      const mate = before.get(layer.name);
      return [layer.name, whole(layer.cycles), whole(mate.cycles), change(layer.cycles, mate.cycles), layer.bottleneck, mate.bottleneck];
    }))) : null,
  ]);
}

for (const one of [overview, comparison, overTime, layers, roofline, traffic, memoryMap, graph, quantisation, routing, resources]) one();

// A tooltip for everything that has something to say.
const tip = document.getElementById("tip");
document.addEventListener("mousemove", event => {
  const told = event.target.closest?.("[data-tip]");
  tip.hidden = !told;
  if (!told) return;
  tip.textContent = told.dataset.tip;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
});
document.documentElement.dataset.drawn = "yes";

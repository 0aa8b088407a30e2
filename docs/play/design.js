"use strict";

// What the slider sets for each mechanism: the words, its range, where it starts, and how a value is shown.
const share = (value) => percent(value, 0);
const SLIDERS = {
  confidence: { text: "Leave if the confidence is at least", min: 0.5, max: 0.99, step: 0.01, start: DATA.default[0], shown: share },
  entropy: { text: "Leave if the entropy, as a share of the largest possible, is at most", min: 0.01, max: 0.99, step: 0.01, start: 0.1, shown: share },
  patience: { text: "Leave if the answer agrees with the exits before; how many of them", min: 1, max: 6, step: 1, start: 2, shown: String },
};
// The rows of the table.
const ROWS = [
  ["clean", "Accuracy", () => "of clean images (%)"],
  ["cost", "Cost", () => "of clean images (% of a full run)"],
  ["robust", "Robust accuracy", (eps) => `still right under PGD made on the static network, ${eps}/255 (%)`],
  ["surface", "Surface", (eps) => `the Early Attack, ${eps}/255, makes only the network as deployed err (% of the images that it and its final exit get right)`],
  ["efficacy", "Efficacy", (eps) => `saved under the slowdown, ${eps}/255 (% of a full run)`],
];

const net = () => DATA.networks[byId("network").selectedIndex];
const mechanism = () => document.querySelector("input[name=mechanism]:checked").value;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const cache = new Map();

// The answers of the chosen network to clean and attacked images, and the true labels.
function seen() {
  if (!cache.has(net().id)) {
    const sets = ["clean", "sdnn", "early", "slow"].map((name) => [name, unpack(net()[name], net().macs.length)]);
    cache.set(net().id, { ...Object.fromEntries(sets), truth: bytes(net().truth) });
  }
  return cache.get(net().id);
}

// A design's numbers, as shares; and counts of images and the total cost over the images under PGD, to compare exactly.
function measure(design) {
  const { clean, sdnn, early, slow, truth } = seen();
  const all = (answers) => Array.from({ length: answers.n }, (_, i) => decide(net(), answers, i, design));
  const calm = all(clean);
  const final = (answers, i) => answers.label[(net().macs.length - 1) * answers.n + i] === truth[i];
  const right = (found, i) => found.label === truth[i];
  const counted = Array.from({ length: early.n }, (_, i) => i).filter((i) => right(calm[i], i) && final(clean, i));
  const pushed = all(early);
  const opened = counted.filter((i) => !right(pushed[i], i) && final(early, i));
  const first = calm.slice(0, sdnn.n);
  const counts = [first.filter(right).length, all(sdnn).filter(right).length, sum(first.map((found) => found.cost))];
  const full = net().macs.at(-1);
  const mean = (value, n) => ({ value, n });
  return {
    counts,
    clean: rate(counts[0], sdnn.n),
    cost: mean(counts[2] / sdnn.n / full, sdnn.n),
    robust: rate(counts[1], sdnn.n),
    surface: rate(opened.length, counted.length),
    efficacy: mean(1 - sum(all(slow).map((found) => found.cost)) / slow.n / full, slow.n),
  };
}

// A share of n images with its 95 % Wilson interval, as dynlib.analysis.stats.rate.
function rate(hits, n) {
  const [z2, p] = [1.959963984540054 ** 2, hits / n];
  const [middle, wide] = [(p + z2 / (2 * n)) / (1 + z2 / n), Math.sqrt(z2 * ((p * (1 - p)) / n + z2 / (4 * n * n))) / (1 + z2 / n)];
  return { value: p, low: Math.max(0, middle - wide), high: Math.min(1, middle + wide), n };
}

function chosenDesign() {
  return {
    exits: chosenExits(byId("exits"), net().macs.length),
    mechanism: mechanism(),
    value: Number(byId("value").value),
    fallBack: mechanism() === "patience" ? "final" : document.querySelector("input[name=fall-back]:checked").value,
  };
}

const fromRow = ([exits, value, fallBack]) => ({ exits, mechanism: "confidence", value, fallBack });
const defaultDesign = () => fromRow([net().macs.map((_, k) => k), ...DATA.default]);

function described([exits, value, fallBack]) {
  return `exits ${exits.map((k) => k + 1).join(" ")}; ${share(value)}; ${fallBack === "final" ? "else final" : "else surest"}`;
}

function slider(value) {
  const { text, min, max, step, start } = SLIDERS[mechanism()];
  Object.assign(byId("value"), { min, max, step, value: value ?? start });
  byId("value-text").textContent = text;
  for (const radio of document.querySelectorAll("input[name=fall-back]")) radio.disabled = mechanism() === "patience";
}

function load(design) {
  byId(`mechanism-${design.mechanism}`).checked = true;
  byId(`fall-back-${design.fallBack}`).checked = true;
  slider(design.value);
  for (const box of byId("exits").querySelectorAll("input")) box.checked = design.exits.includes(Number(box.value));
  show();
}

function renew() {
  exitBoxes(byId("exits"), net().macs.length, changed);
  const front = net().designs.filter((row) => row.at(-1)).sort((a, b) => a[5] - b[5]);
  const options = [
    ["your own", null],
    ["the default design", [null, ...DATA.default]],
    [`chosen on validation images: ${described(net().chosen)}`, net().chosen],
    ...front.map((row) => [`front: ${described(row)}`, row]),
  ];
  byId("start").replaceChildren(...options.map(([text], k) => make("option", { value: k }, text)));
  byId("start").onchange = () => {
    const row = options[byId("start").selectedIndex][1];
    if (row) load(row[0] ? fromRow(row) : defaultDesign());
  };
  byId("start").selectedIndex = 1;
  load(defaultDesign());
}

function changed() {
  byId("start").selectedIndex = 0;
  show();
}

function show() {
  byId("value-shown").textContent = SLIDERS[mechanism()].shown(Number(byId("value").value));
  const yours = measure(chosenDesign());
  const usual = measure(defaultDesign());
  const points = (value) => (100 * value).toFixed(1);
  const cell = (id, { value, low, high }) => {
    const interval = low === undefined ? [] : [make("br"), make("small", {}, `[${points(low)}, ${points(high)}]`)];
    return make("td", { class: "number", id }, make("span", {}, points(value)), ...interval);
  };
  byId("numbers").replaceChildren(
    ...ROWS.map(([name, title, text]) => {
      const difference = yours[name].value - usual[name].value;
      const signed = `${difference < 0 ? "−" : "+"}${points(Math.abs(difference))}`;
      const head = make("th", { scope: "row" }, title, make("small", {}, ` ${text(net().eps)}, ${yours[name].n} images`));
      return make("tr", {}, head, cell(name, yours[name]), cell(`default-${name}`, usual[name]), make("td", { class: "number difference" }, signed));
    }),
  );
  const better = net().designs.filter(([, , , clean, robust, cost]) => {
    const gains = [clean - yours.counts[0], robust - yours.counts[1], yours.counts[2] - cost];
    return Math.min(...gains) >= 0 && Math.max(...gains) > 0;
  }).length;
  const all = `of the ${net().designs.length} designs in grey`;
  byId("verdict").textContent = better
    ? `${better} ${all} are at least as accurate, as robust and as cheap as yours, and better in one of the three.`
    : `None ${all} beats yours: at least as accurate, as robust and as cheap, and better in one of the three.`;
  plot(yours, usual);
}

const SVG = "http://www.w3.org/2000/svg";
function mark(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

// Robust accuracy over cost: all designs, the front, the default design and yours.
function plot(yours, usual) {
  const n = seen().sdnn.n;
  const points = net().designs.map((row) => ({ cost: row[5] / n / net().macs.at(-1), robust: row[4] / n, front: row[6] }));
  const top = Math.min(1, Math.ceil(10 * Math.max(yours.robust.value, ...points.map((point) => point.robust)) + 0.2) / 10);
  const [left, high, bottom] = [48, 240, 60];
  const wide = byId("plot").clientWidth - left - 20;
  byId("plot").setAttribute("height", 10 + high + bottom);
  const x = (cost) => left + cost * wide;
  const y = (robust) => 10 + high * (1 - robust / top);
  const marks = [];
  for (let k = 0; k <= 5; k++) {
    const [at, level] = [k / 5, (k / 5) * top];
    marks.push(mark("text", { x: x(at), y: high + 28, "text-anchor": "middle" }, `${20 * k}`));
    marks.push(mark("text", { x: left - 8, y: y(level) + 4, "text-anchor": "end" }, (100 * level).toFixed(0)));
  }
  marks.push(mark("path", { d: `M${left} 10V${10 + high}H${left + wide}`, fill: "none", stroke: "currentColor" }));
  marks.push(mark("text", { x: left + wide / 2, y: high + 52, "text-anchor": "middle" }, "cost on clean images (% of a full run)"));
  const middle = 10 + high / 2;
  marks.push(mark("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, "robust accuracy (%)"));
  for (const { cost, robust } of points) marks.push(mark("circle", { cx: x(cost), cy: y(robust), r: 2, fill: "#b0b0b4" }));
  for (const { cost, robust, front } of points) {
    if (front) marks.push(mark("circle", { cx: x(cost), cy: y(robust), r: 4, fill: "none", stroke: "currentColor" }));
  }
  marks.push(mark("rect", { x: x(yours.cost.value) - 8, y: y(yours.robust.value) - 8, width: 16, height: 16, fill: "#3f90da", "fill-opacity": 0.75, stroke: "black", "stroke-width": 1.5 }));
  const star = Array.from({ length: 10 }, (_, k) => {
    const [radius, angle] = [k % 2 ? 3.5 : 8.5, (Math.PI * k) / 5];
    return `${x(usual.cost.value) + radius * Math.sin(angle)},${y(usual.robust.value) - radius * Math.cos(angle)}`;
  });
  marks.push(mark("polygon", { points: star.join(" "), fill: "white", stroke: "black" }));
  byId("plot").replaceChildren(...marks);
  byId("plot").setAttribute("aria-label", `Robust accuracy over cost: your design at ${percent(yours.cost.value)} and ${percent(yours.robust.value)}, the default at ${percent(usual.cost.value)} and ${percent(usual.robust.value)}.`);
}

byId("network").append(...DATA.networks.map((one) => make("option", { value: one.id }, one.title)));
byId("network").addEventListener("change", renew);
byId("value").addEventListener("input", changed);
for (const radio of document.querySelectorAll("input[name=mechanism]")) radio.addEventListener("change", () => (slider(), changed()));
for (const radio of document.querySelectorAll("input[name=fall-back]")) radio.addEventListener("change", changed);
window.addEventListener("resize", show);
renew();

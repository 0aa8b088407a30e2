"use strict";
// For both pages: what exits answered, as records keep it, and what a network as deployed makes of it, as dynlib.mechanisms does.

const STEPS = 65535; // of a share of 1 in the records
const byId = (id) => document.getElementById(id);

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// Answers: of exit k and image i at k * n + i. Shares and thresholds are compared in 32 bits, as in the library.
function unpack(packed, exits) {
  const shares = (text) => {
    const view = new DataView(bytes(text).buffer);
    return Float32Array.from({ length: view.byteLength / 2 }, (_, j) => view.getUint16(2 * j, true) / STEPS);
  };
  const label = bytes(packed.label);
  return { n: label.length / exits, label, confidence: shares(packed.confidence), entropy: shares(packed.entropy) };
}

// For each mechanism, whether an image leaves at the last of the exits seen so far (their places in the answers).
const LEAVES = {
  confidence: (answers, seen, value) => answers.confidence[seen.at(-1)] >= Math.fround(value),
  entropy: (answers, seen, value) => answers.entropy[seen.at(-1)] <= Math.fround(value),
  patience: (answers, seen, value) =>
    seen.length > value && seen.slice(-1 - value).every((place) => answers.label[place] === answers.label[seen.at(-1)]),
};

// How sure an exit is, where none lets the image go.
const SURE = { confidence: (answers, place) => answers.confidence[place], entropy: (answers, place) => -answers.entropy[place] };

// Multiply-accumulates of leaving at each exit of a design; heads that it does not have are not paid for.
function costs(net, exits) {
  let saved = 0;
  return net.macs.flatMap((macs, k) => {
    if (exits.includes(k)) return [macs - saved];
    saved += net.heads[k];
    return [];
  });
}

// What a design { exits, mechanism, value, fallBack } does with image i: which exit answers, whether it let the image go, its
// label, and the cost. Exits count from 0, and the final one is always there.
function decide(net, answers, i, design) {
  const places = design.exits.map((k) => k * answers.n + i);
  const cost = costs(net, design.exits);
  let j = places.findIndex((_, k) => LEAVES[design.mechanism](answers, places.slice(0, k + 1), design.value));
  const left = j >= 0;
  if (!left) {
    j = places.length - 1;
    if (design.fallBack === "most_confident") {
      const sure = places.map((place) => SURE[design.mechanism](answers, place));
      j = sure.indexOf(Math.max(...sure));
    }
  }
  return { exit: design.exits[j], left, label: answers.label[places[j]], cost: left ? cost[j] : cost.at(-1) };
}

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`; // a space that does not break

function make(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}

// A box for each exit but the final one; all are on to begin with.
function exitBoxes(place, exits, changed) {
  const boxes = Array.from({ length: exits - 1 }, (_, k) => {
    const box = make("input", { type: "checkbox", value: k, id: `exit-${k}` });
    box.checked = true;
    box.addEventListener("change", changed);
    return box;
  });
  place.replaceChildren(...boxes.map((box, k) => make("label", { class: "chip", for: box.id }, box, ` ${k + 1}`)));
  place.append(make("span", { class: "chip" }, `${exits}, the final exit: always on`));
}

function chosenExits(place, exits) {
  return [...[...place.querySelectorAll("input:checked")].map((box) => Number(box.value)), exits - 1];
}

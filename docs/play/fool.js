"use strict";

const GREY = 128; // of the sheet: a pixel that the attack has left alone
const SIZE = DATA.side;
const pixels = bytes(DATA.pixels);
let sheet; // what attacks have added, RGBA; a row of pictures for each attack

const net = () => DATA.networks[byId("network").selectedIndex];
const attack = () => byId("attack").value;
const image = () => Number(document.querySelector("input[name=image]:checked").value);

function draw(canvas, colour) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(SIZE, SIZE);
  for (let p = 0; p < SIZE * SIZE; p++) {
    for (let c = 0; c < 3; c++) picture.data[4 * p + c] = colour(p, c); // held within 0 and 255
    picture.data[4 * p + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

const clean = (i) => (p, c) => pixels[3 * (i * SIZE * SIZE + p) + c];

function added(row, i) {
  if (row === undefined) return () => 0;
  const wide = sheet.width;
  return (p, c) => sheet.data[4 * ((row * SIZE + Math.floor(p / SIZE)) * wide + i * SIZE + (p % SIZE)) + c] - GREY;
}

function fillRadii() {
  const kept = byId("radius").value;
  const radii = Object.keys(net().attacks[attack()] ?? {}).sort((a, b) => a - b);
  byId("radius").replaceChildren(...radii.map((eps) => make("option", { value: eps }, `${eps}/255`)));
  byId("radius").disabled = radii.length === 0;
  byId("radius").value = radii.includes(kept) ? kept : radii[0];
}

function sentence(who, found, truth) {
  const right = found.label === truth ? "right" : "wrong";
  const where = found.left ? `leaves at exit ${found.exit + 1}` : `no exit is sure enough, so that exit ${found.exit + 1} answers`;
  const share = percent(found.cost / net().macs.at(-1));
  return `${who}: ${where}; the answer is “${DATA.classes[found.label]}” (${right}); cost: ${share} of a full run.`;
}

function answer(answers, i, k, found, design) {
  const place = k * answers.n + i;
  const label = answers.label[place];
  const right = label === DATA.truth[i];
  let state = "";
  if (found) {
    if (!design.exits.includes(k)) state = "switched off";
    else if (found.left && k > found.exit) state = "not run";
    else if (k === found.exit) state = found.left ? "answers: sure enough" : "answers: no exit is sure";
    else state = "goes on: not sure enough";
  }
  const cell = make("td", { class: `${right ? "right" : "wrong"}${/off|not run/.test(state) ? " idle" : ""}${/^answers/.test(state) ? " answers" : ""}` });
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width:${100 * answers.confidence[place]}%` }));
  if (found) bar.append(make("b", { style: `left:${100 * design.value}%` }));
  cell.append(make("span", { class: "said" }, `${right ? "✓" : "✗"} ${DATA.classes[label]}, ${percent(answers.confidence[place])}`), bar);
  cell.append(make("span", { class: "state" }, state));
  return cell;
}

function show() {
  const i = image();
  const exits = net().macs.length;
  const made = net().attacks[attack()]?.[byId("radius").value];
  const design = {
    exits: chosenExits(byId("exits"), exits),
    mechanism: "confidence",
    value: Number(byId("threshold").value),
    fallBack: DATA.default[1],
  };
  byId("threshold-value").textContent = percent(design.value, 0);
  const both = [net().clean, ...(made ? [made] : [])].map((one) => ({
    dynn: unpack(one.dynn, exits),
    sdnn: one.sdnn && unpack(one.sdnn, 1),
  }));
  const found = both.map((one) => decide(net(), one.dynn, i, design));
  byId("clean-line").textContent = sentence("Clean image", found[0], DATA.truth[i]);
  byId("attacked-line").textContent = made ? sentence("Attacked image", found[1], DATA.truth[i]) : "Attacked image: choose an attack.";

  const eps = Number(byId("radius").value);
  const change = added(made?.row, i);
  draw(byId("clean"), clean(i));
  draw(byId("attacked"), (p, c) => clean(i)(p, c) + change(p, c));
  draw(byId("change"), (p, c) => GREY + (made ? (change(p, c) * 127) / eps : 0));
  byId("times").textContent = made ? `, ${Math.round(127 / eps)} times as strong` : "";

  const cost = costs(net(), design.exits);
  const rows = net().macs.map((_, k) => {
    const there = design.exits.indexOf(k);
    const name = k === exits - 1 ? `${k + 1} (final)` : `${k + 1}`;
    const cells = both.map((one, j) => answer(one.dynn, i, k, found[j], design));
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, there < 0 ? "" : percent(cost[there] / net().macs.at(-1))), ...cells);
  });
  const static_ = both.map((one) => (one.sdnn ? answer(one.sdnn, i, 0) : make("td", {}, "not measured")));
  rows.push(make("tr", { class: "static" }, make("th", { scope: "row" }, "SDNN"), make("td", {}, "other network"), ...static_));
  byId("answers").replaceChildren(...rows);
  byId("attacked-head").hidden = !made;
}

function start() {
  byId("network").append(...DATA.networks.map((one) => make("option", { value: one.id }, one.title)));
  byId("threshold").value = DATA.default[0];
  byId("attack").value = "early";
  DATA.truth.forEach((label, i) => {
    const canvas = make("canvas", { width: SIZE, height: SIZE, "aria-hidden": "true" });
    draw(canvas, clean(i));
    const radio = make("input", { type: "radio", name: "image", value: i, id: `image-${i}` });
    radio.checked = i === 0;
    byId("images").append(make("label", { class: "thumb", for: radio.id }, radio, canvas, make("span", {}, DATA.classes[label])));
  });
  const renew = () => {
    exitBoxes(byId("exits"), net().macs.length, show);
    fillRadii();
    show();
  };
  byId("network").addEventListener("change", renew);
  byId("attack").addEventListener("change", () => (fillRadii(), show()));
  for (const place of ["images", "radius"]) byId(place).addEventListener("change", show);
  byId("threshold").addEventListener("input", show);
  renew();
}

const picture = new Image();
picture.onload = () => {
  const canvas = make("canvas", { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  sheet = context.getImageData(0, 0, picture.width, picture.height);
  start();
};
picture.src = DATA.sheet;

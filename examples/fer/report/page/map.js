// Figure 5: the faces as points, in one map or in two maps of the same faces.

const MARKS = data.shapes;
const maps = [...document.querySelectorAll(".map")].map(drawMap);

function svg(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function drawMap(root) {
  const { points, predictions } = data.maps[Number(root.dataset.map)];
  const places = points.map(([x, y]) => [16 + 568 * x, 584 - 568 * y]);
  const marks = data.shown.map((face, at) => {
    const [x, y] = places[at];
    return svg("path", { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, "data-face": face });
  });
  const ring = svg("circle", { class: "ring", r: 9, cx: -99, cy: -99 });
  root.append(...marks, ring);
  const map = { root, places, marks, ring, predictions, at: -1 };
  root.addEventListener("pointermove", (event) => point(map, nearest(map, event), event));
  root.addEventListener("pointerleave", () => point(map, -1));
  root.addEventListener("click", (event) => {
    const at = nearest(map, event);
    if (at < 0) return;
    opener = root;
    location.hash = `face-${data.shown[at]}`;
  });
  root.addEventListener("keydown", (event) => move(map, event));
  return map;
}

// The mark under the pointer, or the nearest one within the width of a finger.
function nearest(map, event) {
  const hit = map.marks.indexOf(event.target);
  if (hit >= 0) return hit;
  const box = map.root.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((v) => (600 * v) / box.width);
  let [best, reach] = [-1, (600 * 18) / box.width];
  map.places.forEach(([px, py], at) => {
    const distance = Math.hypot(px - x, py - y);
    if (distance < reach && !map.marks[at].classList.contains("dim")) [best, reach] = [at, distance];
  });
  return best;
}

function point(map, at, event) {
  map.at = at;
  for (const each of maps) {
    const [x, y] = at < 0 ? [-99, -99] : each.places[at];
    each.ring.setAttribute("cx", x);
    each.ring.setAttribute("cy", y);
  }
  if (at < 0) {
    tip.hidden = true;
    return;
  }
  const face = data.shown[at];
  const text = `${data.names[face]}\n${verdict(face, map.predictions)}`;
  showTip(event ?? middle(map, at), picture(face), element("span", {}, text));
}

function middle(map, at) {
  const box = map.root.getBoundingClientRect();
  const [x, y] = map.places[at].map((v) => (v * box.width) / 600);
  return { clientX: box.left + x, clientY: box.top + y };
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// The next face in a direction, which is close and not far to the side.
function move(map, event) {
  if (event.key === "Enter" && map.at >= 0) {
    opener = map.root;
    location.hash = `face-${data.shown[map.at]}`;
  }
  const way = WAYS[event.key];
  if (!way) return;
  event.preventDefault();
  const [x, y] = map.at < 0 ? [300, 300] : map.places[map.at];
  let [best, least] = [map.at, Infinity];
  map.places.forEach(([px, py], at) => {
    const along = (px - x) * way[0] + (py - y) * way[1];
    const aside = Math.abs((px - x) * way[1]) + Math.abs((py - y) * way[0]);
    const cost = along + 3 * aside;
    const wanted = map.at < 0 ? Math.hypot(px - x, py - y) : cost;
    if ((map.at < 0 || along > 0.01) && wanted < least && !map.marks[at].classList.contains("dim")) [best, least] = [at, wanted];
  });
  if (best >= 0) point(map, best);
}

// Values of a latent or a unit, scaled to [0, 1] between their 2nd and 98th percentiles.
function shades(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [0.02, 0.98].map((q) => sorted[Math.round(q * (sorted.length - 1))]);
  return values.map((v) => Math.min(Math.max((v - low) / (high - low || 1), 0), 1));
}

function paint() {
  const by = document.getElementById("color").value;
  const column = Number(by.slice(1));
  const table = { w: data.weights, u: data.intensities }[by[0]];
  const numbers = by === "true" || by === "predicted" ? null : shades(data.shown.map((face) => table[face][column]));
  for (const map of maps) {
    map.marks.forEach((mark, at) => {
      const face = data.shown[at];
      const k = by === "predicted" ? map.predictions[face] : data.labels[face];
      mark.setAttribute("d", MARKS[(k + Math.floor(k / 8)) % 8]);
      mark.setAttribute("class", numbers ? "" : `k${k % 8}`);
      mark.style.fill = numbers ? `color-mix(in oklab, var(--heat) ${100 * numbers[at]}%, var(--line))` : "";
      mark.classList.toggle("dim", !chosenClasses.has(data.labels[face]));
    });
  }
}

// A click shows a class alone; further clicks add or remove classes; without any, all are shown.
const chosenClasses = new Set(data.classes.keys());
function toggleClass(k) {
  const all = chosenClasses.size === data.classes.length;
  if (all) chosenClasses.clear();
  if (!chosenClasses.delete(k)) chosenClasses.add(k);
  if (!chosenClasses.size) for (const each of data.classes.keys()) chosenClasses.add(each);
  for (const each of document.querySelectorAll("#legend button")) {
    each.setAttribute("aria-pressed", chosenClasses.has(Number(each.dataset.class)));
  }
  paint();
}

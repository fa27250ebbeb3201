// Faces: their pictures, descriptions, and the panel that the address selects (#face-17).

const data = JSON.parse(document.getElementById("data").textContent);
const panel = document.getElementById("panel");
const tip = document.getElementById("tip");
let opener = null;

// Text is inserted as text only, because file names may contain anything.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function picture(i) {
  const at = (index, count) => `${(100 * index) / Math.max(count - 1, 1)}%`;
  const { columns, rows } = data.sheet;
  const made = element("span", { class: "pic", role: "img", "aria-label": data.names[i] });
  made.style.backgroundPosition = `${at(i % columns, columns)} ${at(Math.floor(i / columns), rows)}`;
  return made;
}

function verdict(i, predictions = data.predictions) {
  const [truth, predicted] = [data.labels[i], predictions[i]];
  const mark = truth === predicted ? "✓" : "✗";
  return `${mark} true class ${data.classes[truth]}, predicted ${data.classes[predicted]}`;
}

function faceLink(i) {
  const wrong = data.labels[i] !== data.predictions[i];
  const made = element("a", { class: wrong ? "face wrong" : "face", href: `#face-${i}` }, picture(i));
  made.append(element("span", { class: "caption" }, percent(data.probabilities[i][data.predictions[i]])));
  return made;
}

function bar(name, share, shown, mark, own) {
  const track = element("span", { class: "track" });
  const fill = element("i");
  fill.style.width = `${Math.min(100 * share, 100)}%`;
  track.append(fill);
  if (mark !== undefined && mark !== null) {
    const line = element("b");
    line.style.left = `${Math.min(100 * mark, 100)}%`;
    track.append(line);
  }
  return element("div", { class: own ? "row own" : "row" }, element("span", {}, name), track, element("span", {}, shown));
}

function probabilityBars(i) {
  return data.probabilities[i].map((p, k) => bar(data.classes[k], p, percent(p), null, k === data.labels[i]));
}

function weightBars(i) {
  const own = data.weights[i];
  const mean = data.means[data.model[i]][data.labels[i]];
  const most = Math.max(...own, ...mean) || 1;
  return own.map((w, j) => bar(`Latent ${j + 1}`, w / most, w.toPrecision(3), mean[j] / most));
}

function unitBars(i) {
  return data.intensities[i].map((u, a) => bar(data.units[a], u, u.toFixed(2)));
}

function button(text, act) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", act);
  return made;
}

// The previous or next face in the list of the selected face, or among all faces.
function neighbor(i, step) {
  const list = opener?.closest(".faces");
  const order = list ? [...list.querySelectorAll(".face")].map((each) => Number(each.hash.slice(6))) : null;
  if (!order?.includes(i)) return (i + step + data.names.length) % data.names.length;
  return order[(order.indexOf(i) + step + order.length) % order.length];
}

function fill(i) {
  const wrong = data.labels[i] !== data.predictions[i];
  const buttons = element("div", { class: "buttons" });
  buttons.append(button("← Previous", () => choose(neighbor(i, -1))));
  buttons.append(button("Next →", () => choose(neighbor(i, 1))));
  buttons.append(button("Close", close));
  const outcome = element("p", { class: wrong ? "verdict bad" : "verdict" }, verdict(i));
  const parts = [buttons, picture(i), element("h2", { id: "panel-name" }, data.names[i]), outcome];
  if (data.folds) parts.push(element("p", { class: "note" }, `Tested in fold ${data.model[i] + 1}`));
  if (data.baseline) {
    const { predictions, confidence } = data.baseline;
    const theirs = `${data.classes[predictions[i]]}, ${percent(confidence[i])}`;
    parts.push(element("p", { class: "note" }, `The baseline predicted ${theirs}`));
  }
  parts.push(element("h3", {}, "Probabilities"), ...probabilityBars(i));
  if (data.weights) {
    const line = `The line is the mean of ${data.classes[data.labels[i]]}.`;
    parts.push(element("h3", {}, "Intra-W"), ...weightBars(i), element("p", { class: "note" }, line));
  }
  if (data.intensities) parts.push(element("h3", {}, "Action units"), ...unitBars(i));
  panel.replaceChildren(...parts);
  panel.dataset.face = i;
}

function choose(i) {
  location.replace(`#face-${i}`);
}

function close() {
  location.replace("#closed");
  opener?.focus?.();
}

function show() {
  const found = /^#face-(\d+)$/.exec(location.hash);
  const there = found !== null && Number(found[1]) < data.names.length;
  tip.hidden = true;
  panel.hidden = !there;
  if (!there) return;
  fill(Number(found[1]));
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
}

function showTip(event, ...children) {
  tip.replaceChildren(...children);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width < innerWidth ? event.clientX + 16 : event.clientX - 16 - width;
  const top = event.clientY + 16 + height < innerHeight ? event.clientY + 16 : event.clientY - 16 - height;
  tip.style.left = `${Math.max(left, 4)}px`;
  tip.style.top = `${Math.max(top, 4)}px`;
}

// The faces of a cell of the confusion matrix, by decreasing probability of the predicted class.
function showCell(chosen) {
  const [truth, predicted] = [Number(chosen.dataset.true), Number(chosen.dataset.predicted)];
  const sure = (i) => data.probabilities[i][predicted];
  const faces = [...data.labels.keys()].filter((i) => data.labels[i] === truth && data.predictions[i] === predicted);
  faces.sort((a, b) => sure(b) - sure(a));
  const box = document.getElementById("cell");
  for (const each of document.querySelectorAll(".confusion [aria-expanded]")) each.removeAttribute("aria-expanded");
  chosen.setAttribute("aria-expanded", "true");
  const of = data.labels.filter((label) => label === truth).length;
  const [trueName, predictedName] = [data.classes[truth], data.classes[predicted]];
  const what = `True class ${trueName}, predicted ${predictedName}`;
  box.querySelector("p").textContent = `${what}: ${faces.length} of ${of} faces, the surest first`;
  box.querySelector(".faces").replaceChildren(...faces.map(faceLink));
  box.hidden = false;
}

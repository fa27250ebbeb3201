// Training curves, drawn at their actual width, so that their numbers stay readable.

const HEIGHT = 200;
const EDGE = { left: 48, right: 12, top: 10, bottom: 36 };

function ticks(low, high, about) {
  const rough = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((each) => each >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + step / 1e6; n += 1) found.push(n * step);
  return found;
}

function formatValue(value) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}

function drawChart(figure, chart) {
  const width = Math.max(figure.clientWidth, 200);
  const values = chart.lines.flatMap((line) => line.values).filter((v) => v !== null);
  const epochs = chart.lines[0].values.length;
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low >= 0 && low < 0.5 * high) low = 0;
  if (low === high) [low, high] = [low - 1, high + 1];
  const x = (epoch) => EDGE.left + ((width - EDGE.left - EDGE.right) * (epoch - 1)) / Math.max(epochs - 1, 1);
  const y = (value) => EDGE.top + ((HEIGHT - EDGE.top - EDGE.bottom) * (high - value)) / (high - low);
  const root = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, tabindex: 0, role: "img" });
  const lastValues = chart.lines.map((line) => `${line.name} ${formatValue(line.values.at(-1))}${chart.unit}`).join(", ");
  root.setAttribute("aria-label", `${chart.title} over ${epochs} epochs; at the end ${lastValues}`);
  for (const value of ticks(low, high, 5)) {
    root.append(svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
    root.append(label(EDGE.left - 6, y(value) + 4, "end", formatValue(value)));
  }
  for (const epoch of ticks(1, epochs, Math.min(epochs, 8)).filter(Number.isInteger)) {
    root.append(label(x(epoch), HEIGHT - EDGE.bottom + 16, "middle", String(epoch)));
  }
  root.append(label((EDGE.left + width - EDGE.right) / 2, HEIGHT - 4, "middle", "epoch"));
  for (const line of chart.lines) root.append(...drawLine(line, x, y));
  follow(root, chart, x, epochs);
  figure.querySelector("svg.plot")?.remove();
  root.classList.add("plot");
  figure.querySelector("figcaption").after(root);
}

function label(x, y, anchor, text) {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

function drawLine(line, x, y) {
  const known = line.values.map((value, at) => [x(at + 1), y(value ?? 0), value !== null]).filter((each) => each[2]);
  if (known.length === 1) return [svg("circle", { class: line.name, cx: known[0][0], cy: known[0][1], r: 3 })];
  const path = known.map(([px, py], at) => `${at ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
  return [svg("path", { class: `line ${line.name}`, d: path })];
}

function follow(root, chart, x, epochs) {
  const here = svg("line", { class: "here", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
  root.append(here);
  let epoch = epochs;
  const read = (to, event) => {
    epoch = Math.min(Math.max(to, 1), epochs);
    for (const end of ["x1", "x2"]) here.setAttribute(end, x(epoch));
    here.setAttribute("visibility", "visible");
    const lines = chart.lines.map((line) => `${line.name}: ${formatValue(line.values[epoch - 1])} ${chart.unit}`);
    const box = root.getBoundingClientRect();
    const at = event ?? { clientX: box.left + x(epoch), clientY: box.top + 20 };
    showTip(at, element("span", {}, [`epoch ${epoch}`, ...lines].join("\n")));
  };
  const leave = () => {
    here.setAttribute("visibility", "hidden");
    tip.hidden = true;
  };
  root.addEventListener("pointermove", (event) => {
    const place = event.clientX - root.getBoundingClientRect().left;
    read(Math.round(1 + ((epochs - 1) * (place - x(1))) / (x(epochs) - x(1) || 1)), event);
  });
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    read(epoch + step);
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
}

function key(line) {
  const sample = svg("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" });
  sample.append(svg("path", { class: `line ${line.name}`, d: "M0 5H28" }));
  return element("span", {}, sample, line.name);
}

function drawCharts() {
  const place = document.querySelector(".charts");
  for (const chart of data.charts) {
    const title = chart.unit ? `${chart.title} (${chart.unit})` : chart.title;
    const figure = element("figure", {}, element("figcaption", {}, title));
    if (chart.lines.length > 1) figure.append(element("div", { class: "key" }, ...chart.lines.map(key)));
    place.append(figure);
    let width = 0;
    new ResizeObserver(() => {
      if (figure.clientWidth === width) return;
      width = figure.clientWidth;
      drawChart(figure, chart);
    }).observe(figure);
    drawChart(figure, chart);
  }
}

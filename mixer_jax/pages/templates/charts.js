// Draws the charts of the page with Vega-Embed, which the script before this one defines. The colors are those of style.css.
//
// A line chart has what its specification alone does not: dragging over a range of x zooms to it and a double click shows all
// again, a click on a name of the legend hides or shows that curve, and the legend shows the values at the pointer.

const OPTIONS = {
  actions: false,
  renderer: "svg", // so that style.css colors the charts, also when the page changes between light and dark
  ast: true, // expressions are interpreted, so that the page needs no eval
  defaultStyle: false,
  logLevel: 1, // errors alone, and no warning of the pointer's empty data
};
const LOG_SCALE = {type: "log", nice: false};
const MIN_DRAG = 4; // pixels

for (const plot of document.querySelectorAll(".plot")) {
  const figure = plot.parentElement;
  const {spec, curves} = JSON.parse(figure.querySelector("script").textContent);
  if (curves) {
    drawLines(figure, plot, spec, curves);
  } else {
    vegaEmbed(plot, spec, OPTIONS);
  }
}

async function drawLines(figure, plot, spec, curves) {
  const log = figure.querySelector(".log");
  const linearScale = spec.layer[0].encoding.y.scale;
  const output = figure.querySelector("output");
  const entries = [...figure.querySelectorAll(".legend button")];
  const values = entries.map((entry) => entry.querySelector("b"));
  const lastValues = values.map((value) => value.textContent);
  spec.datasets.points = curves.flatMap((points, s) => points.map(([x, y]) => ({x, y, s})));
  let view, range = null;

  async function embed() {
    if (view) view.finalize();
    const scale = log?.getAttribute("aria-pressed") === "true" ? LOG_SCALE : linearScale;
    for (const {encoding} of spec.layer) if (encoding.y) encoding.y.scale = scale;
    ({view} = await vegaEmbed(plot, spec, OPTIONS));
    view.addEventListener("pointermove", (event) => showValues(xAt(event)));
    view.addEventListener("pointerout", () => showValues(null));
    view.addEventListener("dblclick", () => zoom(null));
    await update();
  }

  function update() {
    const hidden = entries.flatMap((entry, s) => (entry.getAttribute("aria-pressed") === "true" ? [] : [s]));
    return view.signal("hidden", hidden).signal("range", range).runAsync();
  }

  function xAt(event) {
    return view.scale("x").invert(event.clientX - plot.querySelector("svg").getBoundingClientRect().left - view.origin()[0]);
  }

  function zoom(newRange) {
    range = newRange;
    view.signal("brush_x", [0, 0]);
    return update();
  }

  function showValues(x) {
    const points = x === null ? [] : curves.map((points) => nearest(points, x));
    const shown = points.map((point, s) => ({...point, s})).filter(({y, s}) => y !== null && !view.signal("hidden").includes(s));
    values.forEach((value, s) => { value.textContent = x === null ? lastValues[s] : text(points[s].y); });
    output.textContent = x === null || !shown.length ? "" : `at ${text(shown[0].x)}`;
    view.data("pointer", shown).runAsync();
  }

  for (const entry of entries) {
    entry.addEventListener("click", () => { toggle(entry); update(); });
  }
  log?.addEventListener("click", () => { toggle(log); embed(); });
  window.addEventListener("pointerup", () => {
    const [start, end] = view?.signal("brush_x") ?? [0, 0];
    if (Math.abs(end - start) >= MIN_DRAG) zoom(view.signal("brush").x);
  });
  await embed();
}

function toggle(button) {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
}

// The point of a curve, in the order of x, whose x is nearest.
function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle; else high = middle;
  }
  const [nearX, y] = x - points[low][0] <= points[high][0] - x ? points[low] : points[high];
  return {x: nearX, y};
}

function text(value) {
  if (value === null) return "not finite";
  const rounded = Number.isInteger(value) ? value : Number(value.toPrecision(4));
  return rounded.toLocaleString("en", {maximumSignificantDigits: 12}).replaceAll(",", "\u202f").replace("-", "\u2212");
}

// Pictures of figures: lines over the last minutes, and ranges of times.

import {count, duration, element, time, write} from "./text.js";

const SPAN = 300; // seconds
const HEIGHT = 100; // of the picture, in units of its own

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// The least number that isn't smaller, has one digit and zeros, and an even half.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 6, 8, 10].find(step => step * power >= value * .9999);
}

// Lines over the last five minutes. The legend has the latest figures, or those where
// the pointer is, or where one has gone to by the arrow keys.
export class Chart {
  constructor(figure, title, lines, format, say) {
    this.title = title;
    this.lines = lines;
    this.format = format;
    this.say = say;
    this.points = [];
    this.at = null; // seconds before the latest point, where the cursor is

    this.legend = element("figcaption");
    for (const line of lines) {
      line.value = element("b");
      this.legend.append(element("span", {"data-colour": line.colour}, `${line.label} `, line.value));
      line.area = shape("path", {class: "area", "data-colour": line.colour});
      line.path = shape("path", {"data-colour": line.colour});
    }
    this.when = element("span");
    this.legend.append(this.when);

    this.svg = shape("svg", {
      viewBox: `0 0 ${SPAN} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: 0});
    this.cursor = shape("line", {class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden"});
    this.svg.append(
      ...[0, HEIGHT / 2].map(y => shape("line", {class: "grid", x1: 0, x2: SPAN, y1: y, y2: y})),
      ...lines.map(line => line.area), ...lines.map(line => line.path), this.cursor);
    this.scale = [1, .5, 0].map(part => {
      const label = element("span", {class: "scale", "aria-hidden": "true"});
      label.style.top = `${100 - 100 * part}%`;
      return label;
    });
    figure.append(
      this.legend,
      element("div", {class: "plot"}, this.svg, ...this.scale),
      element("div", {class: "ago", "aria-hidden": "true"},
        ...["5 min ago", "now"].map(text => element("span", {}, text))));
    this.listen();
  }

  listen() {
    this.svg.addEventListener("pointermove", event => {
      const {left, width} = this.svg.getBoundingClientRect();
      this.move(SPAN * (1 - (event.clientX - left) / width));
    });
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", event => {
      const step = {ArrowLeft: 5, ArrowRight: -5, Home: SPAN, End: -SPAN, Escape: null}[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.move(step && (this.at ?? 0) + step);
      if (this.at !== null) this.say(this.legend.textContent);
    });
  }

  move(at) {
    this.at = at === null ? null : Math.min(SPAN, Math.max(0, at));
    this.label();
  }

  // Points have a time, and a figure for each line.
  draw(points) {
    this.points = points;
    if (!points.length) return;
    const now = points.at(-1).time;
    const keys = this.lines.map(line => line.key);
    const top = round(Math.max(1, ...points.flatMap(point => keys.map(key => point[key]))));
    for (const {key, area, path} of this.lines) {
      const way = points.map(point =>
        `${(SPAN - now + point.time).toFixed(2)} ${(HEIGHT * (1 - point[key] / top)).toFixed(2)}`);
      path.setAttribute("d", `M${way.join("L")}`);
      const start = (SPAN - now + points[0].time).toFixed(2);
      area.setAttribute("d", `M${start} ${HEIGHT}L${way.join("L")}L${SPAN} ${HEIGHT}Z`);
    }
    this.scale.forEach((label, i) => write(label, this.format(top * (1 - i / 2))));
    const highest = key => Math.max(...points.map(point => point[key]));
    const facts = this.lines.map(({key, label}) =>
      `${label} ${this.format(points.at(-1)[key])} now, ${this.format(highest(key))} at most`);
    this.svg.setAttribute("aria-label", `${this.title}, the last minutes: ${facts.join("; ")}`);
    this.label();
  }

  label() {
    const {points} = this;
    if (!points.length) return;
    const now = points.at(-1).time;
    const point = this.at === null ? points.at(-1)
      : points.findLast(each => each.time <= now - this.at + .5) ?? points[0];
    const x = SPAN - now + point.time;
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.cursor.setAttribute("visibility", this.at === null ? "hidden" : "visible");
    for (const {key, value} of this.lines) write(value, this.format(point[key]));
    write(this.when, this.at === null ? "" : ` at ${time(point.time)}`);
  }
}

const FIGURES = [["p50", "median"], ["p90", "90 %"], ["p99", "99 %"], ["max", "longest"]];
const DOTS = ["p50", "p90", "p99"];
const MOST_TICKS = 4;

// Rows of quantiles on one logarithmic scale.
export class Ranges {
  constructor(place, rows) {
    this.rows = rows.map(({key, label, colour}) => {
      const dots = DOTS.map(() => element("i", {class: "dot"}));
      const bar = element("i", {class: "bar"});
      const values = FIGURES.map(() => element("b"));
      const items = FIGURES.map(([, name], i) => element("li", {}, `${name} `, values[i]));
      place.append(element("div", {class: "range", "data-colour": colour, role: "group", "aria-label": label},
        element("span", {"aria-hidden": "true"}, label),
        element("div", {class: "track", "aria-hidden": "true"}, bar, ...dots),
        element("ul", {}, ...items)));
      return {key, bar, dots, values};
    });
    this.ticks = element("div", {class: "ticks"});
    place.append(element("div", {class: "range", "aria-hidden": "true"}, this.ticks));
    this.low = this.high = null; // the ends of the scale, as powers of ten
  }

  draw(stats) {
    const there = this.rows.filter(({key}) => stats[key].max).map(({key}) => stats[key]);
    const powers = there.flatMap(({p50, max}) => [p50, max]).map(power);
    if (powers.length) this.rescale(Math.floor(Math.min(...powers)), Math.ceil(Math.max(...powers)));
    for (const {key, bar, dots, values} of this.rows) {
      const figures = stats[key], isThere = figures.max > 0;
      FIGURES.forEach(([name], i) => write(values[i], isThere ? duration(figures[name]) : "–"));
      [bar, ...dots].forEach(mark => { mark.hidden = !isThere; });
      if (!isThere) continue;
      bar.style.left = this.place(figures.p50);
      bar.style.width = `${parseFloat(this.place(figures.max)) - parseFloat(this.place(figures.p50))}%`;
      DOTS.forEach((name, i) => { dots[i].style.left = this.place(figures[name]); });
    }
  }

  rescale(low, high) {
    high = Math.max(high, low + 3);
    if (low === this.low && high === this.high) return;
    [this.low, this.high] = [low, high];
    const step = Math.ceil((high - low) / MOST_TICKS);
    const marks = Array.from({length: Math.floor((high - low) / step) + 1}, (_, i) => 10 ** (low + i * step));
    this.ticks.replaceChildren(...marks.map(seconds => {
      const mark = element("span", {}, seconds < 100 ? duration(seconds) : `${count(seconds)} s`);
      mark.style.left = this.place(seconds);
      return mark;
    }));
  }

  place(seconds) {
    return `${100 * (power(seconds) - this.low) / (this.high - this.low)}%`;
  }
}

function power(seconds) {
  return Math.log10(Math.max(1e-6, seconds));
}

// How figures are written, and elements made.

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const three = new Intl.NumberFormat("en", {maximumSignificantDigits: 3});
const compact = new Intl.NumberFormat("en", {maximumSignificantDigits: 3, notation: "compact"});
const clock = new Intl.DateTimeFormat("en-GB", {timeStyle: "medium"});

const UNITS = [[1e-6, "µs"], [1e-3, "ms"], [1, "s"]];

export function count(n) {
  return n < 1e6 ? whole.format(n) : compact.format(n);
}

export function rate(n) {
  return n < 100 ? three.format(n) : count(n);
}

export function duration(seconds) {
  if (seconds < 99.5) {
    const [size, unit] = UNITS.findLast(([size]) => seconds >= size * .9995) ?? UNITS[0];
    return `${three.format(seconds / size)} ${unit}`;
  }
  const s = Math.round(seconds), m = Math.floor(s / 60), h = Math.floor(m / 60);
  return h ? `${count(h)} h ${m % 60} min` : `${m} min ${s % 60} s`;
}

export function time(seconds) {
  return clock.format(seconds * 1000);
}

export function plural(n, one, many) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

// All text gets into the page here, and none of it as anything but text.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

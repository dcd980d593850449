// The page: what the queue tells, each second, is put where it belongs.

import {Chart, Ranges} from "./chart.js";
import {count, duration, element, plural, rate, time, write} from "./text.js";

const SPAN = 300; // seconds, of the charts
const LOST_SHOWN = 60; // seconds, in the table of workers
const MOST_FAILURES = 20, MOST_CHANGES = 40, MOST_ROWS = 100;
const QUIET = 10_000; // ms between announcements
const AGAIN = 5_000; // ms before another try, if the server has refused

const byId = id => document.getElementById(id);

let source = null; // the events, while the page is visible
let samples = [];
let known = new Map(); // workers, by ID, as they were when they were seen last
let lost = new Map(); // of those that were lost: when, and whether they were replaced
let isOver = false;

const lengths = new Chart(byId("length"), "Queue length", [
  {key: "waiting", label: "Waiting", colour: "waiting"},
  {key: "running", label: "Running", colour: "running"},
], count, say);
const throughput = new Chart(byId("throughput"), "Throughput, calls per second", [
  {key: "done", label: "Done/s", colour: "done"},
  {key: "failed", label: "Failed/s", colour: "failed"},
], rate, say);
const times = new Ranges(byId("times"), [
  {key: "wait", label: "Waiting", colour: "waiting"},
  {key: "run", label: "Running", colour: "running"},
]);

// Where the figures come from.

function connect() {
  if (source || isOver || document.hidden) return;
  source = new EventSource("events");
  source.onmessage = event => take(JSON.parse(event.data));
  source.onerror = () => {
    setState("lost", "Connection lost, trying again");
    if (source.readyState !== EventSource.CLOSED) return;
    disconnect();
    setTimeout(connect, AGAIN);
  };
}

function disconnect() {
  if (source) source.close();
  source = null;
}

function take(update) {
  const {stats} = update;
  if (update.whole) {
    samples = [];
    lost.clear();
    byId("failures").replaceChildren();
    byId("changes").replaceChildren();
  }
  samples.push(...update.samples);
  samples = samples.filter(sample => sample.time > stats.time - SPAN);
  stats.workers.forEach(worker => known.set(worker.ID, worker));
  update.changes.forEach(addChange);
  update.failures.forEach(addFailure);
  isOver = update.isOver;
  showState(stats, update);
  showNow(stats);
  showWorkers(stats);
  showSeries(stats, update.isControlled);
  if (!update.whole) announce(update);
  if (isOver) disconnect();
}

function setState(state, text) {
  document.body.dataset.state = state;
  write(byId("state"), text);
}

function showState(stats, {isRunning, isControlled}) {
  const name = stats.name ?? "Queue";
  document.title = name;
  write(byId("name"), name);
  if (isOver) setState("over", "The queue has been shut down");
  else if (!isRunning) setState("stopping", "Shutting down");
  else if (stats.paused) setState("paused", "Paused");
  else setState("live", "Live");
  document.querySelectorAll(".controls").forEach(each => { each.hidden = !isControlled; });
  write(byId("pause"), stats.paused ? "Resume" : "Pause");
}

// The figures of now, and the charts.

const FAILED = {error: "raised", timeout: "timed out", stopped: "not run"};

function showNow(stats) {
  const now = samples.at(-1);
  const rates = samples.slice(1).map((sample, i) => {
    const seconds = Math.max(.001, sample.time - samples[i].time);
    const perSecond = key => Math.max(0, sample[key] - samples[i][key]) / seconds;
    return {time: sample.time, done: perSecond("done"), failed: perSecond("failed")};
  });
  const busy = stats.workers.filter(worker => worker.running).length;
  const kinds = Object.entries(stats.failed).map(([kind, n]) => `${count(n)} ${FAILED[kind] ?? kind}`);
  const retried = stats.retried ? `${count(stats.retried)} retried` : "";
  write(byId("waiting"), count(now.waiting));
  write(byId("waitingNote"), now.waiting ? `in ${stats.totalSeries} series` : "");
  write(byId("running"), count(now.running));
  write(byId("runningNote"), `${busy} of ${plural(stats.totalWorkers, "worker", "workers")} busy`);
  write(byId("done"), count(now.done));
  write(byId("doneNote"), rates.length ? `${rate(rates.at(-1).done)} per second` : "");
  write(byId("failed"), count(now.failed));
  write(byId("failedNote"), [kinds.join(", "), retried].filter(Boolean).join(" · "));
  lengths.draw(samples);
  throughput.draw(rates);
  times.draw(stats);
}

// Tables, whose rows stay where they are as long as they can.

function fill(table, items, makeRow, fillRow) {
  const body = table.tBodies[0];
  const rows = new Map([...body.rows].map(row => [row.dataset.key, row]));
  items.forEach((item, i) => {
    let row = rows.get(item.key);
    if (!row) {
      row = makeRow(item);
      row.dataset.key = item.key;
    }
    rows.delete(item.key);
    fillRow(row, item);
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
  });
  rows.forEach(row => row.remove());
}

function showWorkers(stats) {
  const running = Map.groupBy(stats.running, call => call.worker);
  const there = new Set(stats.workers.map(worker => worker.ID));
  for (const [ID, {at}] of lost) if (at < stats.time - LOST_SHOWN) lost.delete(ID);
  for (const ID of known.keys()) if (!there.has(ID) && !lost.has(ID)) known.delete(ID);
  const gone = [...lost.keys()].filter(ID => !there.has(ID)).slice(-5)
    .map(ID => known.get(ID) ?? {ID, kind: "Worker", own: [], running: 0});
  const items = [...stats.workers, ...gone].sort((a, b) => a.ID - b.ID)
    .map(worker => ({key: `${worker.ID}`, worker, calls: running.get(worker.ID) ?? []}));
  fill(byId("workers"), items, makeWorker, (row, item) => fillWorker(row, item, stats.time, there));
  const more = stats.totalWorkers - stats.workers.length;
  write(byId("workersCount"), more ? `${count(stats.workers.length)} of ${count(stats.totalWorkers)}` : "");
}

function makeWorker() {
  return element("tr", {role: "row"},
    element("th", {scope: "row", role: "rowheader"}, element("span"), element("span", {class: "note"})),
    element("td", {role: "cell"}, element("span", {class: "pill"})),
    element("td", {role: "cell"}, element("b"), element("span", {class: "call"}), element("span", {class: "note"})),
    element("td", {role: "cell", class: "number"}, element("span"), element("span", {class: "note"})));
}

function fillWorker(row, {worker, calls}, now, there) {
  const [who, state, runs, since] = row.cells;
  const isThere = there.has(worker.ID);
  const [label, colour] = isThere ? stateOf(worker) : goneState(worker);
  row.classList.toggle("gone", !isThere);
  write(who.children[0], `${worker.kind} ${worker.ID}`);
  const facts = [worker.pid ? `pid ${worker.pid}` : "", worker.own.join(", ")];
  write(who.children[1], facts.filter(Boolean).join(" · "));
  write(state.firstChild, label);
  state.dataset.colour = colour;
  const call = isThere && calls.length ? calls.reduce((a, b) => a.seconds > b.seconds ? a : b) : null;
  write(runs.children[0], call?.name ?? "");
  write(runs.children[1], call?.call ?? "");
  const more = Math.max(worker.running, calls.length) - 1;
  write(runs.children[2], call && more > 0 ? `and ${count(more)} more` : "");
  write(since.children[0], call ? duration(call.seconds) : "");
  write(since.children[1], call ? `since ${time(now - call.seconds)}` : "");
}

function stateOf(worker) {
  if (worker.running) return ["busy", "running"];
  return worker.state === "ready" ? ["idle", ""] : [worker.state, "waiting"];
}

function goneState({ID}) {
  return [lost.get(ID)?.isReplaced ? "lost, replaced" : "lost", "failed"];
}

function showSeries(stats, isControlled) {
  const all = new Map();
  const of = key => {
    if (!all.has(key)) all.set(key, {key, waiting: 0, running: 0, workers: 0});
    return all.get(key);
  };
  Object.entries(stats.queued).forEach(([key, n]) => { of(key).waiting = n; });
  stats.running.forEach(call => { of(call.series).running += 1; });
  stats.workers.forEach(worker => new Set(worker.series).forEach(key => { of(key).workers += 1; }));
  const own = new Set(stats.workers.flatMap(worker => worker.own));
  const items = [...all.values()].filter(item => own.has(item.key) || item.waiting || item.running).sort((a, b) => a.key < b.key ? -1 : 1);
  fill(byId("series"), items.slice(0, MOST_ROWS), makeSeries, (row, item) => {
    const cells = [...row.cells];
    [item.key === "None" ? "(none)" : item.key, ...[item.waiting, item.running, item.workers].map(count)]
      .forEach((text, i) => write(cells[i], text));
    cells[4].hidden = !isControlled;
    cells[4].firstChild.disabled = !item.waiting;
  });
  const left = Math.max(0, items.length - MOST_ROWS) + stats.totalSeries - Object.keys(stats.queued).length;
  write(byId("seriesCount"), left ? `and ${count(left)} more` : "");
}

function makeSeries({key}) {
  const button = element("button", {type: "button", "aria-label": `Cancel what waits of ${key}`}, "Cancel");
  button.onclick = () => cancel(key);
  return element("tr", {},
    element("th", {scope: "row"}), ...[1, 2, 3].map(() => element("td", {class: "number"})),
    element("td", {class: "number controls"}, button));
}

// What has happened, the newest first.

const CHANGES = {
  hired: ({worker}) => `Worker ${worker} is ready`,
  lost: ({worker}) => `Worker ${worker} was lost`,
  replaced: ({worker}) => `Worker ${worker} was replaced`,
  unserved: ({series}) => `Calls wait that nobody serves, of the series ${series}`,
};

function prepend(list, item, most) {
  list.prepend(item);
  while (list.children.length > most) list.lastChild.remove();
}

function stamp(seconds) {
  return element("time", {datetime: new Date(seconds * 1000).toISOString()}, time(seconds));
}

function addChange(change) {
  if (change.kind === "lost") lost.set(change.worker, {at: change.time, isReplaced: false});
  if (change.kind === "replaced" && lost.has(change.worker)) lost.get(change.worker).isReplaced = true;
  const text = CHANGES[change.kind](change) + (change.error ? `: ${change.error}` : "");
  prepend(byId("changes"), element("li", {}, stamp(change.time), text), MOST_CHANGES);
}

function addFailure(failure) {
  const who = [failure.series && failure.series !== "None" ? `series ${failure.series}` : "",
    failure.worker === null ? "" : `worker ${failure.worker}`,
    failure.seconds === null ? "" : `after ${duration(failure.seconds)}`].filter(Boolean).join(", ");
  const title = element("span", {class: "what"}, failure.name ? element("b", {}, failure.name, " ") : "",
    element("span", {class: "call"}, failure.call ?? ""));
  const summary = element("summary", {}, stamp(failure.time),
    element("span", {class: "pill", "data-colour": failure.kind === "retried" ? "warning" : "failed"}, failure.kind),
    title, element("span", {class: "error"}, failure.error ?? ""));
  const item = element("details", {}, summary, element("p", {class: "note"}, who),
    element("pre", {tabindex: 0}, failure.traceback ?? ""));
  prepend(byId("failures"), element("li", {}, item), MOST_FAILURES);
}

// For those who don't see it: what went wrong, now and then; nothing of what changes all the time.

let unsaid = {failed: 0, lost: 0}, saidAt = 0;

function say(text) {
  byId("news").textContent = text;
}

function announce({failures, changes}) {
  unsaid.failed += failures.filter(failure => failure.kind !== "retried").length;
  unsaid.lost += changes.filter(change => change.kind === "lost").length;
  const texts = [];
  if (unsaid.failed) texts.push(`${plural(unsaid.failed, "call", "calls")} failed`);
  if (unsaid.lost) texts.push(`${plural(unsaid.lost, "worker", "workers")} lost`);
  if (!texts.length || performance.now() < saidAt + QUIET) return;
  say(texts.join(", "));
  unsaid = {failed: 0, lost: 0};
  saidAt = performance.now();
}

// What those who may can do.

async function post(path) {
  try {
    const answer = await fetch(path, {method: "POST"});
    if (answer.status === 403) throw new Error("You may not do that.");
    if (!answer.ok) throw new Error("That failed.");
  } catch (error) {
    ask(error.message, false);
  }
}

let asked = Promise.resolve();

function ask(text, isQuestion) {
  // One after the other: a dialog tells that it's closed some time after it is.
  asked = asked.then(() => show(text, isQuestion));
  return asked;
}

function show(text, isQuestion) {
  const dialog = byId("ask");
  const [no, yes] = dialog.querySelectorAll("button");
  write(byId("question"), text);
  write(no, isQuestion ? "Keep them" : "Close");
  yes.hidden = !isQuestion;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise(resolve => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

async function cancel(series) {
  const what = series === "None" ? "without a series" : `of the series ${series}`;
  if (await ask(`Cancel all calls ${what} that wait?`, true)) {
    await post(`cancel?${new URLSearchParams({series})}`);
  }
}

byId("pause").onclick = () => post(document.body.dataset.state === "paused" ? "resume" : "pause");
document.addEventListener("visibilitychange", () => document.hidden ? disconnect() : connect());
connect();

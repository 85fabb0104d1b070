"use strict";

// Everything foreign (captions, file names, tags, reasons) enters the page as text: `append`, `textContent`, `alt`.

const STATES = [
  ["", "All"], ["proposed", "Proposed"], ["approved", "Approved"], ["rejected", "Rejected"], ["expired", "Expired"],
  ["revoked", "Revoked"],
];
const MARKS = {proposed: "○", approved: "✓", rejected: "✕", expired: "–", revoked: "⊘", unreadable: "!"};
const DONE = {approved: "Approved", rejected: "Rejected"};
const $ = (id) => document.getElementById(id);

const assets = new Map(); // id -> asset, in the order of the page
const cards = new Map(); // id -> li
const selected = new Set();
const reasons = new Set();
const tags = new Set();
let csrf = "";
let current = null; // id of the picture that keys act on
let anchor = null; // where a range of selected pictures begins
let next = null; // where the next page of the list begins
let matching = null;
let loads = 0;
let busy = false;
let over = false;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const title = (asset) => asset.caption ?? asset.file_name;
const alt = (asset) => asset.caption ?? `uncaptioned: ${asset.file_name}`;
const plural = (count) => (count === 1 ? "1 picture" : `${count} pictures`);
const moment = (at) => `${at.slice(0, 16).replace("T", " ")} UTC`;
const decidable = (asset) => asset.review.sequence !== null && asset.review.state !== "revoked";

// -- talking to the server

async function call(path, body) {
  const options = {headers: {Accept: "application/json"}};
  if (body !== undefined) {
    options.method = "POST";
    options.headers = {...options.headers, "Content-Type": "application/json", "X-VRAG-Review": csrf};
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. It was stopped, or is gone: start the review again.");
  }
  const data = await response.json();
  if (!response.ok) throw new Error(data.hint ? `${data.message} Next: ${data.hint}.` : data.message);
  return data;
}

function say(text) {
  $("problem").hidden = true;
  $("status").textContent = $("detail-status").textContent = text;
}

function complain(error) {
  if ($("detail").open) $("detail").close(); // it would hide the words
  $("status").textContent = "";
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  $("problem").scrollIntoView({block: "nearest"});
}

// -- the list

function chosenState() {
  return $("filters").querySelector("input[name=state]:checked").value;
}

async function load({more = false} = {}) {
  const turn = ++loads;
  const asked = new URLSearchParams({state: chosenState(), query: $("query").value, tag: $("tag").value});
  if (more && next !== null) asked.set("after", next);
  $("more").disabled = true;
  let data;
  try {
    data = await call(`/api/assets?${asked}`);
  } catch (error) {
    if (turn === loads) complain(error);
    return;
  } finally {
    $("more").disabled = false;
  }
  if (turn !== loads) return; // a later question was asked meanwhile
  if (!more) {
    assets.clear();
    cards.clear();
    selected.clear();
    $("grid").replaceChildren();
    current = anchor = null;
  }
  for (const asset of data.assets) {
    if (assets.has(asset.id)) continue;
    assets.set(asset.id, asset);
    const card = el("li", {class: "card"});
    cards.set(asset.id, card);
    draw(asset);
    $("grid").append(card);
    for (const tag of asset.tags) tags.add(tag);
  }
  next = data.next;
  matching = data.matching;
  if (current === null) setCurrent([...assets.keys()][0] ?? null);
  $("problem").hidden = true;
  $("tags").replaceChildren(...[...tags].sort().slice(0, 200).map((tag) => el("option", {value: tag})));
  showCounts(data.counts);
  showSelection();
  showList();
}

function showCounts(counts) {
  for (const [state] of STATES) $(`count-${state}`).textContent = counts[state].toLocaleString("en");
}

function showList() {
  const shown = assets.size;
  const of = matching !== null && matching > shown ? ` of ${matching.toLocaleString("en")}` : next === null ? "" : " so far";
  $("heading").textContent = shown ? `${plural(shown)}${of}` : "No picture";
  $("more").hidden = next === null;
  $("keys").hidden = $("select-all").hidden = !shown;
  $("empty").hidden = shown > 0;
  $("empty-why").textContent = $("query").value || $("tag").value
    ? "Nothing has all of these words and this tag. Clear a field to see more."
    : chosenState() === "proposed" ? "Every picture has been decided about." : "There is none in this state.";
}

function badge(asset) {
  const state = asset.review.state;
  return el("span", {class: `badge ${state}`}, el("span", {"aria-hidden": "true"}, MARKS[state] ?? "?"), ` ${state}`);
}

function rightsLine(asset) {
  const rights = asset.rights;
  const parts = [rights.licence ?? "no licence stated"];
  if (rights.holder) parts.push(rights.holder);
  return parts.join(" · ");
}

function expiryLine(asset) {
  const day = asset.rights.expires_on;
  if (!day) return null;
  if (asset.review.state === "expired") return el("p", {class: "line warn"}, `rights ended with ${day}`);
  const days = Math.ceil((Date.parse(`${day}T23:59:59Z`) - Date.now()) / 86_400_000);
  if (days <= 0) return el("p", {class: "line warn"}, `rights ended with ${day}`);
  if (days <= 30) return el("p", {class: "line warn"}, `until ${day}, ${days === 1 ? "1 day" : `${days} days`} left`);
  return el("p", {class: "line"}, `until ${day}`);
}

function picture(asset, folder) {
  const image = el("img", {src: `/${folder}/${asset.sha256}`, alt: alt(asset), loading: "lazy", decoding: "async"});
  image.addEventListener("error", () => {
    image.replaceWith(el("span", {class: "unshown"}, `No preview: ${alt(asset)}`));
  });
  return image;
}

function draw(asset) {
  const id = asset.id;
  const card = cards.get(id);
  const focused = card.contains(document.activeElement);
  const heading = `title-${asset.sha256}`;
  const look = el("button", {type: "button", class: "look", "aria-haspopup": "dialog"}, picture(asset, "thumbnail"));
  look.addEventListener("click", () => openDetail(id));
  const tick = el("input", {type: "checkbox", "aria-label": `Select: ${title(asset)}`});
  tick.checked = selected.has(id);
  tick.addEventListener("click", (event) => select(id, tick.checked, event.shiftKey));
  const approve = el("button", {type: "button", class: "good", "aria-describedby": heading}, "Approve");
  const reject = el("button", {type: "button", class: "bad", "aria-describedby": heading}, "Reject …");
  approve.disabled = !decidable(asset) || asset.review.state === "approved";
  reject.disabled = !decidable(asset) || asset.review.state === "rejected";
  approve.addEventListener("click", () => ask("approved", [id]));
  reject.addEventListener("click", () => ask("rejected", [id]));
  const last = asset.history.length ? asset.review : null;
  const article = el(
    "article", {tabindex: id === current ? "0" : "-1", "aria-labelledby": heading},
    el("div", {class: "frame"}, look, el("label", {class: "tick"}, tick)),
    el(
      "div", {class: "words"},
      el("div", {class: "state"}, badge(asset)),
      el("h3", {id: heading, class: asset.caption === null ? "none" : null, dir: "auto"}, asset.caption ?? "no caption"),
      el("p", {class: "file"}, asset.file_name),
      el("p", {class: "line"}, rightsLine(asset)),
      expiryLine(asset),
      asset.tags.length ? el("p", {class: "tags"}, ...asset.tags.slice(0, 6).map((tag) => el("span", {}, tag))) : null,
      last && last.by !== "rights"
        ? el("p", {class: "line last", dir: "auto"}, `${last.by}, ${last.at.slice(0, 10)}${last.reason ? `: ${last.reason}` : ""}`)
        : null,
      asset.problem ? el("p", {class: "line warn"}, asset.problem) : null,
    ),
    el("div", {class: "actions"}, approve, reject),
  );
  article.addEventListener("focusin", () => setCurrent(id));
  article.addEventListener("pointerdown", () => setCurrent(id));
  card.className = `card ${asset.review.state}${selected.has(id) ? " selected" : ""}${asset.fresh ? " fresh" : ""}`;
  card.replaceChildren(article);
  if (focused) article.focus({preventScroll: true});
}

function setCurrent(id) {
  if (current !== null && current !== id) cards.get(current)?.firstChild.setAttribute("tabindex", "-1");
  current = id;
  if (id !== null) cards.get(id).firstChild.setAttribute("tabindex", "0");
}

function focusCard(id) {
  setCurrent(id);
  cards.get(id).firstChild.focus();
}

async function move(steps) {
  const ids = [...assets.keys()];
  if (!ids.length) return;
  const inGrid = $("grid").contains(document.activeElement) || $("detail").open;
  const from = ids.indexOf(current);
  let to = inGrid ? from + steps : Math.max(from, 0);
  if (to >= ids.length && next !== null) {
    await load({more: true});
    if (assets.size > ids.length) await move(steps);
    return;
  }
  to = to < 0 || to >= ids.length ? from : to;
  const id = [...assets.keys()][to];
  if (!$("detail").open) focusCard(id);
  else showDetail(id);
}

function columns() {
  const tops = [...cards.values()].map((card) => card.offsetTop);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
}

// -- selection

function select(id, on, range = false) {
  const ids = [...assets.keys()];
  let chosen = [id];
  if (range && anchor !== null && assets.has(anchor)) {
    const [from, to] = [ids.indexOf(anchor), ids.indexOf(id)].sort((a, b) => a - b);
    chosen = ids.slice(from, to + 1);
  }
  for (const one of chosen) mark(one, on);
  anchor = id;
  showSelection();
}

function mark(id, on) {
  if (on) selected.add(id);
  else selected.delete(id);
  cards.get(id).classList.toggle("selected", on);
  cards.get(id).querySelector("input[type=checkbox]").checked = on;
}

function showSelection() {
  $("selection").hidden = selected.size === 0;
  $("selected").textContent = `${selected.size.toLocaleString("en")} selected`;
}

function clearSelection() {
  const held = $("selection").contains(document.activeElement);
  for (const id of [...selected]) mark(id, false);
  showSelection();
  if (held && current !== null) focusCard(current);
}

// -- decisions

let asked = null;

function ask(state, ids) {
  const open = ids.filter((id) => assets.has(id) && decidable(assets.get(id)) && assets.get(id).review.state !== state);
  if (busy || over) return;
  if (!open.length) {
    say(ids.length ? `Nothing to decide: ${ids.length === 1 ? "it is" : "they are"} ${stateOf(ids)} already.` : "No picture is chosen.");
    return;
  }
  if (state === "approved" && open.length === 1) {
    decide(open, state, null);
    return;
  }
  asked = {ids: open, state};
  const word = state === "approved" ? "Approve" : "Reject";
  $("ask-title").textContent = `${word} ${open.length === 1 ? "this picture" : plural(open.length)}`;
  const named = open.slice(0, open.length > 4 ? 3 : 4).map((id) => el("li", {dir: "auto"}, title(assets.get(id))));
  if (open.length > named.length) named.push(el("li", {}, `and ${open.length - named.length} more`));
  $("ask-what").replaceChildren(...named);
  $("reason-label").textContent = state === "approved" ? "Note (may stay empty)" : "Why?";
  $("reason").required = state === "rejected";
  $("reason").value = "";
  $("reasons").replaceChildren(...[...reasons].map((reason) => el("option", {value: reason})));
  $("ask-go").textContent = word;
  $("ask-go").className = state === "approved" ? "good strong" : "bad strong";
  $("ask").showModal();
  $("reason").focus();
}

function stateOf(ids) {
  const states = new Set(ids.map((id) => assets.get(id).review.state));
  return states.size === 1 ? [...states][0] : "decided";
}

async function decide(ids, state, reason) {
  busy = true;
  const pictures = Object.fromEntries(ids.map((id) => [id, assets.get(id).review.sequence]));
  for (const id of ids) cards.get(id).setAttribute("aria-busy", "true");
  let data;
  try {
    data = await call("/api/review", {pictures, state, reason});
  } catch (error) {
    complain(error);
    return;
  } finally {
    busy = false;
    for (const id of ids) cards.get(id)?.removeAttribute("aria-busy");
  }
  if (reason && state === "rejected") reasons.add(reason);
  const failed = new Set(data.failed.map((one) => one.id));
  let held = 0;
  for (const asset of data.assets) {
    if (!cards.has(asset.id)) continue; // the list was changed meanwhile
    asset.fresh = !failed.has(asset.id);
    assets.set(asset.id, asset);
    if (!failed.has(asset.id)) selected.delete(asset.id);
    if (asset.review.state === state) held += 1;
    draw(asset);
  }
  showCounts(data.counts);
  showSelection();
  const others = data.assets.filter((asset) => !failed.has(asset.id) && asset.review.state !== state);
  const one = ids.length === 1 && assets.has(ids[0]) ? assets.get(ids[0]) : null;
  say(one && held ? `${DONE[state]}: ${title(one)}` : `${DONE[state]}: ${plural(held)}`);
  if (others.length) complain(new Error(`${plural(others.length)} stayed ${others[0].review.state}: ${others[0].review.reason}.`));
  if (data.failed.length) {
    const first = data.failed[0];
    const name = assets.has(first.id) ? title(assets.get(first.id)) : first.id;
    const rest = data.failed.length > 1 ? ` (and ${data.failed.length - 1} more)` : "";
    complain(new Error(`Not decided: ${name}. ${first.message}${rest}`));
  }
  if (data.failed.length || others.length || ids.length > 1) {
    if (document.activeElement === document.body && current !== null) focusCard(current);
  } else if (current === ids[0]) { // who has gone elsewhere meanwhile stays there
    if ($("detail").open) showDetail(current);
    else focusCard(current);
    await move(1);
  }
}

// -- a closer look

function openDetail(id) {
  if (id === null) return;
  $("detail-status").textContent = "";
  showDetail(id);
  $("detail").showModal();
  $("detail-title").focus();
}

function facts(asset) {
  const rights = asset.rights;
  return [
    ["File", asset.file_name],
    ["Licence", rights.licence ?? "not stated"],
    ["Holder", rights.holder],
    ["Territory", rights.territory],
    ["Until", rights.expires_on],
    ["Releases", rights.releases.join(", ")],
    ["Notes", rights.notes],
    ["Tags", asset.tags.join(", ")],
    ["Size", `${asset.width_px ?? "?"} × ${asset.height_px ?? "?"} px, ${(asset.size_bytes / 1e6).toFixed(1)} MB`],
    ["Ingested", moment(asset.ingested_at)],
    ["Id", asset.id],
  ].filter(([, value]) => value);
}

function showDetail(id) {
  const asset = assets.get(id);
  setCurrent(id);
  $("detail-title").textContent = asset.caption ?? "no caption";
  const image = picture(asset, "preview");
  image.id = "detail-image";
  image.loading = "eager";
  $("detail").querySelector(".stage").replaceChildren(image);
  $("detail-badge").replaceChildren(badge(asset));
  $("detail-facts").replaceChildren(
    ...facts(asset).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {dir: "auto", class: name === "Id" ? "id" : null}, value)]),
  );
  const history = asset.history.map((review) => el(
    "li", {}, el("strong", {}, review.state), ` by ${review.by}, ${moment(review.at)}`,
    review.reason ? el("span", {class: "why", dir: "auto"}, review.reason) : null,
  ));
  if (asset.review.state === "expired" && asset.review.by === "rights") history.push(el("li", {}, el("strong", {}, "expired"), ` since ${moment(asset.review.at)}`));
  if (!history.length) history.push(el("li", {}, asset.problem ?? "Nobody has decided about it yet."));
  $("detail-history").replaceChildren(...history);
  const ids = [...assets.keys()];
  $("detail-approve").disabled = !decidable(asset) || asset.review.state === "approved";
  $("detail-reject").disabled = !decidable(asset) || asset.review.state === "rejected";
  $("detail-back").disabled = ids[0] === id;
  $("detail-on").disabled = ids.at(-1) === id && next === null;
  if ($("detail").open && !$("detail").contains(document.activeElement)) $("detail-title").focus();
}

// -- keys

function chosen() {
  if ($("detail").open) return [current];
  return selected.size ? [...selected] : current === null ? [] : [current];
}

const KEYS = {
  ArrowRight: () => move(1),
  ArrowLeft: () => move(-1),
  ArrowDown: () => move($("detail").open ? 1 : columns()),
  ArrowUp: () => move($("detail").open ? -1 : -columns()),
  Home: () => move(-[...assets.keys()].indexOf(current)),
  End: () => move(assets.size - 1 - [...assets.keys()].indexOf(current)),
  j: () => move(1),
  k: () => move(-1),
  a: () => ask("approved", chosen()),
  r: () => ask("rejected", chosen()),
  x: (event) => {
    if (current !== null && !$("detail").open) select(current, event.shiftKey || !selected.has(current), event.shiftKey);
  },
  "/": () => { if (!$("detail").open) $("query").select(); },
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (over || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("ask").open || $("help").open) return;
  if (target.matches("input:not([type=checkbox])")) {
    if (event.key === "Escape" && target.type === "search" && !target.value && current !== null) focusCard(current);
    return;
  }
  if (event.key === "Escape") {
    if (!$("detail").open && selected.size) clearSelection();
    return;
  }
  if (event.key === "Enter") {
    if (target.matches("article")) {
      event.preventDefault();
      openDetail(current);
    }
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key.length === 1 && !$("single").checked) return;
  if (!(key in KEYS)) return;
  // Up, down, Home and End scroll the page, unless a picture has the focus.
  const scrolls = ["ArrowUp", "ArrowDown", "Home", "End"].includes(key);
  if (scrolls && !$("grid").contains(target)) return;
  event.preventDefault();
  KEYS[key](event);
});

// -- start

function listen() {
  let waiting = null;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(load, 250);
  };
  $("query").addEventListener("input", soon);
  $("tag").addEventListener("input", soon);
  $("states").addEventListener("change", () => load());
  $("filters").addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    await load();
    if (current !== null) focusCard(current);
  });
  $("refresh").addEventListener("click", async () => {
    await load();
    say("The list is fresh.");
  });
  $("more").addEventListener("click", async () => {
    const count = assets.size;
    await load({more: true});
    const first = [...assets.keys()][count];
    if (first !== undefined) focusCard(first);
  });
  $("select-all").addEventListener("click", () => {
    for (const [id, asset] of assets) if (decidable(asset)) mark(id, true);
    showSelection();
    say(`${plural(selected.size)} selected.`);
  });
  $("clear").addEventListener("click", clearSelection);
  $("approve-selected").addEventListener("click", () => ask("approved", [...selected]));
  $("reject-selected").addEventListener("click", () => ask("rejected", [...selected]));
  $("detail-approve").addEventListener("click", () => ask("approved", [current]));
  $("detail-reject").addEventListener("click", () => ask("rejected", [current]));
  $("detail-back").addEventListener("click", () => move(-1));
  $("detail-on").addEventListener("click", () => move(1));
  $("detail").addEventListener("close", () => { if (current !== null && !over) focusCard(current); });
  $("help-open").addEventListener("click", () => $("help").showModal());
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  $("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const reason = $("reason").value.trim();
    if ($("reason").required && !reason) {
      $("reason").setCustomValidity("Say why, in a few words.");
      $("reason").reportValidity();
      return;
    }
    $("ask").close();
    decide(asked.ids, asked.state, reason || null);
  });
  $("reason").addEventListener("input", () => $("reason").setCustomValidity(""));
  $("done").addEventListener("click", finish);
}

async function finish() {
  let data;
  try {
    data = await call("/api/done", {});
  } catch (error) {
    complain(error);
    return;
  }
  over = true;
  const made = Object.entries(data.decided).filter(([, count]) => count).map(([state, count]) => `${count} ${state}`);
  const last = el(
    "main", {class: "over", tabindex: "-1"}, el("h1", {}, "Done"),
    el("p", {}, made.length ? `${made.join(", ")} in this review.` : "Nothing was decided in this review."),
    el("p", {}, "The server has stopped. You may close this page."),
  );
  document.body.replaceChildren(last);
  last.focus();
}

async function start() {
  $("states").append(...STATES.map(([state, label], index) => el(
    "label", {class: "pill"},
    el("input", {type: "radio", name: "state", value: state, checked: index === 1}),
    el("span", {}, `${label} `, el("span", {id: `count-${state}`, class: "count"}, "")),
  )));
  listen();
  try {
    const about = await call("/api/session");
    csrf = about.csrf;
    $("name").textContent = about.knowledge_base;
    $("by").textContent = about.by;
    document.title = `${about.knowledge_base}: review pictures`;
  } catch (error) {
    complain(error);
    return;
  }
  await load();
  if (current !== null) focusCard(current);
}

start();

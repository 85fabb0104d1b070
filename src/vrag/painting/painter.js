// Paints a mask over a picture, on the page of `vrag mask` and in a notebook.
//
// The mask is a value: a MaskSpec as JSON, in fractions of the picture. Each change makes a new one, so undo is a list
// of them, and the canvas only shows the last. Inside, lengths are pixels of the picture at its full size.

import {clamp, draw, erase, fits, invert, paint, paintable, same, simplify, stamp, trace, weigh} from "./mask.js";

const TINT = "rgb(255 0 128)"; // these two as `overlay_mask`
const TINT_SHARE = 0.45;
const TOOLS = [["rectangle", "Rectangle", "r"], ["ellipse", "Ellipse", "e"], ["brush", "Brush", "b"]];
const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const HELP = [
  ["R, E, B", "rectangle, ellipse, brush"], ["X", "erase, or paint again"], ["[ and ]", "smaller or larger brush"],
  ["arrow keys", "move the crosshair; with Shift by one pixel"], ["Enter or Space", "start a shape, and end it"],
  ["Escape", "drop the shape that was started"], ["Ctrl Z, Ctrl Shift Z", "undo, redo"], ["I", "invert"],
  ["+, −, 0", "zoom in, zoom out, whole picture"],
];

const percent = (share) => `${Math.round(share * 100)}\u00a0%`;

// -- the painter

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

let painters = 0;

// Builds the painter into `root`. `picture` is the address of the upright picture, in any size of the right shape;
// `onChange` gets each new spec, null where nothing is painted.
export function createPainter(root, {picture, width, height, name, mask = null, onChange = () => {}}) {
  const size = [width, height];
  const short = Math.min(width, height);
  const history = [mask];
  let now = 0; // in history
  let tool = "rectangle";
  let erasing = false;
  let brush = Math.max(1, Math.round(short / 16)); // its width
  let draft = null; // points of the shape that was started
  let lifted = false; // it was started with the eraser end of a pen
  let cross = [Math.round(width / 2), Math.round(height / 2)]; // what arrow keys move
  let hover = null; // where the mouse is
  let view = {zoom: 1, scale: 1, left: 0, top: 0, dpr: 1};
  let cache = {}; // what was drawn last: the mask and its outlines, for this spec in this view
  let waiting = 0;
  const fingers = new Map();

  // -- its parts

  const number = ++painters;
  const image = make("img", {alt: "", draggable: "false"});
  const canvas = make("canvas", {
    tabindex: "0", role: "application", "aria-roledescription": "mask painter", "aria-label": `Mask over ${name}`,
    "aria-describedby": `vrag-painter-hint-${number}`,
  });
  const stage = make("div", {class: "stage"}, image, canvas);
  const status = make("p", {class: "status", role: "status"});
  const button = (label, key, act, name = null) => {
    const node = make("button", {type: "button", ...(name && {"aria-label": name})}, label);
    if (key) node.append(" ", make("kbd", {"aria-hidden": "true"}, key));
    node.addEventListener("click", act);
    return node;
  };
  const group = (label, ...nodes) => make("div", {role: "group", "aria-label": label, class: "group"}, ...nodes);
  const tools = new Map(TOOLS.map(([id, label, key]) => [id, button(label, key.toUpperCase(), () => choose(id))]));
  const eraser = button("Erase", "X", () => choose(tool, !erasing));
  const slider = make("input", {type: "range", min: "1", max: String(Math.max(2, Math.round(short / 2))), id: `vrag-brush-${number}`});
  const width_ = make("output", {for: slider.id});
  const back = button("Undo", "", () => travel(-1));
  const forth = button("Redo", "", () => travel(1));
  const clear = button("Clear", "", () => commit(null, "Cleared"));
  const zoomed = make("output", {class: "zoom"});
  const keys = make("dl", {}, ...HELP.flatMap(([key, what]) => [make("dt", {}, key), make("dd", {}, what)]));
  root.classList.add("vrag-painter");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab keeps its own keys out of here
  root.replaceChildren(
    make("div", {class: "bar"},
      group("Shape", ...tools.values()), group("Mode", eraser),
      group("Brush size", make("label", {for: slider.id}, "Size"), slider, width_),
      group("Changes", back, forth, button("Invert", "I", flip), clear),
      group("Zoom", button("−", "", () => zoom(0.8), "Zoom out"), zoomed, button("+", "", () => zoom(1.25), "Zoom in")),
    ),
    stage,
    status,
    make("p", {class: "hint", id: `vrag-painter-hint-${number}`},
      "Pink is repainted, the rest is kept. Drag on the picture; or move the crosshair with the arrow keys, and press "
      + "Enter to start a shape and to end it."),
    make("details", {}, make("summary", {}, "All keys"), keys),
  );

  // -- what is painted

  const spec = () => history[now];
  const say = (text) => { status.textContent = text; };
  const shapes = (count = weigh(spec()).shapes) => (count === 1 ? "1 shape" : `${count} shapes`);
  const where = ([x, y]) => `${percent(x / width)}, ${percent(y / height)}`;

  function commit(next, text) {
    if (!fits(next)) return say("Not added: this is too much for one mask. Undo some, or clear.");
    if (same(next, spec())) return say(`${text}, which changes nothing.`);
    history.splice(now + 1, history.length, next);
    now++;
    return changed(text);
  }

  function changed(text) {
    say(`${text}; ${spec() === null ? "nothing is painted" : shapes()}.`);
    show();
    onChange(spec());
  }

  function travel(by) {
    if (!(now + by in history)) return say(by < 0 ? "There is nothing to undo." : "There is nothing to redo.");
    draft = null;
    now += by;
    return changed(by < 0 ? "Undone" : "Redone");
  }

  function flip() {
    commit(invert(spec()), "Inverted");
  }

  // The shape of the points so far, in fractions; null where it has no inside.
  function outline() {
    const fraction = (value, whole) => Math.round((value / whole) * 1e6) / 1e6;
    const place = ([x, y]) => [fraction(x, width), fraction(y, height)];
    if (tool === "brush") {
      const points = simplify(draft, Math.max(0.25, 0.25 / view.scale));
      return {shape: "brush", unit: "fraction", strokes: [points.map(place)], radius: fraction(brush / 2, short)};
    }
    const [a, b] = [draft[0], draft.at(-1)].map((point) => point.map(Math.round));
    if (a[0] === b[0] || a[1] === b[1]) return null;
    const low = [Math.min(a[0], b[0]), Math.min(a[1], b[1])];
    const high = [Math.max(a[0], b[0]), Math.max(a[1], b[1])];
    return {shape: tool, unit: "fraction", box: [...place(low), ...place(high)]};
  }

  function joined(shape) {
    return erasing || lifted ? erase(spec(), shape) : paint(spec(), shape);
  }

  function start(point, withEraser = false) {
    draft = [point];
    lifted = withEraser;
    show();
  }

  function extend(point) {
    if (!same(draft.at(-1), point)) draft.push(point);
    show();
  }

  function finish() {
    const shape = outline();
    const [from, to] = [where(draft[0]), where(draft.at(-1))];
    const label = TOOLS.find(([id]) => id === tool)[1];
    const next = shape && joined(shape);
    const done = erasing || lifted ? "erased" : "added";
    draft = null;
    if (!shape) say(`No ${tool}: it has no width or no height.`);
    else commit(next, `${label} from ${from} to ${to} ${done}`);
    show();
  }

  function drop(text) {
    draft = null;
    say(text);
    show();
  }

  function choose(id, erases = erasing) {
    if (draft) drop("Dropped.");
    tool = id;
    erasing = erases;
    say(`${TOOLS.find(([one]) => one === id)[1]}, ${erases ? "erasing" : "painting"}.`);
    show();
  }

  function resize(to) {
    brush = clamp(Math.round(to), 1, Number(slider.max));
    say(`Brush ${brush} px.`);
    show();
  }

  // -- what is seen

  function layer() {
    const pen = make("canvas", {width: canvas.width, height: canvas.height}).getContext("2d");
    pen.setTransform(view.dpr * view.scale, 0, 0, view.dpr * view.scale, view.dpr * view.left, view.dpr * view.top);
    pen.fillStyle = pen.strokeStyle = TINT;
    pen.lineCap = pen.lineJoin = "round";
    return pen;
  }

  function show() {
    for (const [id, node] of tools) node.setAttribute("aria-pressed", String(id === tool));
    eraser.setAttribute("aria-pressed", String(erasing));
    // Not `disabled`: that would take the focus away from under the keyboard.
    back.setAttribute("aria-disabled", String(now === 0));
    forth.setAttribute("aria-disabled", String(now === history.length - 1));
    clear.setAttribute("aria-disabled", String(spec() === null));
    slider.value = String(brush);
    width_.textContent = `${brush} px`;
    zoomed.textContent = `${Math.round(view.zoom * 100)} %`;
    waiting ||= requestAnimationFrame(redraw);
  }

  // What is painted, drawn again only where it or the view has changed: outlines are slow without a graphics card.
  function settled() {
    if (cache.spec !== spec() || cache.view !== view) {
      const mask = spec() === null ? null : draw(spec(), size, layer);
      cache = {spec: spec(), view, mask, lines: mask && outlines(mask)};
    }
    return cache;
  }

  function redraw() {
    waiting = 0;
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const {mask, lines} = settled();
    const shape = draft && outline();
    const next = shape ? joined(shape) : spec();
    const tint = next === spec() ? mask : next && draw(next, size, layer);
    pen.globalAlpha = TINT_SHARE;
    if (tint) stamp(pen, tint);
    pen.globalAlpha = 1;
    if (lines) stamp(pen, lines);
    if (shape?.box) frame(pen, shape);
    if (hover) pointTo(pen, hover, []);
    else if (draft || canvas.matches(":focus")) pointTo(pen, cross, Object.values(STEPS));
  }

  // White inside, dark outside: one of them is seen on any picture.
  function outlines(mask) {
    const rest = layer();
    rest.fillRect(0, 0, ...size);
    rest.globalCompositeOperation = "destination-out";
    stamp(rest, mask);
    const lines = edge(rest, mask, "destination-in", "white");
    stamp(lines, edge(mask, mask, "destination-out", "rgb(30 30 30)"));
    return lines;
  }

  function frame(pen, shape) {
    pen.save();
    pen.setTransform(view.dpr * view.scale, 0, 0, view.dpr * view.scale, view.dpr * view.left, view.dpr * view.top);
    pen.beginPath();
    trace(pen, shape, size);
    twice(pen, 1 / view.scale);
    pen.restore();
  }

  // The path in white on dark.
  function twice(pen, thin) {
    for (const [colour, thick] of [["rgb(30 30 30)", 3 * thin], ["white", thin]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.stroke();
    }
  }

  // A line of about one pixel along the edge of a mask.
  function edge(source, mask, keep, colour) {
    const line = layer();
    const off = view.dpr;
    for (const [right, down] of [[-1, 0], [1, 0], [0, -1], [0, 1], [-0.7, -0.7], [0.7, 0.7], [-0.7, 0.7], [0.7, -0.7]]) {
      stamp(line, source, right * off, down * off);
    }
    line.globalCompositeOperation = keep;
    stamp(line, mask);
    line.globalCompositeOperation = "source-in";
    line.fillStyle = colour;
    line.fillRect(0, 0, ...size);
    line.globalCompositeOperation = "source-over";
    return line;
  }

  // The brush as a ring, and a crosshair of these arms.
  function pointTo(pen, [x, y], arms) {
    pen.save();
    pen.setTransform(view.dpr, 0, 0, view.dpr, 0, 0);
    const [left, top] = [view.left + x * view.scale, view.top + y * view.scale];
    pen.beginPath();
    for (const [dx, dy] of arms) {
      pen.moveTo(left + 4 * dx, top + 4 * dy);
      pen.lineTo(left + 13 * dx, top + 13 * dy);
    }
    if (tool === "brush") {
      const radius = (brush / 2) * view.scale;
      pen.moveTo(left + radius, top);
      pen.arc(left, top, radius, 0, 2 * Math.PI);
    }
    twice(pen, 1);
    pen.restore();
  }

  function fit() {
    const {width: wide, height: high} = canvas.getBoundingClientRect(); // not rounded, as `clientWidth` is
    if (!wide || !high) return;
    const scale = Math.min(wide / width, high / height) * view.zoom;
    const within = (offset, room, length) => (length <= room ? (room - length) / 2 : clamp(offset, room - length, 0));
    view = {
      ...view, scale, dpr: window.devicePixelRatio || 1,
      left: within(view.left, wide, width * scale), top: within(view.top, high, height * scale),
    };
    canvas.width = Math.round(wide * view.dpr);
    canvas.height = Math.round(high * view.dpr);
    // Through the CSSOM: a policy that forbids inline styles allows that.
    Object.assign(image.style, {
      width: `${width * scale}px`, height: `${height * scale}px`, left: `${view.left}px`, top: `${view.top}px`,
    });
    show();
  }

  // Zooms so that what is at this place of the stage stays there.
  function zoom(by, [x, y] = [stage.clientWidth / 2, stage.clientHeight / 2]) {
    const next = by === 0 ? 1 : clamp(view.zoom * by, 1, 16);
    const grows = next / view.zoom;
    view = {...view, zoom: next, left: x - (x - view.left) * grows, top: y - (y - view.top) * grows};
    fit();
  }

  function reveal([x, y]) {
    const [left, top] = [view.left + x * view.scale, view.top + y * view.scale];
    view.left += clamp(left, 20, stage.clientWidth - 20) - left;
    view.top += clamp(top, 20, stage.clientHeight - 20) - top;
    fit();
  }

  // -- mouse, pen and fingers

  const inStage = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const inPicture = (event) => {
    const [x, y] = inStage(event);
    return [clamp((x - view.left) / view.scale, 0, width), clamp((y - view.top) / view.scale, 0, height)];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 && event.button !== 5) return; // 5 is the eraser end of a pen
    canvas.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") fingers.set(event.pointerId, inStage(event));
    if (fingers.size > 1) draft = null; // two fingers move the picture
    else start(inPicture(event), event.button === 5);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (fingers.size > 1) return pinch(event);
    hover = event.pointerType === "touch" ? null : inPicture(event);
    if (!draft || !canvas.hasPointerCapture(event.pointerId)) return show();
    const between = event.getCoalescedEvents?.() ?? [];
    return (between.length ? between : [event]).forEach((one) => extend(inPicture(one)));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (draft && canvas.hasPointerCapture(event.pointerId)) {
      extend(inPicture(event));
      cross = draft.at(-1).map(Math.round);
      finish();
    }
    fingers.delete(event.pointerId);
  });
  canvas.addEventListener("pointercancel", (event) => {
    fingers.delete(event.pointerId);
    if (draft) drop("Dropped.");
  });
  canvas.addEventListener("pointerleave", () => { hover = null; show(); });
  canvas.addEventListener("contextmenu", (event) => { if (draft) event.preventDefault(); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && view.zoom === 1) return; // the page scrolls
    event.preventDefault();
    if (event.ctrlKey) return zoom(Math.exp(-clamp(event.deltaY, -50, 50) / 100), inStage(event));
    view = {...view, left: view.left - event.deltaX, top: view.top - event.deltaY};
    return fit();
  }, {passive: false});

  function pinch(event) {
    if (!fingers.has(event.pointerId)) return;
    const [still] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const [before, after] = [fingers.get(event.pointerId), inStage(event)];
    const apartBy = (place) => Math.max(1, Math.hypot(place[0] - still[0], place[1] - still[1]));
    fingers.set(event.pointerId, after);
    view.left += (after[0] - before[0]) / 2;
    view.top += (after[1] - before[1]) / 2;
    zoom(apartBy(after) / apartBy(before), [(after[0] + still[0]) / 2, (after[1] + still[1]) / 2]);
  }

  // -- keys; each acts only while something of the painter has the focus

  const letters = {
    r: () => choose("rectangle"), e: () => choose("ellipse"), b: () => choose("brush"), x: () => choose(tool, !erasing),
    i: flip, "[": () => resize(Math.min(brush - 1, brush / 1.25)), "]": () => resize(Math.max(brush + 1, brush * 1.25)),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => zoom(0),
  };

  function act(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") return () => travel(event.shiftKey ? 1 : -1);
      return key === "y" ? () => travel(1) : undefined;
    }
    if (event.altKey) return undefined;
    if (key === "escape" && draft) return () => drop("Dropped.");
    if (key in letters) return letters[key];
    if (event.target !== canvas) return undefined;
    if (event.key in STEPS) return () => move(STEPS[event.key], event.shiftKey ? 1 : Math.max(1, Math.round(short / 50)));
    if (key === "enter" || key === " ") return () => (draft ? finish() : begin());
    return undefined;
  }

  function begin() {
    hover = null;
    start(cross);
    say(`${TOOLS.find(([id]) => id === tool)[1]} started at ${where(cross)}. Enter ends it, Escape drops it.`);
  }

  function move([right, down], by) {
    hover = null;
    cross = [clamp(cross[0] + right * by, 0, width), clamp(cross[1] + down * by, 0, height)];
    if (draft) extend(cross);
    say(draft ? `${tool} from ${where(draft[0])} to ${where(cross)}` : `crosshair at ${where(cross)}`);
    reveal(cross);
  }

  root.addEventListener("keydown", (event) => {
    const work = act(event);
    if (!work) return;
    event.preventDefault();
    event.stopPropagation();
    work();
  });
  slider.addEventListener("input", () => resize(Number(slider.value)));
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", show);
  image.addEventListener("error", () => say("The picture cannot be shown."));

  // -- from and to the outside

  const watching = new ResizeObserver(fit);
  watching.observe(stage);
  stage.style.aspectRatio = `${width} / ${height}`;
  image.src = picture;
  fit();
  return {
    get mask() {
      return spec();
    },
    // Another mask from outside, which can be undone; false where it has parts that cannot be painted here.
    load(next) {
      if (same(next, spec())) return true;
      if (next !== null && !paintable(next)) return false;
      draft = null;
      history.splice(now + 1, history.length, next);
      now++;
      say(`Another mask was given; ${next === null ? "nothing is painted" : shapes()}.`);
      show();
      return true;
    },
    destroy() {
      watching.disconnect();
      cancelAnimationFrame(waiting);
      root.replaceChildren();
    },
  };
}

// -- in a notebook: anywidget calls this once for each place that shows the widget

function render({model, el}) {
  const picture = URL.createObjectURL(new Blob([model.get("_picture")], {type: "image/jpeg"}));
  const {name, width_px: width, height_px: height} = model.get("_about");
  const painter = createPainter(el.appendChild(make("div")), {
    picture, width, height, name, mask: model.get("painted"),
    onChange(spec) {
      model.set("painted", spec);
      model.save_changes();
    },
  });
  const follow = () => painter.load(model.get("painted"));
  model.on("change:painted", follow);
  return () => {
    model.off("change:painted", follow);
    painter.destroy();
    URL.revokeObjectURL(picture);
  };
}

export default {render};

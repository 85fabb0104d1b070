// Mask specs as values: joined, weighed and drawn on a canvas; no page here. `MaskSpec` in Python says what they mean.

const MOST = {points: 10_000, parts: 200, depth: 32}; // as MaskSpec
const WHOLE = {shape: "rectangle", unit: "fraction", box: [0, 0, 1, 1]};
const COMPOSE = {union: "source-over", subtract: "destination-out", intersect: "destination-in"};

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export function paint(spec, shape) {
  if (spec === null) return shape;
  const [first, ...erased] = spec.parts ?? [];
  // What touches nothing that was erased goes below it, so that going back and forth does not pile up.
  if (spec.shape === "subtract" && erased.every((part) => apart(part, shape))) {
    return {shape: "subtract", parts: [paint(first, shape), ...erased]};
  }
  const parts = together(spec.shape === "union" ? spec.parts : [spec], shape);
  return parts.length === 1 ? parts[0] : {shape: "union", parts};
}

export function erase(spec, shape) {
  if (spec === null || apart(spec, shape)) return spec;
  const [first, ...erased] = spec.parts ?? [];
  if (spec.shape === "subtract") return {shape: "subtract", parts: [first, ...together(erased, shape)]};
  if (spec.shape === "union") {
    const touched = spec.parts.filter((part) => !apart(part, shape));
    if (touched.length === 1) {
      return {shape: "union", parts: spec.parts.map((part) => (part === touched[0] ? erase(part, shape) : part))};
    }
  }
  return {shape: "subtract", parts: [spec, shape]};
}

export function invert(spec) {
  if (spec === null) return WHOLE;
  if (same(spec, WHOLE)) return null;
  return spec.shape === "invert" ? spec.parts[0] : {shape: "invert", parts: [spec]};
}

function together(parts, shape) {
  const last = parts.at(-1);
  if (last?.shape !== "brush" || shape.shape !== "brush" || last.unit !== shape.unit || last.radius !== shape.radius) {
    return [...parts, shape];
  }
  return [...parts.slice(0, -1), {...last, strokes: [...last.strokes, ...shape.strokes]}];
}

// Left, top, right, bottom in fractions, never too small; all of the picture where that is not known.
function bounds(spec) {
  if (spec.shape === "union") {
    const boxes = spec.parts.map(bounds);
    const [lefts, tops, rights, bottoms] = [0, 1, 2, 3].map((side) => boxes.map((box) => box[side]));
    return [Math.min(...lefts), Math.min(...tops), Math.max(...rights), Math.max(...bottoms)];
  }
  if (spec.shape === "subtract") return bounds(spec.parts[0]);
  if (spec.unit !== "fraction" || !["rectangle", "ellipse", "brush"].includes(spec.shape)) return [0, 0, 1, 1];
  if (spec.box) return spec.box;
  const [xs, ys] = [0, 1].map((axis) => spec.strokes.flat().map((point) => point[axis]));
  const reach = spec.radius; // of the shorter side, so of no side more than this
  return [Math.min(...xs) - reach, Math.min(...ys) - reach, Math.max(...xs) + reach, Math.max(...ys) + reach];
}

function apart(one, other) {
  const [a, b] = [bounds(one), bounds(other)];
  return a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
}

export function weigh(spec) {
  const below = (spec?.parts ?? []).map(weigh);
  const sum = (name) => below.reduce((total, part) => total + part[name], 0);
  const strokes = spec?.strokes ?? [];
  return {
    points: sum("points") + (spec?.points ?? []).length + strokes.flat().length,
    parts: sum("parts") + (spec ? 1 : 0),
    depth: Math.max(0, ...below.map((part) => part.depth)) + (spec ? 1 : 0),
    shapes: spec?.parts ? sum("shapes") : strokes.length || (spec ? 1 : 0),
  };
}

export function fits(spec) {
  const weight = weigh(spec);
  return Object.entries(MOST).every(([name, most]) => weight[name] <= most);
}

export function paintable(spec) {
  if (["rectangle", "ellipse", "polygon", "brush"].includes(spec?.shape)) return true;
  return (spec?.shape in COMPOSE || spec?.shape === "invert") && spec.parts.every(paintable);
}

function fill(pen, spec, [width, height]) {
  const [across, down] = spec.unit === "px" ? [1, 1] : [width, height];
  const place = ([x, y]) => [x * across, y * down];
  pen.beginPath();
  if (spec.shape === "brush") {
    const radius = spec.radius * (spec.unit === "px" ? 1 : Math.min(width, height));
    pen.lineWidth = 2 * radius;
    for (const [first, ...rest] of spec.strokes) {
      pen.moveTo(...place(first));
      for (const point of rest) pen.lineTo(...place(point));
    }
    pen.stroke();
    pen.beginPath();
    for (const [point] of spec.strokes.filter((stroke) => stroke.length === 1)) {
      pen.moveTo(...place(point));
      pen.arc(...place(point), radius, 0, 2 * Math.PI);
    }
  } else if (spec.shape === "polygon") {
    for (const point of spec.points) pen.lineTo(...place(point));
  } else {
    trace(pen, spec, [width, height]);
  }
  pen.fill("evenodd");
}

// The outline of a rectangle or an ellipse, added to the path.
export function trace(pen, spec, [width, height]) {
  const [across, down] = spec.unit === "px" ? [1, 1] : [width, height];
  const [left, top, right, bottom] = spec.box.map((value, n) => value * (n % 2 ? down : across));
  if (spec.shape === "rectangle") pen.rect(left, top, right - left, bottom - top);
  else pen.ellipse((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2, 0, 0, 2 * Math.PI);
}

// The spec on a new layer, opaque where the mask is white; `layer()` makes one whose unit is a pixel of the picture.
export function draw(spec, size, layer) {
  if (!spec.parts) {
    const pen = layer();
    fill(pen, spec, size);
    return pen;
  }
  const pen = draw(spec.parts[0], size, layer);
  if (spec.shape === "invert") {
    pen.globalCompositeOperation = "xor";
    pen.fillRect(0, 0, ...size);
  }
  for (const part of spec.parts.slice(1)) {
    // A brush is two fills, which only some compositions may see apart.
    const whole = part.parts || spec.shape === "intersect" ? draw(part, size, layer) : null;
    pen.globalCompositeOperation = COMPOSE[spec.shape];
    if (whole) stamp(pen, whole);
    else fill(pen, part, size);
  }
  pen.globalCompositeOperation = "source-over";
  return pen;
}

export function stamp(pen, source, right = 0, down = 0) {
  pen.save();
  pen.resetTransform();
  pen.drawImage(source.canvas, right, down);
  pen.restore();
}

// Fewer points for the same line: none that is dropped lies further from it than this (Ramer, Douglas, Peucker).
export function simplify(points, most) {
  const [[x0, y0], [x1, y1]] = [points[0], points.at(-1)];
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  let [far, index] = [most, 0];
  for (let n = 1; n < points.length - 1; n++) {
    const [x, y] = points[n];
    const along = length ? clamp(((x - x0) * dx + (y - y0) * dy) / length, 0, 1) : 0;
    const off = Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
    if (off > far) [far, index] = [off, n];
  }
  if (index) return [...simplify(points.slice(0, index + 1), most).slice(0, -1), ...simplify(points.slice(index), most)];
  return length ? [points[0], points.at(-1)] : [points[0]];
}

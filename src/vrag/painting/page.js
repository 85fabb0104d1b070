// The page of `vrag mask`: one picture, one painter, one button. Names and captions enter it as text.

import {createPainter} from "./painter.js";

const $ = (id) => document.getElementById(id);

async function call(path, secret, body) {
  const options = {headers: {Accept: "application/json"}};
  if (body !== undefined) {
    options.method = "POST";
    options.headers = {...options.headers, "Content-Type": "application/json", "X-VRAG-Page": secret};
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. It was stopped, or is gone: run vrag mask again.");
  }
  const data = await response.json();
  if (!response.ok) throw new Error(data.hint ? `${data.message} Next: ${data.hint}` : data.message);
  return data;
}

function complain(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  $("problem").scrollIntoView({block: "nearest"});
}

function isOver({share}) {
  const heading = document.createElement("h2");
  heading.tabIndex = -1;
  heading.textContent = "The mask is saved";
  const words = document.createElement("p");
  const shown = share < 0.001 ? "less than 0.1" : (share * 100).toFixed(1);
  words.textContent = `${shown} % of the picture will be repainted. The terminal says what comes next; you can close this page.`;
  $("main").className = "over";
  $("main").replaceChildren(heading, words);
  document.querySelector("header").remove();
  heading.focus();
}

async function begin() {
  const about = await call("/api/session");
  $("name").textContent = about.name;
  $("facts").textContent = `${about.width_px} × ${about.height_px} pixels. This page is served by your own machine, to this machine only.`;
  document.title = `${about.name}: paint a mask`;
  const kept = `vrag-mask-${about.secret}`; // what was painted outlives a reload of the page
  const painter = createPainter($("painter"), {
    picture: "/picture.jpg", width: about.width_px, height: about.height_px, name: about.name,
    mask: JSON.parse(sessionStorage.getItem(kept) ?? "null") ?? about.mask,
    onChange(mask) {
      sessionStorage.setItem(kept, JSON.stringify(mask));
      $("problem").hidden = true;
    },
  });
  $("save").addEventListener("click", async () => {
    if ($("save").hasAttribute("aria-busy")) return;
    $("save").setAttribute("aria-busy", "true");
    try {
      if (painter.mask === null) throw new Error("Nothing is painted yet.");
      const saved = await call("/api/mask", about.secret, {mask: painter.mask});
      sessionStorage.removeItem(kept);
      isOver(saved);
    } catch (error) {
      $("save").removeAttribute("aria-busy");
      complain(error);
    }
  });
  document.querySelector("canvas").focus({preventScroll: true});
}

begin().catch(complain);

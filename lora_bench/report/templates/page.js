"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.order;
      const rows = [...body.rows];
      const isNumeric = rows.some((row) => key(row) !== undefined);
      rows.sort((a, b) => {
        const sign = up ? 1 : -1;
        if (!isNumeric) {
          return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        }
        const [x, y] = [key(a), key(b)];
        if (x === undefined || y === undefined) {
          return (x === undefined) - (y === undefined);
        }
        return sign * (Number(x) - Number(y));
      });
      body.append(...rows);
    });
  });
}
const players = [...document.querySelectorAll("audio")];
for (const player of players) {
  player.volume = Number(player.dataset.gain || 1);
  player.addEventListener("play", () => {
    players.filter((other) => other !== player).forEach((other) => other.pause());
  });
}
for (const link of document.querySelectorAll(".lb-plot a")) {
  const player = document.getElementById(link.getAttribute("href").slice(1))?.querySelector("audio");
  link.addEventListener("click", (event) => {
    if (player) {
      event.preventDefault();
      player.paused ? player.play() : player.pause();
    }
  });
  player?.addEventListener("play", () => link.classList.add("on"));
  player?.addEventListener("pause", () => link.classList.remove("on"));
}
for (const matrix of document.querySelectorAll(".matrix")) {
  const sound = new Audio();
  players.push(sound);
  const bar = matrix.querySelector(".transport");
  const [toggle, now, place] = [bar.querySelector(".toggle"), bar.querySelector(".now"), bar.querySelector("input")];
  const grid = [...matrix.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll(".play")]);
  let current = null;
  const choose = (button, from) => {
    if (!button) {
      return;
    }
    current?.setAttribute("aria-pressed", "false");
    current = button;
    button.setAttribute("aria-pressed", "true");
    bar.hidden = false;
    now.textContent = button.getAttribute("aria-label");
    sound.src = button.dataset.sound;
    sound.volume = Number(button.dataset.gain);
    sound.addEventListener("loadedmetadata", () => {
      sound.currentTime = Math.min(from, sound.duration || 0);
      sound.play();
    }, { once: true });
    sound.load();
  };
  sound.addEventListener("play", () => {
    toggle.textContent = "\u23F8";
    players.filter((other) => other !== sound).forEach((other) => other.pause());
  });
  sound.addEventListener("pause", () => { toggle.textContent = "\u25B6"; });
  sound.addEventListener("timeupdate", () => { place.value = String(1000 * sound.currentTime / (sound.duration || 1)); });
  place.addEventListener("input", () => { sound.currentTime = Number(place.value) / 1000 * (sound.duration || 0); });
  toggle.addEventListener("click", () => (sound.paused ? sound.play() : sound.pause()));
  grid.flat().forEach((button) => button.addEventListener("click", () => {
    const sameRow = current && current.closest("tr") === button.closest("tr");
    if (button === current) {
      sound.paused ? sound.play() : sound.pause();
    } else {
      choose(button, sameRow ? sound.currentTime : 0);
    }
  }));
  matrix.addEventListener("keydown", (event) => {
    const row = grid.findIndex((line) => line.includes(current));
    if (row < 0 || event.target === place) {
      return;
    }
    const column = grid[row].indexOf(current);
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === " " && event.target !== toggle && event.target !== current) {
      sound.paused ? sound.play() : sound.pause();
    } else if (event.key in steps) {
      const [down, right] = steps[event.key];
      const next = grid[row + down]?.[column + right];
      choose(next, down ? 0 : sound.currentTime);
      next?.focus();
    } else {
      return;
    }
    event.preventDefault();
  });
}
for (const key of document.querySelectorAll(".lb-plot .lb-key")) {
  const plot = key.closest("svg");
  plot.setAttribute("role", "group");  // an image must not hold buttons
  key.setAttribute("role", "button");
  key.setAttribute("tabindex", "0");
  key.setAttribute("aria-pressed", "true");
  const flip = () => {
    key.setAttribute("aria-pressed", String(key.getAttribute("aria-pressed") !== "true"));
    for (const shape of plot.querySelectorAll("[data-series]")) {
      if (shape.dataset.series === key.dataset.series) {
        shape.classList.toggle("off");
      }
    }
  };
  key.addEventListener("click", flip);
  key.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      flip();
    }
  });
}
// Hints are there for the keyboard, too: each table and plot is one stop, arrows go from hint to hint, Escape hides it.
const tip = document.createElement("div");
tip.className = "tip";
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("role", "tooltip");
document.querySelector("main").append(tip);
const hintOf = (item) => item.getAttribute("title") ?? item.querySelector("title").textContent;
let hinted = null;
const placeTip = () => {
  tip.hidden = hinted === null;
  if (hinted === null) {
    return;
  }
  const [box, own] = [hinted.getBoundingClientRect(), tip.getBoundingClientRect()];
  const below = box.bottom + own.height + 6 < window.innerHeight;
  tip.style.left = `${Math.max(4, Math.min(box.left, document.documentElement.clientWidth - own.width - 4))}px`;
  tip.style.top = `${below ? box.bottom + 6 : Math.max(4, box.top - own.height - 6)}px`;
};
const showTip = (item) => {
  hinted?.removeAttribute("aria-describedby");
  hinted = item;
  item?.setAttribute("aria-describedby", "tip");
  tip.textContent = item === null ? "" : hintOf(item);
  placeTip();
};
window.addEventListener("scroll", placeTip, { capture: true, passive: true });
const centre = (item) => {
  const box = item.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
};
const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
for (const group of document.querySelectorAll("table, .lb-plot")) {
  const items = [...group.querySelectorAll("td[title], th[title], :has(> title)")];
  items.forEach((item, place) => {
    item.setAttribute("tabindex", place ? "-1" : "0");
    if (!item.hasAttribute("title")) {
      if (item.localName !== "a") {
        item.setAttribute("role", "img");
      }
      item.setAttribute("aria-label", hintOf(item));
      group.setAttribute("role", "group");
    }
  });
  group.addEventListener("focusin", (event) => showTip(items.includes(event.target) ? event.target : null));
  group.addEventListener("focusout", () => showTip(null));
  group.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      showTip(null);
    }
    const from = event.target;
    if (!(event.key in directions) || !items.includes(from)) {
      return;
    }
    // the nearest in this direction; aside counts double
    const [[x, y], [right, down]] = [centre(from), directions[event.key]];
    const distance = (item) => {
      const [dx, dy] = [centre(item)[0] - x, centre(item)[1] - y];
      const ahead = right * dx + down * dy;
      return ahead > 1 ? ahead + 2 * Math.abs(right * dy + down * dx) : Infinity;
    };
    const next = items.reduce((best, item) => (distance(item) < distance(best) ? item : best));
    if (next !== from && distance(next) < Infinity) {
      from.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  });
}
const openTarget = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
  }
};
window.addEventListener("hashchange", openTarget);
openTarget();

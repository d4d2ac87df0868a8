"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const find = (id) => document.getElementById(id);
const players = { A: find("audio-A"), B: find("audio-B") };
const fieldsets = [...document.querySelectorAll("fieldset[data-question]")];
const byId = new Map(content.pairs.map((pair) => [pair.id, pair]));
let state = null; // what is kept in this browser; see begin()
let heard = new Set(); // sides of the pair on the screen that were played
let now = "A"; // the side that was played last
let shownAt = 0;

function random(below) {
  return Math.floor((crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32) * below);
}

function shuffle(items) {
  for (let last = items.length - 1; last > 0; last--) {
    const other = random(last + 1);
    [items[last], items[other]] = [items[other], items[last]];
  }
  return items;
}

const keyOf = (rater) => `lora-bench-listening/${content.study}/${rater}`;

function load(rater) {
  try {
    return JSON.parse(localStorage.getItem(keyOf(rater)));
  } catch {
    return null;
  }
}

function keep() {
  try {
    localStorage.setItem(keyOf(state.rater), JSON.stringify(state));
  } catch {
    find("storage").textContent = "; this browser keeps no answers: do not close the page before you have saved them";
  }
}

function begin() {
  const rater = find("rater").value.trim();
  const error = !/^[A-Za-z0-9._-]{1,40}$/.test(rater)
    ? "Enter a name of 1 to 40 letters, digits, dots, hyphens or underscores."
    : !find("consent").checked
      ? "Tick the box if you agree to take part."
      : "";
  find("start-error").textContent = error;
  if (error) {
    return;
  }
  state = load(rater) ?? {
    rater,
    started_at: new Date().toISOString(),
    finished_at: null,
    place: 0,
    pairs: shuffle(content.pairs.map((pair) => ({ pair: pair.id, swapped: random(2) === 1, seconds: 0, choices: {} }))),
  };
  keep();
  show();
}

function shownSection(id) {
  for (const section of document.querySelectorAll("section")) {
    section.hidden = section.id !== id;
  }
}

function show() {
  for (const player of document.querySelectorAll("audio")) {
    player.pause();
  }
  if (state.place >= state.pairs.length) {
    shownSection("end");
    find("end-title").focus();
    return;
  }
  const answer = state.pairs[state.place];
  const pair = byId.get(answer.pair);
  const [first, second] = answer.swapped ? [1, 0] : [0, 1];
  shownSection("test");
  find("pair-title").textContent = `Pair ${state.place + 1} of ${state.pairs.length}`;
  find("progress").value = state.place;
  find("prompt").textContent = pair.prompt;
  players.A.src = content.sounds[pair.sounds[first]];
  players.B.src = content.sounds[pair.sounds[second]];
  heard = new Set(isComplete(answer) ? ["A", "B"] : []);
  now = "A";
  shownAt = performance.now();
  for (const fieldset of fieldsets) {
    for (const input of fieldset.querySelectorAll("input")) {
      input.checked = answer.choices[input.name] === Number(input.value);
    }
  }
  find("back").disabled = state.place === 0;
  find("hint").textContent = "";
  mark();
  find("pair-title").focus();
}

const isComplete = (answer) => content.questions.every((name) => name in answer.choices);

function active() {
  const { choices } = state.pairs[state.place];
  return fieldsets.find((fieldset) => !(fieldset.dataset.question in choices)) ?? fieldsets.at(-1);
}

function mark() {
  for (const fieldset of fieldsets) {
    fieldset.classList.toggle("now", fieldset === active());
  }
  for (const side of "AB") {
    players[side].parentElement.classList.toggle("now", side === now);
  }
}

function choose(name, value) {
  state.pairs[state.place].choices[name] = value;
  document.querySelector(`input[name="${name}"][value="${value}"]`).checked = true;
  keep();
  mark();
}

function play(side, from) {
  players[side].currentTime = from;
  players[side].play();
}

function turn() {
  const other = now === "A" ? "B" : "A";
  play(other, Math.min(players[now].currentTime, players[other].duration || 0));
}

function countTime() {
  const answer = state.pairs[state.place];
  answer.seconds = Math.round((answer.seconds + (performance.now() - shownAt) / 1000) * 10) / 10;
}

function next() {
  const answer = state.pairs[state.place];
  if (heard.size < 2 || !isComplete(answer)) {
    find("hint").textContent = heard.size < 2 ? "Play both clips first." : "Answer every question first.";
    return;
  }
  countTime();
  state.place += 1;
  if (state.place === state.pairs.length) {
    state.finished_at = new Date().toISOString();
  }
  keep();
  show();
}

function back() {
  countTime();
  state.place -= 1;
  keep();
  show();
}

function save() {
  const answers = {
    schema: content.schema,
    study: content.study,
    rater: state.rater,
    consent: true,
    started_at: state.started_at,
    finished_at: state.finished_at,
    answers: state.pairs,
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(answers, null, 1)], { type: "application/json" }));
  link.download = `answers-${content.study}-${state.rater}.json`;
  link.click();
  find("saved").textContent = `Saved as ${link.download} in the folder of your downloads.`;
}

for (const player of document.querySelectorAll("audio")) {
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) {
      if (other !== player) {
        other.pause();
      }
    }
  });
}
for (const side of "AB") {
  find(`play-${side}`).addEventListener("click", () => play(side, 0));
  players[side].addEventListener("playing", () => {
    heard.add(side);
    now = side;
    mark();
  });
}
for (const fieldset of fieldsets) {
  fieldset.addEventListener("change", (event) => choose(event.target.name, Number(event.target.value)));
}
find("begin").addEventListener("click", begin);
find("rater").addEventListener("keydown", (event) => event.key === "Enter" && begin());
find("back").addEventListener("click", back);
find("next").addEventListener("click", next);
find("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (find("test").hidden || event.ctrlKey || event.altKey || event.metaKey) {
    return;
  }
  const isControl = event.target.closest("button, summary, audio") !== null;
  const key = event.key.toLowerCase();
  if (key === "a" || key === "b") {
    play(key.toUpperCase(), 0);
  } else if (key === "x") {
    turn();
  } else if (key >= "1" && key <= "5") {
    choose(active().dataset.question, Number(key));
  } else if (key === "enter" && !isControl) {
    next();
  } else if (key === " " && !isControl && event.target.type !== "radio") {
    const player = players[now];
    player.paused ? player.play() : player.pause();
  } else {
    return;
  }
  event.preventDefault();
});

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
  player.addEventListener("play", () => {
    players.filter((other) => other !== player).forEach((other) => other.pause());
  });
}

"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data");
  const pictures = read("pictures");
  const { kind, names, cards } = data;
  const key = `sklearn_dl report ${data.id}`;
  const PAGE = 48;
  const KEYS = 9;

  // ----------------------------------------------------------------- elements

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const named = (text) => make("bdi", { textContent: text });
  const percent = (p) => `${Math.round(100 * p)} %`;
  const short = (x) => String(Number(x.toPrecision(4)));

  for (const image of document.querySelectorAll("img[data-picture]")) {
    const address = pictures[image.dataset.picture];
    if (address) image.src = address;
    else image.replaceWith(make("span", { textContent: "no picture" }));
  }

  // -------------------------------------------------------------------- marks

  // Of each row {action, new, path, old}; the browser's storage keeps them, also of
  // images that a page that is written anew doesn't show.
  let marks = {};
  let stored = true;

  function load() {
    try {
      marks = JSON.parse(localStorage.getItem(key) || "{}");
    } catch {
      stored = false;
    }
  }

  function save() {
    try {
      localStorage.setItem(key, JSON.stringify(marks));
    } catch {
      stored = false;
    }
  }

  function mark(row, action, target) {
    if (action === null) delete marks[row];
    else marks[row] = { action, new: target, path: cards[row].path, old: cards[row].old };
    save();
    show(row);
    tally(describe(row));
  }

  function describe(row) {
    const made = marks[row];
    if (!made) return "";
    if (made.action === "keep") return "Kept";
    if (made.action === "drop") return "Dropped";
    return `Relabelled: ${spoken(made.new)}`;
  }

  // What a target of the file of corrections is called here.
  function spoken(text) {
    if (kind !== "labels") return text;
    const there = text.split(";").flatMap((bit, i) => (bit === "1" ? [names[i]] : []));
    return there.length ? there.join(", ") : "no label";
  }

  function tally(said = "") {
    const counts = { keep: 0, relabel: 0, drop: 0 };
    for (const made of Object.values(marks)) counts[made.action] += 1;
    const n = counts.keep + counts.relabel + counts.drop;
    const parts = [
      `${n} judged: ${counts.relabel} relabelled, ${counts.drop} dropped, ${counts.keep} kept`,
    ];
    if (said) parts.push(said);
    if (!stored) parts.push("this browser keeps no marks: download before you close the page");
    document.getElementById("tally").textContent = parts.join(". ");
    document.getElementById("download").disabled = n === 0;
    document.getElementById("forget").disabled = n === 0;
  }

  // -------------------------------------------------------------------- cards

  const shown = new Map(); // the elements of a row, in all galleries

  function wording(card) {
    if (kind === "classes") {
      const sure = card.probability === null ? "" : ` ${percent(card.probability)}`;
      const truth = card.of_truth === null ? "" : ` ${percent(card.of_truth)}`;
      return [
        ["predicted ", names[card.prediction], sure, card.wrong ? "wrong" : "right"],
        ["label ", names[card.truth], truth, ""],
        ...(card.suggestion === undefined || card.suggestion === card.prediction
          ? []
          : [["likely ", names[card.suggestion], "", ""]]),
      ];
    }
    if (kind === "labels") {
      const all = (list) => list.map((i) => names[i]).join(", ") || "none";
      const errors = card.errors.map(([i, p]) => `${names[i]} ${percent(p)}`).join(", ");
      return [
        ["labels ", all(card.truth), "", ""],
        ["predicted ", all(card.prediction), "", card.wrong ? "wrong" : "right"],
        ...(errors ? [["wrong: ", errors, "", "wrong"]] : []),
        ...(card.suggestions ? [["in doubt: ", all(card.suggestions), "", ""]] : []),
      ];
    }
    const all = (list) => list.map(short).join(", ");
    return [
      ["predicted ", all(card.prediction), "", ""],
      ["target ", all(card.truth), "", ""],
      ["error ", all(card.error), "", "wrong"],
    ];
  }

  function candidates(card) {
    if (kind === "numbers") return [];
    if (names.length <= KEYS) return names.map((_, i) => i);
    return kind === "classes" ? card.likely : card.errors.map(([i]) => i).slice(0, KEYS);
  }

  // The target that a candidate's key gives.
  function chosen(row, index) {
    if (kind === "classes") return names[index];
    const bits = current(row).split(";");
    bits[index] = bits[index] === "1" ? "0" : "1";
    return bits.join(";");
  }

  const current = (row) =>
    marks[row] && marks[row].action === "relabel" ? marks[row].new : cards[row].old;

  function relabel(row, target) {
    const made = marks[row];
    const same = made && made.action !== "drop" && made.new === target;
    if (same || (kind === "labels" && target === cards[row].old)) mark(row, null);
    else if (target === cards[row].old) mark(row, "keep", target);
    else mark(row, "relabel", target);
  }

  function toggle(row, action) {
    const same = marks[row] && marks[row].action === action;
    mark(row, same ? null : action, action === "keep" ? cards[row].old : "");
  }

  function marker(row, keyName, text, act) {
    const button = make("button", { type: "button", tabIndex: -1 });
    if (keyName) button.append(make("kbd", { textContent: keyName }), " ");
    button.append(named(text));
    button.addEventListener("click", act);
    return button;
  }

  function build(row) {
    const card = cards[row];
    const lines = wording(card);
    const said = lines.map(([before, text, after]) => before + text + after).join("; ");
    const image = make("img", { alt: `Image ${row}: ${said}`, decoding: "async" });
    if (pictures[row]) image.src = pictures[row];
    const article = make("article", { className: "card", tabIndex: 0 });
    article.dataset.row = row;
    article.setAttribute("aria-label", `Image ${row}: ${said}`);
    const figure = make("figure", {}, make("div", { className: "frame" }, image));
    const caption = make("figcaption");
    for (const [before, text, after, look] of lines) {
      caption.append(make("p", { className: look }, before, named(text), after));
    }
    const where = card.path === null ? `row ${row}` : card.path;
    caption.append(make("p", { className: "path" }, named(where)));
    figure.append(caption);
    const group = make("div", { className: "marks", role: "group" });
    group.setAttribute("aria-label", "Judge this label");
    group.append(marker(row, "k", "keep", () => toggle(row, "keep")));
    group.append(marker(row, "d", "drop", () => toggle(row, "drop")));
    group.firstChild.dataset.action = "keep";
    group.lastChild.dataset.action = "drop";
    candidates(card).forEach((index, place) => {
      const act = () => relabel(row, chosen(row, index));
      const button = marker(row, String(place + 1), names[index], act);
      button.dataset.index = index;
      group.append(button);
    });
    if (kind === "numbers" || names.length > KEYS) group.append(writer(row));
    if (pictures[`map ${row}`]) {
      const button = marker(row, "g", "what counted", () => flip(article));
      button.dataset.action = "map";
      button.setAttribute("aria-pressed", "false");
      group.append(button);
    }
    article.append(figure, make("p", { className: "verdict" }), group);
    // A card is one stop of the tab key; its buttons follow once it has the focus.
    article.addEventListener("focusin", () => reach(article, 0));
    article.addEventListener("focusout", (event) => {
      if (!article.contains(event.relatedTarget)) reach(article, -1);
    });
    return article;
  }

  function reach(article, tabIndex) {
    for (const one of article.querySelectorAll("button, input")) one.tabIndex = tabIndex;
  }

  // A field for what has no key: a number, or one of many classes.
  function writer(row) {
    const field = make("input", { type: "text", tabIndex: -1, dir: "auto" });
    if (kind === "numbers") field.inputMode = "decimal";
    else field.setAttribute("list", "names");
    field.addEventListener("change", () => {
      const text = field.value.trim();
      const target = text && written(row, field.value);
      field.setCustomValidity(text && target === null ? "There is no such target." : "");
      field.setAttribute("aria-invalid", String(Boolean(text) && target === null));
      if (!field.reportValidity() || !text) return;
      mark(row, target === cards[row].old ? "keep" : "relabel", target);
    });
    return make("label", {}, kind === "labels" ? "label on or off " : "other ", field);
  }

  // The target that was written; null where there is none such.
  function written(row, text) {
    if (kind === "numbers") {
      const parts = text.trim().split(/\s*;\s*/);
      const whole = parts.length === cards[row].truth.length;
      const sound = parts.every((part) => part !== "" && Number.isFinite(Number(part)));
      return whole && sound ? parts.join(";") : null;
    }
    const index = names.indexOf(text);
    return index < 0 ? null : chosen(row, index);
  }

  function flip(article) {
    const { row } = article.dataset;
    if (!pictures[`map ${row}`]) return;
    const button = article.querySelector('[data-action="map"]');
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    article.querySelector("img").src = pictures[on ? `map ${row}` : row];
  }

  function show(row) {
    const made = marks[row];
    const action = made ? made.action : "";
    const bits = current(row).split(";");
    for (const article of shown.get(String(row)) || []) {
      article.dataset.mark = action;
      article.querySelector(".verdict").replaceChildren(named(describe(row)));
      for (const button of article.querySelectorAll(".marks button")) {
        const { action: own, index } = button.dataset;
        if (own === "map") continue;
        let on = own === action;
        if (index !== undefined && kind === "classes") {
          on = action === "relabel" && made.new === names[index];
        } else if (index !== undefined) {
          on = action !== "drop" && bits[index] === "1";
        }
        button.setAttribute("aria-pressed", String(on));
      }
      const field = article.querySelector("input");
      if (field && document.activeElement !== field) {
        field.value = action === "relabel" && kind !== "labels" ? made.new : "";
      }
    }
  }

  // ---------------------------------------------------------------- galleries

  const orders = {
    loss: (a, b) => cards[b].loss - cards[a].loss,
    sure: (a, b) => cards[b].sure - cards[a].sure,
    unsure: (a, b) => cards[a].sure - cards[b].sure,
    path: (a, b) => {
      const one = cards[a].path || "";
      const two = cards[b].path || "";
      return one < two ? -1 : Number(one > two) || a - b;
    },
  };

  function has(card, index) {
    if (kind === "classes") return card.truth === index || card.prediction === index;
    return card.truth.includes(index) || card.prediction.includes(index);
  }

  function gallery(root) {
    const rows = data[root.dataset.order];
    const list = root.querySelector(".cards");
    const more = root.querySelector(".more");
    const choice = {};
    let most = PAGE;

    function fits(row) {
      const card = cards[row];
      if (choice.class && !has(card, Number(choice.class))) return false;
      if (choice.which === "wrong") return card.wrong;
      if (choice.which === "open") return !marks[row];
      if (choice.which === "judged") return Boolean(marks[row]);
      return true;
    }

    function draw() {
      for (const article of list.querySelectorAll(".card")) {
        const others = shown.get(article.dataset.row);
        others.splice(others.indexOf(article), 1);
      }
      const found = rows.filter(fits);
      if (choice.sort) found.sort(orders[choice.sort]);
      const articles = found.slice(0, most).map((row) => {
        const article = build(row);
        const id = String(row);
        if (!shown.has(id)) shown.set(id, []);
        shown.get(id).push(article);
        return article;
      });
      list.replaceChildren(...articles.map((article) => make("li", {}, article)));
      found.slice(0, most).forEach(show);
      more.hidden = found.length <= most;
      const count = root.querySelector(".count");
      count.textContent = `${Math.min(most, found.length)} of ${found.length} shown`;
    }

    for (const select of root.querySelectorAll("select")) {
      select.addEventListener("change", () => {
        choice[select.dataset.choice] = select.value;
        most = PAGE;
        draw();
      });
    }
    root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      const first = most;
      most += PAGE;
      draw();
      const cardsNow = list.querySelectorAll(".card");
      if (cardsNow[first]) cardsNow[first].focus();
    });
    // What the browser remembered of the form would say another thing than the list.
    root.querySelector("form").reset();
    draw();
    return draw;
  }

  // ----------------------------------------------------------------- keyboard

  function neighbour(article, arrow) {
    const all = [...article.closest(".cards").querySelectorAll(".card")];
    const at = all.indexOf(article);
    const start = getComputedStyle(article).direction === "rtl" ? "ArrowRight" : "ArrowLeft";
    if (arrow === start) return all[at - 1];
    if (arrow === "ArrowLeft" || arrow === "ArrowRight") return all[at + 1];
    const { left, top } = article.getBoundingClientRect();
    const below = arrow === "ArrowDown";
    const column = all.filter((one) => {
      const box = one.getBoundingClientRect();
      return Math.abs(box.left - left) < 5 && (below ? box.top > top + 5 : box.top < top - 5);
    });
    return below ? column[0] : column[column.length - 1];
  }

  document.addEventListener("keydown", (event) => {
    const { target, key: pressed } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.closest("input, select, textarea")) return;
    const article = target.closest(".card");
    if (!article) return;
    const { row } = article.dataset;
    const card = cards[row];
    if (pressed.startsWith("Arrow")) {
      const next = neighbour(article, pressed);
      if (next) next.focus();
    } else if (/^[1-9]$/.test(pressed)) {
      const index = candidates(card)[Number(pressed) - 1];
      if (index === undefined) return;
      relabel(row, chosen(row, index));
    } else if (pressed === "k") toggle(row, "keep");
    else if (pressed === "d") toggle(row, "drop");
    else if (pressed === "u") mark(row, null);
    else if (pressed === "g") flip(article);
    else return;
    event.preventDefault();
  });

  // --------------------------------------------------------------------- file

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  // Bytes of file names that are no UTF-8 came as lone surrogates: they go as they came.
  function bytes(text) {
    return text.split(/([\uDC80-\uDCFF])/u).map((part, i) =>
      i % 2 ? Uint8Array.of(part.charCodeAt(0) - 0xdc00) : part
    );
  }

  function download() {
    const lines = Object.entries(marks).map(([row, { action, new: target, path, old }]) =>
      [path === null ? row : path, old, target, action].map(quoted).join(",")
    );
    const text = ["path,old,new,action", ...lines, ""].join("\r\n");
    const file = new Blob(bytes(text), { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(file), download: "corrections.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // -------------------------------------------------------------------- begin

  load();
  const draws = [...document.querySelectorAll(".gallery")].map(gallery);
  tally();
  document.getElementById("download").addEventListener("click", download);
  document.getElementById("forget").addEventListener("click", () => {
    if (!confirm("Forget all marks of this report?")) return;
    marks = {};
    save();
    for (const draw of draws) draw();
    tally();
  });
  document.getElementById("begin").addEventListener("click", () => {
    for (const part of ["#doubted", "#worst"]) {
      const root = document.querySelector(`${part} .gallery`);
      if (!root) continue;
      const more = root.querySelector(".more");
      for (;;) {
        const all = [...root.querySelectorAll(".card")];
        const next = all.find((article) => !marks[article.dataset.row]);
        if (next) return next.focus();
        if (more.hidden) break;
        more.click();
      }
    }
    const any = document.querySelector("#doubted .card, #worst .card");
    if (any) any.focus();
  });
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        button.textContent = "Copied";
      } catch {
        // From disk some browsers don't let pages write there: the text is marked.
        getSelection().selectAllChildren(button.parentElement.querySelector("code"));
        button.textContent = "Press Ctrl+C";
      }
    });
  }
  // Another tab with this report.
  addEventListener("storage", (event) => {
    if (event.key !== key) return;
    load();
    for (const row of shown.keys()) show(row);
    tally();
  });
})();

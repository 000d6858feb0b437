"use strict";
// Sorts, searches and compares what the page shows; texts are only ever moved as text.
(() => {
  const make = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);
  const table = document.getElementById("all");
  const rows = table ? [...table.tBodies[0].rows] : [];
  const name = (row) => row.querySelector("th").textContent.trim();
  const place = (one) => document.getElementById(one);

  // A link to something folded unfolds it, where the browser does not.
  const reveal = () => {
    const target = place(decodeURIComponent(location.hash.slice(1)));
    for (let at = target?.closest("details"); at; at = at.parentElement.closest("details")) at.open = true;
    target?.closest("details")?.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Figures of a mark under the pointer, at once and also on touch.
  const tip = make("output", "", { className: "tip", hidden: true });
  document.body.append(tip);
  document.addEventListener("pointerover", (event) => {
    const title = event.target.closest("svg *")?.querySelector(":scope > title");
    if (title) {
      event.target.dataset.tip = title.textContent;
      event.target.setAttribute("aria-label", title.textContent);
      title.remove();
    }
    tip.hidden = !event.target.dataset?.tip;
    if (tip.hidden) return;
    tip.textContent = event.target.dataset.tip;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
  });

  if (!table) return;

  // Sort: numbers by value, other words by the alphabet, what is unknown last.
  const figure = (text) => (/^[+-]?[\d.]/.test(text) ? Number.parseFloat(text.replaceAll(",", "")) : Number.NaN);
  const order = (one, other, sign) => {
    const [a, b] = [figure(one), figure(other)];
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
    return sign * (Number.isNaN(a) ? one.localeCompare(other) : a - b);
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", head.textContent, { type: "button" });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const keyed = rows.map((row) => [row.cells[column].textContent.replace(/^\[/, ""), row]);
      keyed.sort((a, b) => order(a[0], b[0], sign));
      table.tBodies[0].append(...keyed.map((one) => one[1]));
    });
  });

  // Search: all words, in a candidate's row or in its prompt.
  const prompt = (one) => {
    const own = place(one)?.querySelector(".prompt");
    const same = own?.querySelector("a.same");
    return same ? prompt(same.textContent) : own;
  };
  const tools = make("div", "", { className: "tools" });
  const search = make("input", "", { type: "search", id: "search" });
  const found = make("output", `${rows.length} candidates`);
  const label = make("label", "Search settings and prompts ");
  label.append(search);
  tools.append(label, found);
  table.closest(".scroll").before(tools);
  let texts = null;
  search.addEventListener("input", () => {
    texts ??= rows.map((row) => `${row.textContent} ${prompt(name(row))?.textContent}`.toLowerCase());
    const words = search.value.toLowerCase().split(/\s+/);
    let count = 0;
    rows.forEach((row, index) => {
      const there = words.every((word) => texts[index].includes(word));
      count += there;
      row.hidden = !there;
      const folded = place(name(row))?.closest("details");
      if (folded) folded.hidden = !there;
    });
    found.textContent = `${count} of ${rows.length} candidates`;
  });

  // Compare two: settings, texts, and episodes by seed.
  const pick = (id, words, chosen) => {
    const select = make("select", "", { id });
    select.append(...rows.map((row) => make("option", name(row))));
    select.value = chosen;
    const named = make("label", words);
    named.append(select);
    return [named, select];
  };
  const chosen = table.querySelector("tr.frozen");
  const other = rows.find((row) => name(row) === "baseline") ?? rows[0];
  const [first, a] = pick("compare-a", "Compare ", name(chosen && chosen !== other ? chosen : rows[0]));
  const [second, b] = pick("compare-b", " with ", name(other));
  const button = make("button", "Side by side", { type: "button", id: "compare" });
  const choice = make("div", "", { className: "tools" });
  choice.append(first, second, button);
  const result = make("div", "", { id: "compared" });
  place("details").after(choice, result);

  const pair = (one, two) => {
    const both = make("div", "", { className: "pair" });
    [[a.value, one], [b.value, two]].forEach(([who, content]) => {
      const side = make("div");
      side.append(make("h5", who), content ?? make("p", "none", { className: "muted" }));
      both.append(side);
    });
    return both;
  };
  const marked = (mine, theirs) => {
    if (!mine) return null;
    const known = new Set((theirs?.textContent ?? "").split("\n"));
    const shown = make("pre");
    shown.append(...mine.textContent.split("\n").flatMap((line) => [known.has(line) ? line : make("mark", line), "\n"]));
    return shown;
  };
  const episodes = (one) => new Map([...place(one).querySelectorAll(".episode")].map((each) => [each.dataset.seed, each]));
  const copied = (episode) => {
    if (!episode) return null;
    const copy = make("div");
    const words = (episode.querySelector("summary") ?? episode).textContent;
    copy.append(make("p", words, { className: "reward" }), ...[...episode.cloneNode(true).children].slice(1));
    return copy;
  };
  button.addEventListener("click", () => {
    const [one, two] = [a.value, b.value].map((who) => rows.find((row) => name(row) === who));
    const settings = make("table");
    const top = settings.createTHead().insertRow();
    top.append(...["", a.value, b.value].map((word) => make("th", word, { scope: "col" })));
    const body = settings.createTBody();
    heads.forEach((head, column) => {
      if (column === 1) return;
      const [mine, its] = [one, two].map((row) => row.cells[column].textContent);
      const row = body.insertRow();
      row.className = mine === its ? "muted" : "";
      row.append(make("th", head.textContent, { scope: "row" }), make("td", mine), make("td", its));
    });
    const parts = [a.value, b.value].map((who) => prompt(who));
    const names = new Set(parts.flatMap((part) => [...part.querySelectorAll("[data-part]")].map((each) => each.dataset.part)));
    const written = [...names].flatMap((part) => {
      const [mine, its] = parts.map((each) => each.querySelector(`[data-part="${part}"]`));
      return [make("h4", part), pair(marked(mine, its), marked(its, mine))];
    });
    const [mine, its] = [episodes(a.value), episodes(b.value)];
    const seeds = [...new Set([...mine.keys(), ...its.keys()])].sort((left, right) => left - right);
    const played = seeds.flatMap((seed) => [make("h4", `seed ${seed}`), pair(copied(mine.get(seed)), copied(its.get(seed)))]);
    result.replaceChildren(settings, ...written, ...played);
  });
})();

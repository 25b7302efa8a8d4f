// The page of printed numbers: a field and a drop-down that hide rows of its tables. Without this the page is whole.
(() => {
  const tables = [...document.querySelectorAll(".printed table")].map((table) => {
    const section = table.closest("section");
    return { section, title: section.querySelector("h2").firstChild.textContent, rows: [...table.tBodies[0].rows] };
  });
  if (!tables.length) return;

  const made = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const exhibit = made("select", { id: "printed-exhibit" }, made("option", { value: "" }, "all"));
  exhibit.append(...tables.map(({ title }) => made("option", { value: title }, title)));
  const words = made("input", { id: "printed-words", type: "search", autocomplete: "off", placeholder: "layer 12" });
  const count = made("output", { htmlFor: "printed-exhibit printed-words" });
  const filter = made(
    "div",
    { className: "printed-filter" },
    made("label", { htmlFor: exhibit.id }, "Exhibit"),
    exhibit,
    made("label", { htmlFor: words.id }, "with the words"),
    words,
    count,
  );
  filter.setAttribute("role", "search");

  const split = (text) => text.toLowerCase().split(/[\s,:]+/).filter(Boolean);
  // a number is looked for whole, in what the row is about and what the paper prints; a word anywhere, also half typed
  const has = (row, word) =>
    /^[\d.]+$/.test(word)
      ? [...row.cells].slice(0, 2).some((cell) => split(cell.textContent).includes(word))
      : row.textContent.toLowerCase().includes(word);

  const show = () => {
    const wanted = split(words.value);
    let shown = 0;
    for (const { section, title, rows } of tables) {
      const chosen = !exhibit.value || exhibit.value === title;
      const left = rows.filter((row) => {
        row.hidden = !(chosen && wanted.every((word) => has(row, word)));
        return !row.hidden;
      });
      section.hidden = !left.length;
      shown += left.length;
    }
    const all = tables.reduce((sum, { rows }) => sum + rows.length, 0);
    count.value = `${shown} of ${all} rows`;
  };
  exhibit.addEventListener("change", show);
  words.addEventListener("input", show);
  tables[0].section.before(filter);
  show();
})();

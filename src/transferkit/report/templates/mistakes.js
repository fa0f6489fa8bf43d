(() => {
  "use strict";
  const field = (id) => document.getElementById(id);
  const list = field("mistake-list");
  const items = [...list.children].map((element) => ({
    element,
    label: element.dataset.label,
    wrong: JSON.parse(element.dataset.wrong),
    text: element.querySelector(".texts").textContent.toLowerCase(),
  }));

  // Wrong answers of the chosen strategy come with the most confident one first; else the order of the page.
  const arranged = (strategy) =>
    strategy ? [...items].sort((a, b) => (b.wrong[strategy] ?? 0) - (a.wrong[strategy] ?? 0)) : items;

  const apply = () => {
    const strategy = field("filter-strategy")?.value ?? "";
    const label = field("filter-label").value;
    const text = field("filter-text").value.trim().toLowerCase();
    let shown = 0;
    for (const item of arranged(strategy)) {
      const fits = (!strategy || Object.hasOwn(item.wrong, strategy)) && (!label || item.label === label) && item.text.includes(text);
      item.element.hidden = !fits;
      shown += fits;
      list.append(item.element);
    }
    field("filter-count").textContent = `${shown} of ${items.length}`;
  };

  field("filter").addEventListener("input", apply);
  field("filter").addEventListener("submit", (event) => event.preventDefault());
  field("filter").hidden = false;
  // A browser may keep the choices of an earlier visit.
  apply();
})();

/* The page of a trace. It draws the lines that are open; everything that comes from the trace is shown as text. */
(() => {
  const { title, subtitle, wholeMs, services, shares, rows } = JSON.parse(document.querySelector("#trace").textContent);
  const mostLines = 2000;
  const state = {
    filter: "",
    folded: new Set([...rows.keys()].filter((index) => rows[index].kind === "group")),
    open: new Set(),
    fromMs: 0,
    toMs: wholeMs || 1,
    lines: mostLines,
  };
  const parents = parentsOf(rows);
  const texts = rows.map(({ label, note, error, details, service }) =>
    JSON.stringify([label, note, error, services[service], details]).toLowerCase(),
  );

  /** The line above each line in the tree; -1 for none. */
  function parentsOf(lines) {
    const lastAt = [];
    return lines.map(({ depth }, index) => {
      lastAt[depth] = index;
      return depth === 0 ? -1 : lastAt[depth - 1];
    });
  }

  /** An element with properties and children; a string among the children is text. */
  function element(tag, properties = {}, ...children) {
    const { style = {}, attributes = {}, ...others } = properties;
    const made = Object.assign(document.createElement(tag), others);
    for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== undefined));
    return made;
  }

  const colorOf = (service) => (service < 0 ? "var(--line)" : `var(--service-${service % 8})`);
  const colored = (service) => ({ "--color": colorOf(service) });

  function head() {
    const named = shares.slice(0, 7);
    return [
      element("h1", { textContent: title }),
      element("div", { className: "subtitle", textContent: subtitle }),
      element(
        "div",
        { className: "shares", attributes: { role: "img", "aria-label": "Where the time went" } },
        ...shares.map(({ service, label, share, text }) =>
          element("div", { title: `${label}: ${text}`, style: { ...colored(service), "--share": String(share) } }),
        ),
      ),
      element(
        "ul",
        { className: "legend" },
        ...named.map(({ service, label, text }) =>
          element(
            "li",
            {},
            element("span", { className: "dot", style: colored(service) }),
            element("b", { textContent: label }),
            ` ${service < 0 ? "" : `${services[service]}, `}${text}`,
          ),
        ),
      ),
    ];
  }

  function tools() {
    const filter = element("input", {
      type: "search",
      id: "filter",
      placeholder: "Filter by name, service or attribute",
      oninput: () => {
        state.filter = filter.value.trim().toLowerCase();
        state.lines = mostLines;
        draw();
      },
    });
    return element(
      "div",
      { className: "tools" },
      filter,
      element("span", {}, element("span", { className: "sample" }), "critical path: had to be waited for"),
      element("span", {}, element("span", { className: "sample faint" }), "other time"),
      element("button", { id: "whole", textContent: "Whole trace", hidden: true, onclick: () => zoom(0, wholeMs) }),
    );
  }

  const list = element("div", { id: "rows", attributes: { role: "tree", "aria-label": "Spans" } });
  const ticks = element("div", { className: "ticks" });
  document.body.append(
    ...head(),
    tools(),
    element("div", { className: "axis" }, element("span"), element("span"), ticks),
    list,
  );
  draw();

  function zoom(fromMs, toMs) {
    Object.assign(state, { fromMs, toMs: Math.max(toMs, fromMs + 1e-3) });
    draw();
  }

  /** Places of the lines to show: with a filter those that match and what is above them, else those that are not folded away. */
  function shown() {
    if (state.filter !== "") {
      const wanted = new Set();
      for (const [index, text] of texts.entries()) {
        if (!text.includes(state.filter)) continue;
        for (let above = index; above !== -1 && !wanted.has(above); above = parents[above]) wanted.add(above);
      }
      return [...wanted].sort((one, other) => one - other);
    }
    const visible = [];
    for (let index = 0; index < rows.length; ) {
      visible.push(index);
      const { depth } = rows[index];
      const folded = state.folded.has(index);
      index++;
      while (folded && rows[index]?.depth > depth) index++;
    }
    return visible;
  }

  function draw() {
    const visible = shown();
    const lines = visible.slice(0, state.lines).flatMap((index) => {
      const line = drawRow(index);
      return state.open.has(index) ? [line, drawDetails(index)] : [line];
    });
    const left = visible.length - state.lines;
    if (left > 0) lines.push(element("button", { textContent: `${left} more lines`, onclick: showMore }));
    list.replaceChildren(...lines);
    ticks.replaceChildren(
      ...[0, 1, 2, 3, 4].map((quarter) =>
        element("span", { textContent: time(state.fromMs + (quarter * (state.toMs - state.fromMs)) / 4) }),
      ),
    );
    document.querySelector("#whole").hidden = state.fromMs === 0 && state.toMs >= wholeMs;
  }

  function showMore() {
    state.lines += mostLines;
    draw();
  }

  function drawRow(index) {
    const {
      kind,
      depth,
      label,
      note,
      service,
      takesOver,
      critical,
      attempt,
      error,
      bars,
      path,
      time: took,
    } = rows[index];
    const parent = rows[index + 1]?.depth > depth;
    const open = parent && !state.folded.has(index);
    const unmatched = state.filter !== "" && !texts[index].includes(state.filter);
    const classes = { critical, entry: takesOver, unmatched, failed: error !== "" };
    return element(
      "div",
      {
        className: ["row", ...Object.keys(classes).filter((name) => classes[name])].join(" "),
        tabIndex: 0,
        style: { ...colored(service), "--depth": String(Math.min(depth, 24)) },
        attributes: {
          role: "treeitem",
          "aria-level": String(depth + 1),
          "aria-selected": String(state.open.has(index)),
          "data-index": String(index),
          ...(parent && { "aria-expanded": String(open) }),
        },
        onclick: ({ target }) =>
          target.className === "fold" || kind !== "span" ? fold(index) : toggle(state.open, index),
        onkeydown: (event) => press(event, index),
      },
      element(
        "div",
        { className: "name" },
        element("span", { className: "fold", textContent: parent ? (open ? "▾" : "▸") : "" }),
        service < 0 ? undefined : element("span", { className: "dot" }),
        element("span", { className: "label", textContent: label }),
        attempt > 1 ? element("span", { className: "attempt", textContent: `try ${attempt}` }) : undefined,
        element("span", {
          className: "note",
          textContent: [takesOver ? services[service] : "", note, error].filter(Boolean).join(" · "),
        }),
      ),
      element("div", { className: "time", textContent: took }),
      element(
        "div",
        { className: "track" },
        ...bars.flatMap((bar) => drawBar(bar, "bar")),
        ...path.flatMap((bar) => drawBar(bar, "bar path")),
      ),
    );
  }

  function drawBar([startMs, endMs], className) {
    const { fromMs, toMs } = state;
    if (endMs < fromMs || startMs > toMs) return [];
    const place = (ms) => (100 * (Math.min(Math.max(ms, fromMs), toMs) - fromMs)) / (toMs - fromMs);
    // What begins at the very end still has to be seen.
    const left = `min(${place(startMs)}%, 100% - 2px)`;
    return [element("div", { className, style: { left, width: `${place(endMs) - place(startMs)}%` } })];
  }

  function drawDetails(index) {
    const { details, error, service, depth, bars } = rows[index];
    const { facts, attributes, events, links } = details;
    const [startMs, endMs] = bars[0];
    return element(
      "div",
      { className: "details", style: { ...colored(service), "--depth": String(Math.min(depth, 24)) } },
      error === "" ? undefined : element("div", { className: "error", textContent: error }),
      table(facts),
      ...section("Attributes", [{ attributes }]),
      ...section("Events", events),
      ...section("Links", links),
      element("button", { className: "zoom", textContent: "Zoom to this span", onclick: () => zoom(startMs, endMs) }),
    );
  }

  function section(name, parts) {
    const filled = parts.filter(
      ({ title: heading, attributes }) => heading !== undefined || Object.keys(attributes).length > 0,
    );
    if (filled.length === 0) return [];
    const blocks = filled.flatMap(({ title: heading, attributes }) => [
      heading === undefined ? undefined : element("div", { textContent: heading }),
      table(attributes),
    ]);
    return [element("h2", { textContent: name }), ...blocks.filter(Boolean)];
  }

  function table(values) {
    const cell = (value) => element("td", { textContent: typeof value === "string" ? value : JSON.stringify(value) });
    return element(
      "table",
      {},
      ...Object.entries(values).map(([name, value]) => element("tr", {}, cell(name), cell(value))),
    );
  }

  function fold(index) {
    if (rows[index + 1]?.depth > rows[index].depth) toggle(state.folded, index);
  }

  function toggle(set, index) {
    if (!set.delete(index)) set.add(index);
    draw();
    list.querySelector(`[data-index="${index}"]`)?.focus();
  }

  /** The keys of a tree: up and down between lines, left and right to fold, Enter for details. */
  function press(event, index) {
    const items = [...list.querySelectorAll(".row")];
    const at = items.indexOf(event.currentTarget);
    const act = {
      ArrowUp: () => items[at - 1]?.focus(),
      ArrowDown: () => items[at + 1]?.focus(),
      ArrowLeft: () => state.folded.has(index) || fold(index),
      ArrowRight: () => state.folded.has(index) && fold(index),
      Enter: () => (rows[index].kind === "span" ? toggle(state.open, index) : fold(index)),
    }[event.key];
    if (act === undefined) return;
    event.preventDefault();
    act();
  }

  function time(ms) {
    if (ms === 0) return "0";
    const [size, unit] =
      ms < 1 ? [ms * 1000, "µs"] : ms < 1000 ? [ms, "ms"] : ms < 100_000 ? [ms / 1000, "s"] : [ms / 60_000, "min"];
    return `${size < 100 ? size.toFixed(1) : Math.round(size)} ${unit}`;
  }
})();

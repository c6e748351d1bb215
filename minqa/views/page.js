// Makes heat maps answer to pointer and keyboard. Each block carries its numbers in data-map:
//   rows     similarity [query word][passage word], null where two words cannot be compared
//   steps    of the colours, from 1, that each of these reaches, or 0
//   heat     the same of each passage word by all query words, null for punctuation
//   partner  the query word that makes each passage word hot, -1 where there is none
//   shades   the colours
// It may be called again when there are more blocks, and loaded again, as in a notebook.
function minqaReady() {
  for (const map of document.querySelectorAll('.minqa[data-map]:not([data-ready])')) {
    map.dataset.ready = 1;
    minqaAnswer(map, JSON.parse(map.dataset.map));
  }
  for (const grid of document.querySelectorAll('.minqa[data-heads]:not([data-ready])')) {
    grid.dataset.ready = 1;
    minqaHeads(grid, JSON.parse(grid.dataset.heads));
  }
}

function minqaAnswer(map, data) {
  const query = [...map.querySelectorAll(':scope > .query b')];
  const passage = [...map.querySelectorAll(':scope > .passage b')];
  const buttons = query.filter((word) => word.hasAttribute('role')); // words with weight
  let kept = query.findIndex((word) => word.getAttribute('aria-pressed') === 'true');

  // Shade the passage by one query word, or by all of them (row -1).
  const paint = (row) =>
    passage.forEach((word, i) => {
      const isWord = data.heat[i] !== null;
      const colour = data.shades[(row < 0 || !isWord ? data.heat[i] : data.steps[row][i]) - 1];
      if (colour) word.setAttribute('style', 'background:' + colour);
      else word.removeAttribute('style');
      const partner = row < 0 ? data.partner[i] : row;
      const similarity = isWord && partner >= 0 ? data.rows[partner][i] : null;
      word.title = similarity === null ? '' : query[partner].dataset.text + ' ' + similarity.toFixed(2);
    });
  if (kept >= 0) paint(kept);

  for (const word of buttons) {
    const row = query.indexOf(word);
    word.onmouseenter = () => paint(row);
    word.onmouseleave = () => paint(kept);
    word.onclick = () => {
      kept = kept === row ? -1 : row;
      for (const other of buttons) other.setAttribute('aria-pressed', query.indexOf(other) === kept);
      paint(kept);
    };
    word.onkeydown = (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      word.click();
    };
  }

  // Pointing at a passage word outlines its partner in the query.
  passage.forEach((word, i) => {
    word.onmouseenter = () => {
      const partner = kept < 0 ? data.partner[i] : kept;
      if (data.heat[i] !== null && partner >= 0) query[partner].classList.add('partner');
    };
    word.onmouseleave = () => query.forEach((other) => other.classList.remove('partner'));
  });
}

// All heads: pointing at a map names its words and their attention, and a click draws the head below, unless the
// app does. `data` has the parts and attention[layer][head][from][to].
function minqaHeads(grid, data) {
  const size = data.parts.length;
  for (const map of grid.querySelectorAll('svg[data-layer]')) {
    const weights = data.attention[map.dataset.layer - 1][map.dataset.head];
    const name = map.getAttribute('aria-label');
    map.onmousemove = (event) => {
      const box = map.getBoundingClientRect();
      const part = (place) => Math.min(size - 1, Math.max(0, Math.floor(place * size)));
      const from = part((event.clientY - box.top) / box.height);
      const to = part((event.clientX - box.left) / box.width);
      map.querySelector('title').textContent =
        `${name}: ${data.parts[from]} → ${data.parts[to]} ${weights[from][to].toFixed(2)}`;
    };
    map.onkeydown = (event) => {
      if (event.key === 'Enter') map.dispatchEvent(new MouseEvent('click', { bubbles: true }));
    };
    if (!grid.closest('.tab')) {
      map.onclick = () => grid.querySelector('.chosen').replaceChildren(...minqaHead(name, data.parts, weights, map));
    }
  }
}

// One head: a heading, arcs and a matrix, as the macro `head` of page.html has them.
function minqaHead(name, parts, weights, map) {
  const make = (kind, attributes = {}, children = []) => {
    const svg = ['svg', 'g', 'text', 'path', 'circle'].includes(kind);
    const element = svg ? document.createElementNS(map.namespaceURI, kind) : document.createElement(kind);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  // Where each colour begins, as the legend of the grid says.
  const steps = [...map.closest('.heads').querySelectorAll('.legend i')];
  const shades = steps.map((step) => [parseFloat(step.textContent), step.style.background]);
  const arc = (from, to, weight) => {
    const [start, end] = [20 * from + 11, 20 * to + 11];
    if (from === to) return make('circle', { cx: 95, cy: start, r: 1 + 3 * weight, opacity: weight });
    const side = to < from ? -1 : 1;
    const edge = 160 + side * 60;
    const far = edge + side * Math.min(95, 12 + 9 * Math.abs(from - to));
    const how = { 'stroke-width': 0.6 + 3 * weight, opacity: 0.25 + 0.75 * weight };
    if (to < from) how.class = 'before';
    return make('path', { ...how, d: `M${edge} ${start}C${far} ${start} ${far} ${end} ${edge} ${end}` });
  };
  const group = (part, from) => {
    const label = make('text', { x: 160, y: 20 * from + 15 }, [part.slice(0, 16)]);
    const arcs = weights[from].map((weight, to) => (weight >= 0.05 ? arc(from, to, weight) : ''));
    return make('g', { tabindex: 0 }, [label, ...arcs.filter((one) => one)]);
  };
  const cell = (from, to) => {
    const weight = weights[from][to];
    const shade = shades.filter(([limit]) => weight >= limit).pop();
    const title = `${parts[from]} · ${parts[to]} ${weight.toFixed(2)}`;
    return make('td', shade ? { title, style: `background:${shade[1]}` } : { title });
  };
  const row = (part, from) => make('tr', {}, [make('th', {}, [part]), ...parts.map((_, to) => cell(from, to))]);
  const head = make('tr', {}, [make('td'), ...parts.map((part) => make('th', {}, [part]))]);
  const table = make('table', {}, [make('thead', {}, [head]), make('tbody', {}, parts.map(row))]);
  return [
    make('h2', {}, [name.charAt(0).toUpperCase() + name.slice(1)]),
    make('svg', { class: 'arcs', viewBox: `0 0 320 ${20 * parts.length + 4}` }, parts.map(group)),
    make('div', { class: 'scroll matrix' }, [table]),
  ];
}

minqaReady();

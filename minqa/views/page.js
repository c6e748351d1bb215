// Makes heat maps answer to pointer and keyboard. Each block carries its numbers in data-map:
//   rows     similarity [query word][passage word], null where two words cannot be compared
//   heat     of each passage word, null for punctuation
//   partner  the query word that makes each passage word hot, -1 where there is none
//   bounds   the similarity at which each of `shades` begins
// It may be called again when there are more blocks, and loaded again, as in a notebook.
function minqaReady() {
  for (const map of document.querySelectorAll('.minqa[data-map]:not([data-ready])')) {
    map.dataset.ready = 1;
    minqaAnswer(map, JSON.parse(map.dataset.map));
  }
}

function minqaAnswer(map, data) {
  const query = [...map.querySelectorAll(':scope > .query b')];
  const passage = [...map.querySelectorAll(':scope > .passage b')];
  const buttons = query.filter((word) => word.hasAttribute('role')); // words with weight
  let kept = query.findIndex((word) => word.getAttribute('aria-pressed') === 'true');

  const shade = (similarity) => {
    if (similarity === null) return undefined;
    return data.shades[data.bounds.filter((bound) => similarity >= bound).length - 1];
  };

  // Shade the passage by one query word, or by all of them (row -1).
  const paint = (row) =>
    passage.forEach((word, i) => {
      const isWord = data.heat[i] !== null;
      const colour = shade(row < 0 || !isWord ? data.heat[i] : data.rows[row][i]);
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

minqaReady();

// What the page adds to minqa.views' page.js: fields that answer when they change, and the part of the state that
// the server does not need to know, which is the query word that is kept and which maps of every word with every
// word are open. All of it stands in the address.

const minqaForm = document.querySelector('form');
const minqaTab = document.querySelector('.tab');

// Bring the hidden fields and the address up to date.
function minqaKeep() {
  if (!minqaTab) return;
  const words = [...(minqaTab.querySelector('.query')?.querySelectorAll('b') ?? [])];
  const maps = [...minqaTab.querySelectorAll('details[open][data-rank]')].map((map) => map.dataset.rank);
  minqaForm.word.value = words.findIndex((word) => word.getAttribute('aria-pressed') === 'true');
  minqaForm.map.value = maps.join('.');
  const address = new URLSearchParams(minqaTab.dataset.address);
  for (const [name, none] of [['word', '-1'], ['map', '']]) {
    if (minqaForm[name].value === none) address.delete(name);
    else address.set(name, minqaForm[name].value);
  }
  history.replaceState(null, '', address.size ? '?' + address : location.pathname);
}

// Keep a query word in every passage of the tab, or in none, as in the one where it was clicked.
function minqaKeepEverywhere(word) {
  const number = [...word.parentNode.querySelectorAll('b')].indexOf(word);
  const kept = word.getAttribute('aria-pressed');
  for (const query of minqaTab.querySelectorAll('.query')) {
    const other = query.querySelectorAll('b')[number];
    if (other && other !== word && other.getAttribute('aria-pressed') !== kept) other.onclick();
  }
}

document.addEventListener('click', (event) => {
  const word = event.target.closest('.query b[role]');
  const map = event.target.closest('.heads svg');
  if (word && !word.closest('.side')) minqaKeepEverywhere(word);
  if (word) minqaKeep();
  if (map) {
    minqaForm.layer.value = map.dataset.layer;
    minqaForm.head.value = map.dataset.head;
    minqaForm.requestSubmit();
  }
});
document.addEventListener('toggle', (event) => event.target.dataset?.rank && minqaKeep(), true);
minqaForm.addEventListener('change', (event) => event.target.type !== 'text' && minqaForm.requestSubmit());

// An answer is a page of its own; the next one begins where this one was left.
minqaForm.addEventListener('submit', () => {
  if (minqaForm.q?.type === 'text' && minqaForm.q.value !== minqaForm.q.defaultValue) minqaForm.word.value = -1;
  document.querySelector('main').setAttribute('aria-busy', 'true');
  sessionStorage.setItem('minqa', JSON.stringify([scrollX, scrollY, document.activeElement?.id]));
});
addEventListener('pageshow', () => document.querySelector('main').removeAttribute('aria-busy'));
if (sessionStorage.getItem('minqa')) {
  const [x, y, field] = JSON.parse(sessionStorage.getItem('minqa'));
  sessionStorage.removeItem('minqa');
  if (field) document.getElementById(field)?.focus({ preventScroll: true });
  scrollTo(x, y);
}
minqaKeep();

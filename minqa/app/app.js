// What the page adds to minqa.views' page.js: the part of the state that the server does not need to know,
// which is the query word that is kept and which maps of every word with every word are open; and the address.
// The server calls minqaKept() whenever it is about to show a tab.

function minqaTab() {
  return [...document.querySelectorAll('.tab')].find((tab) => tab.offsetParent);
}

// The number of the query word that is kept; -1 if there is none, or if the question has changed since.
function minqaWord() {
  const tab = minqaTab();
  if (!tab) return -1;
  const question = document.querySelector('#ask-question textarea, #ask-question input');
  if (question && new URLSearchParams(tab.dataset.address).get('q') !== question.value) return -1;
  const query = tab.querySelector('.query');
  if (!query) return -1;
  return [...query.querySelectorAll('b')].findIndex((word) => word.getAttribute('aria-pressed') === 'true');
}

// The ranks of the passages whose maps are open, as '1.3'.
function minqaMaps() {
  const maps = minqaTab()?.querySelectorAll('details[open][data-rank]') ?? [];
  return [...maps].map((map) => map.dataset.rank).join('.');
}

function minqaKept() {
  return [minqaWord(), minqaMaps()];
}

// Bring the address, and the link to this view, up to date.
function minqaAddress() {
  const tab = minqaTab();
  if (!tab) return;
  const address = new URLSearchParams(tab.dataset.address);
  const [word, map] = minqaKept();
  if (word === -1) address.delete('word');
  else address.set('word', word);
  if (map === '') address.delete('map');
  else address.set('map', map);
  const text = '?' + address;
  history.replaceState(null, '', text === '?' ? location.pathname : text);
  tab.querySelector('.foot a')?.setAttribute('href', text);
}

// Keep a query word in every passage of the tab, or in none, as in the one where it was clicked.
function minqaKeepEverywhere(word) {
  const number = [...word.parentNode.querySelectorAll('b')].indexOf(word);
  const kept = word.getAttribute('aria-pressed');
  for (const query of minqaTab().querySelectorAll('.query')) {
    const other = query.querySelectorAll('b')[number];
    if (other && other !== word && other.getAttribute('aria-pressed') !== kept) other.onclick();
  }
}

// Set a slider by its number field.
function minqaSet(id, value) {
  const field = document.querySelector(id + ' input[type=number]');
  field.value = value;
  field.dispatchEvent(new Event('input', { bubbles: true }));
}

document.addEventListener('click', (event) => {
  const word = event.target.closest('.query b[role]');
  const map = event.target.closest('.heads svg');
  if (word && !word.closest('.side')) minqaKeepEverywhere(word);
  if (word) minqaAddress();
  if (map) {
    minqaSet('#layer', map.dataset.layer);
    minqaSet('#head', map.dataset.head);
  }
});
document.addEventListener('toggle', (event) => event.target.dataset?.rank && minqaAddress(), true);

// The server has shown a tab: make its words answer, and show its address.
new MutationObserver(() => {
  minqaReady();
  for (const tab of document.querySelectorAll('.tab:not([data-seen])')) {
    tab.dataset.seen = 1;
    minqaAddress();
  }
}).observe(document.documentElement, { childList: true, subtree: true });

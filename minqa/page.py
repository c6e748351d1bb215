"""Texts, their words shaded → HTML that needs nothing from elsewhere, for a file, a notebook or the app."""

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from html import escape
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from minqa.colours import SHADES, bounds, shade
from minqa.text import printable
from minqa.tokens import Tokens

# A heat map knows how a notebook shows it, so these stand below this module and cannot be imported.
HeatMap: TypeAlias = Any
Span: TypeAlias = Any

STYLE = """
.minqa{font:16px/1.75 system-ui,sans-serif;max-width:46em;margin:0 0 2.5em}
.minqa h2{font-size:1.1em;font-weight:600;margin:0 0 .2em}
.minqa p{margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere}
.minqa b{font-weight:inherit;border-radius:3px;padding:1px 0}
.minqa b[style]{color:#000}
.minqa .query{font-size:1.05em}
.minqa .query b{cursor:pointer;padding:1px 2px;border:1px solid #8886}
.minqa .query b sub{font-size:.65em;opacity:.75;margin-left:2px}
.minqa .query b.partner,.minqa .passage b.partner{outline:2px solid #3572b0}
.minqa .query b[aria-pressed=true]{outline:2px solid currentColor}
.minqa .phrase{text-decoration:underline;text-decoration-thickness:2px;text-underline-offset:3px}
.minqa .sentence{border-bottom:1px dotted}
.minqa small:not(.legend){opacity:.8}
.minqa .scroll{overflow:auto;max-height:36em}
.minqa table{border-collapse:collapse;font-size:.85em}
.minqa th{font-weight:inherit;text-align:right;padding:0 .4em;white-space:nowrap}
.minqa thead th{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;padding:.4em 0}
.minqa td{min-width:1.6em;height:1.5em;text-align:center;border:1px solid #8883}
.minqa td[style]{color:#000}
.minqa .legend i{display:inline-block;width:2.6em;text-align:center;font-style:normal;color:#000}
"""
# Makes what `block` has written answer to pointer and keyboard; it may be called again when there is more.
READY = """
const minqaReady=()=>document.querySelectorAll('.minqa[data-map]:not([data-ready])').forEach(map=>{
  map.dataset.ready=1;
  const data=JSON.parse(map.dataset.map);
  const query=[...map.querySelectorAll('.query b')],words=[...map.querySelectorAll('.passage b')];
  const shade=heat=>{let n=0;for(const bound of data.bounds)n+=heat!==null&&heat>=bound;
    return n?data.shades[n-1]:''};
  let fixed=query.findIndex(one=>one.getAttribute('aria-pressed')==='true');
  const paint=row=>words.forEach((word,i)=>{
    const heat=row<0||data.heat[i]===null?data.heat[i]:data.rows[row][i];
    const partner=row<0?data.partner[i]:row;
    const colour=shade(heat);
    colour?word.setAttribute('style','background:'+colour):word.removeAttribute('style');
    word.title=heat===null||partner<0?'':query[partner].dataset.text+' '+data.rows[partner][i].toFixed(2)});
  if(fixed>=0)paint(fixed);
  query.forEach((one,row)=>{
    if(!one.hasAttribute('role'))return;
    const fix=()=>{fixed=fixed===row?-1:row;
      query.forEach((other,i)=>other.hasAttribute('role')&&other.setAttribute('aria-pressed',i===fixed));
      paint(fixed)};
    one.onmouseenter=()=>paint(row);
    one.onmouseleave=()=>paint(fixed);
    one.onclick=fix;
    one.onkeydown=event=>{if(event.key==='Enter'||event.key===' '){event.preventDefault();one.click()}}});
  words.forEach((word,i)=>{
    const partner=()=>fixed<0?data.partner[i]:fixed;
    word.onmouseenter=()=>data.heat[i]!==null&&partner()>=0&&query[partner()].classList.add('partner');
    word.onmouseleave=()=>query.forEach(one=>one.classList.remove('partner'))});
});
"""
# In a block, so that a notebook may hold it many times.
_SCRIPT = f"{{{READY}minqaReady();}}"


# Of all scripts, a page runs this one alone.
_SCRIPT_HASH = b64encode(sha256(_SCRIPT.encode()).digest()).decode()


def document(heading: str, blocks: Sequence[str], settings: Sequence[str], *, style: str = "") -> str:
    """A whole page of what `block` made, with the lines beneath that say how it was made."""
    lines = "<br>".join(map(safe, settings))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{safe(heading)}</title><style>:root{{color-scheme:light dark}}"
        "body{font:16px system-ui,sans-serif;margin:2em auto;max-width:46em;padding:0 1em}"
        ".side{display:grid;gap:2em;"
        f"grid-template-columns:repeat(auto-fit,minmax(20em,1fr))}}{STYLE}{style}</style></head><body>"
        f"{''.join(blocks)}<p><small>{lines}</small></p>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def side_by_side(blocks: Sequence[str]) -> str:
    """Several encoders' blocks of one passage, in columns where there is room."""
    return f'<div class="side">{"".join(blocks)}</div>'


def notebook(heat: HeatMap) -> str:
    """A heat map as notebooks show it."""
    return f"<style>{STYLE}</style>{block(heat)}<script>{_SCRIPT}</script>"


def block(
    heat: HeatMap,
    *,
    title: str = "",
    sentence: Span | None = None,
    phrase: Span | None = None,
    caption: str = "",
    word: int = -1,
    more: str = "",
) -> str:
    """A passage shaded by its heat, beneath the query shaded by what each of its words contributed.

    Pointing at a word of the query shades the passage by that word alone, clicking keeps it so; a word of the
    passage names its best partner. Without scripts, colours and partners are there all the same.

    Args:
        heat: a `HeatMap`.
        title: of the passage.
        sentence: underlined with dots.
        phrase: underlined.
        caption: stands beneath the passage.
        word: the number of a word of the query that the passage is shaded by from the beginning.
        more: HTML that stands beneath all this.
    """
    weighted = (heat.word_similarity - heat.unrelated) * heat.weights[:, None]
    shown = np.isfinite(heat.heat) & bool(heat.weights.any())
    partner = [int(weighted[:, i].argmax()) if shown[i] else -1 for i in range(len(shown))]
    words, query_words = heat.passage.word_texts, heat.query.word_texts
    own = own_heat(heat).tolist()
    asked = [
        f'<b tabindex="0" role="button" aria-pressed="{str(i == word).lower()}" data-text="{safe(text)}"'
        f'{_background(own[i], heat.unrelated)} title="weight {heat.weights[i]:.2f}">{safe(text)}'
        f"<sub>{heat.contributions[i]:.2f}</sub></b>"
        if heat.weights[i] and np.isfinite(heat.contributions[i])
        else f'<b data-text="{safe(text)}">{safe(text)}</b>'
        for i, text in enumerate(query_words)
    ]
    marks = {}
    for i, text in enumerate(words):
        hover = ""
        if shown[i]:
            hover = f' title="{safe(query_words[partner[i]])} {heat.word_similarity[partner[i], i]:.2f}"'
        colour = _background(float(heat.heat[i]), heat.unrelated)
        marks[int(heat.passage.words[i, 0])] = f"<b{colour}{hover}>{safe(text)}</b>"
    data = {
        "rows": np.round(heat.word_similarity.astype(float), 2).tolist(),
        "heat": [round(float(one), 3) if np.isfinite(one) else None for one in heat.heat],
        "partner": partner,
        "bounds": bounds(heat.unrelated),
        "shades": SHADES,
    }
    score = f" <small>score {heat.score:.3f}</small>" if np.isfinite(heat.score) else ""
    return (
        f'<div class="minqa" data-map="{escape(json.dumps(data))}"><h2>{safe(title)}{score}</h2>'
        f'<p class="query">{_spaced(heat.query, asked)}</p>'
        f'<p class="passage">{marked(heat.passage, marks, sentence=sentence, phrase=phrase)}</p>'
        f"{f'<p>{safe(caption)}</p>' if caption else ''}{_legend(heat.unrelated)}{more}</div>"
    )


def own_heat(heat: HeatMap) -> Float[np.ndarray, " query_word"]:
    """The heat of the query's own words: their contributions on the scale of the passage's heat."""
    above = heat.contributions - heat.unrelated * heat.weights
    return heat.unrelated + above / max(heat.weights.max(initial=0), np.float32(1e-9))


def matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Float[np.ndarray, "row column"],
    colour: Callable[[float], str | None],
) -> str:
    """A table of numbers, shaded by `colour`; a cell names itself and its number where it is pointed at."""
    head = "".join(f"<th>{safe(column)}</th>" for column in columns)
    body = []
    for row, numbers in zip(rows, values.tolist(), strict=True):
        cells = []
        for column, value in zip(columns, numbers, strict=True):
            shaded = colour(value)
            style = f' style="background:{shaded}"' if shaded else ""
            cells.append(f'<td{style} title="{safe(row)} · {safe(column)} {value:.2f}"></td>')
        body.append(f"<tr><th>{safe(row)}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def word_matrix(heat: HeatMap) -> str:
    """Every word of the query against every word of the passage."""
    values = heat.word_similarity
    return matrix(
        heat.query.word_texts, heat.passage.word_texts, values, lambda value: shade(value, heat.unrelated)
    )


def marked(tokens: Tokens, marks: dict[int, str], **spans: Span | None) -> str:
    """The text with its words, by where they begin, and spans marked; of spans that overlap, their parts."""
    ends = dict(zip(tokens.words[:, 0].tolist(), tokens.words[:, 1].tolist(), strict=True))
    given = [(name, span) for name, span in spans.items() if span]
    text, pieces, place, inside = printable(tokens.text), [], 0, ""
    while place <= len(text):
        now = " ".join(name for name, span in given if span.start <= place < span.end)
        if now != inside:
            pieces += ["</span>" if inside else "", f'<span class="{now}">' if now else ""]
            inside = now
        if place in marks:
            pieces.append(marks[place])
            place = ends[place]
        else:
            pieces.append(escape(text[place : place + 1]))
            place += 1
    return "".join(pieces)


def _spaced(tokens: Tokens, words: Sequence[str]) -> str:
    pieces, end = [], 0
    for (start, stop), word in zip(tokens.words.tolist(), words, strict=True):
        pieces += [" " if start > end else "", word]
        end = stop
    return "".join(pieces)


def _legend(unrelated: float) -> str:
    steps = zip(SHADES, bounds(unrelated), strict=True)
    swatches = "".join(f'<i style="background:{colour}">{bound:.2f}</i>' for colour, bound in steps)
    return (
        '<small class="legend" title="Similarity; less where the word of the query has little weight.">'
        f"unrelated {unrelated:.2f} {swatches} 1 identical</small>"
    )


def _background(heat: float, unrelated: float) -> str:
    colour = shade(heat, unrelated)
    return f' style="background:{colour}"' if colour else ""


def safe(text: str) -> str:
    """Text of any origin as HTML that shows it."""
    return escape(printable(text))

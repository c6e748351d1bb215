"""Heat map → HTML that needs nothing from elsewhere: to be read offline, or in a notebook."""

import json
from base64 import b64encode
from collections.abc import Sequence
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

_STYLE = """
.minqa{font:16px/1.75 system-ui,sans-serif;max-width:46em;margin:0 0 2.5em}
.minqa h2{font-size:1.1em;margin:0 0 .2em}
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
.minqa .legend i{display:inline-block;width:2.6em;text-align:center;font-style:normal;color:#000}
"""
_SCRIPT = """
document.querySelectorAll('.minqa:not([data-ready])').forEach(map=>{
  map.dataset.ready=1;
  const data=JSON.parse(map.querySelector('script').textContent);
  const query=[...map.querySelectorAll('.query b')],words=[...map.querySelectorAll('.passage b')];
  const shade=heat=>{let n=0;for(const bound of data.bounds)n+=heat!==null&&heat>=bound;
    return n?data.shades[n-1]:''};
  let fixed=-1;
  const paint=row=>words.forEach((word,i)=>{
    const heat=row<0||data.heat[i]===null?data.heat[i]:data.rows[row][i];
    const partner=row<0?data.partner[i]:row;
    const colour=shade(heat);
    colour?word.setAttribute('style','background:'+colour):word.removeAttribute('style');
    word.title=heat===null||partner<0?'':query[partner].dataset.text+' '+data.rows[partner][i].toFixed(2)});
  query.forEach((one,row)=>{
    if(!one.hasAttribute('role'))return;
    const fix=()=>{fixed=fixed===row?-1:row;
      query.forEach((other,i)=>other.setAttribute('aria-pressed',i===fixed));paint(fixed)};
    one.onmouseenter=()=>paint(row);
    one.onmouseleave=()=>paint(fixed);
    one.onclick=fix;
    one.onkeydown=event=>{if(event.key==='Enter'||event.key===' '){event.preventDefault();fix()}}});
  words.forEach((word,i)=>{
    const partner=()=>fixed<0?data.partner[i]:fixed;
    word.onmouseenter=()=>data.heat[i]!==null&&partner()>=0&&query[partner()].classList.add('partner');
    word.onmouseleave=()=>query.forEach(one=>one.classList.remove('partner'))});
});
"""


# Of all scripts, a page runs this one alone.
_SCRIPT_HASH = b64encode(sha256(_SCRIPT.encode()).digest()).decode()


def document(heading: str, blocks: Sequence[str], settings: Sequence[str]) -> str:
    """A whole page of what `block` made, with the lines beneath that say how it was made."""
    lines = "<br>".join(map(_safe, settings))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_safe(heading)}</title><style>:root{{color-scheme:light dark}}"
        "body{margin:2em auto;max-width:46em;padding:0 1em}.side{display:grid;gap:2em;"
        f"grid-template-columns:repeat(auto-fit,minmax(20em,1fr))}}{_STYLE}</style></head><body>"
        f"{''.join(blocks)}<p><small>{lines}</small></p>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def side_by_side(blocks: Sequence[str]) -> str:
    """Several encoders' blocks of one passage, in columns where there is room."""
    return f'<div class="side">{"".join(blocks)}</div>'


def notebook(heat: HeatMap) -> str:
    """A heat map as notebooks show it."""
    return f"<style>{_STYLE}</style>{block(heat)}<script>{_SCRIPT}</script>"


def block(
    heat: HeatMap,
    *,
    title: str = "",
    sentence: Span | None = None,
    phrase: Span | None = None,
    caption: str = "",
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
    """
    weighted = (heat.word_similarity - heat.unrelated) * heat.weights[:, None]
    shown = np.isfinite(heat.heat) & bool(heat.weights.any())
    partner = [int(weighted[:, i].argmax()) if shown[i] else -1 for i in range(len(shown))]
    words, query_words = heat.passage.word_texts, heat.query.word_texts
    own = own_heat(heat).tolist()
    asked = [
        f'<b tabindex="0" role="button" aria-pressed="false" data-text="{_safe(word)}"'
        f'{_background(own[i], heat.unrelated)} title="weight {heat.weights[i]:.2f}">{_safe(word)}'
        f"<sub>{heat.contributions[i]:.2f}</sub></b>"
        if heat.weights[i] and np.isfinite(heat.contributions[i])
        else f'<b data-text="{_safe(word)}">{_safe(word)}</b>'
        for i, word in enumerate(query_words)
    ]
    marks = {}
    for i, word in enumerate(words):
        hover = ""
        if shown[i]:
            hover = f' title="{_safe(query_words[partner[i]])} {heat.word_similarity[partner[i], i]:.2f}"'
        colour = _background(float(heat.heat[i]), heat.unrelated)
        marks[int(heat.passage.words[i, 0])] = f"<b{colour}{hover}>{_safe(word)}</b>"
    data = {
        "rows": np.round(heat.word_similarity.astype(float), 2).tolist(),
        "heat": [round(float(one), 3) if np.isfinite(one) else None for one in heat.heat],
        "partner": partner,
        "bounds": bounds(heat.unrelated),
        "shades": SHADES,
    }
    score = f" <small>score {heat.score:.3f}</small>" if np.isfinite(heat.score) else ""
    return (
        f'<div class="minqa"><h2>{_safe(title)}{score}</h2>'
        f'<p class="query">{_spaced(heat.query, asked)}</p>'
        f'<p class="passage">{_passage(heat.passage, marks, sentence, phrase)}</p>'
        f"{f'<p>{_safe(caption)}</p>' if caption else ''}{_legend(heat.unrelated)}"
        f'<script type="application/json">{json.dumps(data)}</script></div>'
    )


def own_heat(heat: HeatMap) -> Float[np.ndarray, " query_word"]:
    """The heat of the query's own words: their contributions on the scale of the passage's heat."""
    above = heat.contributions - heat.unrelated * heat.weights
    return heat.unrelated + above / max(heat.weights.max(initial=0), np.float32(1e-9))


def _passage(tokens: Tokens, marks: dict[int, str], sentence: Span | None, phrase: Span | None) -> str:
    """The text with its words, and the two spans, marked; where spans overlap, their parts are."""
    ends = dict(zip(tokens.words[:, 0].tolist(), tokens.words[:, 1].tolist(), strict=True))
    spans = [(name, span) for name, span in (("sentence", sentence), ("phrase", phrase)) if span]
    text, pieces, place, inside = printable(tokens.text), [], 0, ""
    while place <= len(text):
        now = " ".join(name for name, span in spans if span.start <= place < span.end)
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


def _safe(text: str) -> str:
    return escape(printable(text))

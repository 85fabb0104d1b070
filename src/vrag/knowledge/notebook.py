"""The answer to a search as a page: thumbnail, caption, score and review state of each hit, or the refusal.

One file that needs nothing else: no script, pictures inside, and a policy that allows one style sheet, by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Final, Protocol

from attrs import frozen

from vrag.errors import VRAGError
from vrag.values.vectors import Hit, SearchResult

__all__ = ["SearchView", "Thumbnails", "search_page"]

_STYLE: Final = """
.vrag-search{font:15px/1.45 system-ui,sans-serif;color:#1c2526;background:#fff;max-width:70rem;margin:0 auto;padding:1.25rem}
.vrag-search h1{font-size:1.35rem;margin:0 0 .25rem;overflow-wrap:anywhere}
.vrag-search h2{font-size:1.05rem;margin:1.5rem 0 .25rem}
.vrag-search p{margin:.25rem 0 .75rem;color:#45524f}
.vrag-search ol.hits{list-style:none;margin:1rem 0;padding:0;display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr))}
.vrag-search .hits li{margin:0;border:1px solid #d5dcda;border-radius:.5rem;overflow:hidden;display:flex;flex-direction:column;background:#fff}
.vrag-search .picture{background:#eef1f0;height:8.5rem;display:flex;align-items:center;justify-content:center;color:#45524f}
.vrag-search img{width:100%;height:8.5rem;object-fit:contain;display:block}
.vrag-search .words{padding:.6rem .8rem .8rem;overflow-wrap:anywhere}
.vrag-search .caption{font-weight:600;color:#1c2526;margin:0 0 .25rem}
.vrag-search .words p{font-size:.84rem;margin:.1rem 0}
.vrag-search .words .caption{font-size:.9rem}
.vrag-search code{font-size:.78rem;color:#45524f}
.vrag-search .state{display:inline-block;border-radius:1rem;padding:.05rem .6rem;font-size:.8rem;border:1px solid #b9c4c1}
.vrag-search .approved{background:#dff3e6;border-color:#8cc8a2;color:#0d4a26}
.vrag-search .proposed{background:#fdf1d3;border-color:#d9bb68;color:#5b4300}
.vrag-search .rejected,.vrag-search .expired,.vrag-search .revoked{background:#fbe3e1;border-color:#dc9a94;color:#7a150c}
.vrag-search .refusal{border-left:.3rem solid #b3562b;background:#fdf4ef;padding:.6rem 1rem;margin:1rem 0;color:#4b2410}
.vrag-search .refusal p{color:inherit;margin:.2rem 0;overflow-wrap:anywhere}
.vrag-search details{margin:1rem 0;font-size:.86rem;color:#45524f}
.vrag-search dt{font-weight:600}.vrag-search dd{margin:0 0 .3rem 1rem;overflow-wrap:anywhere}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"
)


class Thumbnails(Protocol):
    """What the page needs of a knowledge base."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def thumbnail(self, asset_id: str, *, max_side_px: int = 320) -> bytes:
        """A small JPEG."""
        ...


def search_page(knowledge_base: Thumbnails, result: SearchResult) -> str:
    """The answer as a whole page of HTML."""
    title = f"{result.query} - {knowledge_base.name}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{_answer(knowledge_base, result)}</main></body></html>\n"
    )


@frozen(kw_only=True)
class SearchView:
    """An answer that shows itself in a notebook."""

    knowledge_base: Thumbnails
    result: SearchResult

    def _repr_html_(self) -> str:
        # A notebook page sets no policy for its cells, so the style stands beside what it is for.
        return f"<style>{_STYLE}</style>{_answer(self.knowledge_base, self.result)}"


def _answer(knowledge_base: Thumbnails, result: SearchResult) -> str:
    shown = result.hits or (result.refusal.candidates if result.refusal else ())
    parts = [f"<h1>{_text(result.query)}</h1>"]
    if result.refusal:
        reasons = "".join(f"<p>{_text(reason)}</p>" for reason in result.refusal.reasons)
        parts += [
            f"<p>No suitable picture in the knowledge base {_text(knowledge_base.name)}.</p>",
            f'<div class="refusal" role="note">{reasons}</div>',
        ]
        if shown:
            parts.append("<h2>The nearest there is; none of these is used</h2>")
    else:
        count = f"{len(shown)} picture{'' if len(shown) == 1 else 's'}"
        parts.append(f"<p>{count} in the knowledge base {_text(knowledge_base.name)}, best first.</p>")
    if shown:
        parts.append(
            f'<ol class="hits">{"".join(_item(knowledge_base, hit, n) for n, hit in enumerate(shown, start=1))}</ol>'
        )
    terms = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in result.settings.items())
    parts.append(f"<details><summary>How this was found</summary><dl>{terms}</dl></details>")
    return f'<section class="vrag-search">{"".join(parts)}</section>'


def _item(knowledge_base: Thumbnails, hit: Hit, place: int) -> str:
    asset = hit.asset
    caption = asset.caption or asset.file_name
    try:
        data = base64.b64encode(knowledge_base.thumbnail(asset.id)).decode("ascii")
        picture = f'<img src="data:image/jpeg;base64,{data}" alt="{_text(caption)}">'
    except VRAGError:
        picture = "its bytes cannot be shown"
    numbers = [f"score {hit.fused_score:.3f}"]
    if hit.cosine is not None:
        numbers.append(f"cosine {hit.cosine:.2f}")
    size = f"{asset.original.width_px} \N{MULTIPLICATION SIGN} {asset.original.height_px} px"
    return (
        f'<li><div class="picture">{picture}</div><div class="words">'
        f'<p class="caption"><bdi>{place}. {_text(caption)}</bdi></p>'
        f'<p><span class="state {_text(hit.review)}">{_text(hit.review)}</span></p><p>{_text(", ".join(numbers))}</p>'
        f"<p>{_text(hit.why)}</p><p>{_text(asset.file_name)}, {size}</p>"
        f"<p><code>{_text(asset.id[: len(asset.knowledge_base) + 13])}</code></p></div></li>"
    )


def _text(value: object) -> str:
    """Escaped, for content and quoted attributes alike; what would change the direction or the line is shown as a box."""
    shown = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in str(value))
    return html.escape(shown, quote=True)

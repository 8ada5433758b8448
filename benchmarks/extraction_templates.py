# ruff: noqa: E501 (texts in wide characters)
"""A dozen kinds of web sites to put a text into: what stands around an article on the real web.

Each template takes the article's title, its HTML and a `Filler`, and gives a page. The words around are of our
own; the headlines in lists of related articles are those of other pages of the sample crawl.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WORDS = {
    "ja": {
        "home": "ホーム", "about": "会社概要", "contact": "お問い合わせ", "login": "ログイン", "join": "無料会員登録",
        "news": "ニュース", "sports": "スポーツ", "life": "くらし", "money": "経済", "travel": "旅行", "cart": "カートを見る",
        "sale": "期間限定セール開催中", "search": "検索", "ranking": "人気記事ランキング", "related": "関連記事",
        "comments": "コメント", "reply": "返信する", "share": "この記事をシェアする", "tags": "タグ", "archive": "月別アーカイブ",
        "profile": "プロフィール", "next": "次の記事", "previous": "前の記事", "top": "ページの先頭へ戻る",
        "terms": "利用規約", "privacy": "プライバシーポリシー", "company": "運営会社", "ad": "広告", "more": "続きを読む",
        "copyright": "Copyright © 2026 サンプル株式会社 All Rights Reserved.", "date": "2026年11月25日 10時15分", "author": "編集部",
        "cookie": "当サイトではサービス向上のためクッキーを使用しています。閲覧を続けることで同意したものとみなされます。",
        "greeting": "はじめまして。趣味は写真と散歩です。よろしくお願いします。", "post": "投稿者", "quote": "引用", "member": "登録会員",
        "remark": "とても参考になりました。ありがとうございます。|私も同じところで困っていました。|続きが気になります！|それは少し違うと思います。",
        "price": "税込価格 2,980円", "stock": "在庫あり", "subscribe": "メールマガジンに登録すると最新情報が届きます。", "follow": "フォローする",
    },
    "en": {
        "home": "Home", "about": "About us", "contact": "Contact", "login": "Log in", "join": "Sign up free",
        "news": "News", "sports": "Sports", "life": "Life", "money": "Money", "travel": "Travel", "cart": "View cart",
        "sale": "Limited time sale", "search": "Search", "ranking": "Most read", "related": "Related articles",
        "comments": "Comments", "reply": "Reply", "share": "Share this article", "tags": "Tags", "archive": "Archives",
        "profile": "Profile", "next": "Next post", "previous": "Previous post", "top": "Back to top",
        "terms": "Terms of use", "privacy": "Privacy policy", "company": "Company", "ad": "Advertisement", "more": "Read more",
        "copyright": "Copyright © 2026 Sample Inc. All rights reserved.", "date": "November 25, 2026 10:15", "author": "Staff writer",
        "cookie": "We use cookies to improve our service. By continuing to browse you agree to our use of cookies.",
        "greeting": "Hi there! I like photography and long walks.", "post": "Posted by", "quote": "Quote", "member": "Member",
        "remark": "Very helpful, thank you.|I had the same problem last week.|Looking forward to the next part!|I am not sure I agree.",
        "price": "$29.80 incl. tax", "stock": "In stock", "subscribe": "Subscribe to our newsletter and never miss a story.", "follow": "Follow",
    },
}  # fmt: skip


@dataclass
class Filler:
    """Words and headlines for the surroundings, in a language, the same for the same seed."""

    language: str
    headlines: Sequence[str]
    seed: int
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def __getitem__(self, name: str) -> str:
        return WORDS[self.language][name]

    def link(self, text: str) -> str:
        """A link to somewhere."""
        return f'<a href="/{self.rng.randrange(10**6)}.html">{text}</a>'

    def menu(self, tag: str = "ul") -> str:
        """Links to sections."""
        names = ("home", "news", "sports", "life", "money", "travel", "about", "contact", "login", "join")
        return f"<{tag}>" + "".join(f"<li>{self.link(self[name])}</li>" for name in names) + f"</{tag}>"

    def list_of(self, count: int, item: str = "li") -> str:
        """Headlines, linked."""
        chosen = self.rng.sample(list(self.headlines), min(count, len(self.headlines)))
        return "".join(f"<{item}>{self.link(title)}</{item}>" for title in chosen)

    def footer(self) -> str:
        """Legal links and the copyright line."""
        links = " | ".join(self.link(self[name]) for name in ("terms", "privacy", "company", "contact"))
        return f"<p>{links}</p><p>{self['copyright']}</p>"

    def remarks(self, count: int, open_tag: str, close_tag: str) -> str:
        """Readers' comments."""
        remarks = self["remark"].split("|")
        return "".join(
            f"{open_tag}<b>user{self.rng.randrange(1000)}</b> <span>{self['date']}</span><br>"
            f"{self.rng.choice(remarks)} {self.link(self['reply'])}{close_tag}"
            for _ in range(count)
        )


def _page(filler: Filler, title: str, body: str, charset: str = "utf-8") -> str:
    return (
        f'<!DOCTYPE html><html lang="{filler.language}"><head><meta charset="{charset}"><title>{title} - '
        f"{filler['company']}</title><style>.a{{color:red}}</style><script>var x = 1;</script></head>"
        f"<body>{body}</body></html>"
    )


def blog(title: str, article: str, f: Filler) -> str:
    """A sidebar with profile, archive and a cloud of tags."""
    cloud = "".join(f"<span class=tag>{f.link(word[:8])}</span> " for word in f.headlines[:30])
    months = "".join(
        f"<li>{f.link(f'2026/{month:02}')} ({f.rng.randrange(30)})</li>" for month in range(1, 13)
    )
    side = (
        f"<h3>{f['profile']}</h3><p>{f['greeting']}</p><h3>{f['archive']}</h3><ul>{months}</ul>"
        f"<h3>{f['tags']}</h3><div class=tagcloud>{cloud}</div><h3>{f['ranking']}</h3><ul>{f.list_of(8)}</ul>"
    )
    main = (
        f"<article class=post><h1>{title}</h1><p class=meta>{f['date']} {f['author']}</p>"
        f"<div class=entry-content>{article}</div></article>"
        f"<div class=post-nav>{f.link(f['previous'])} {f.link(f['next'])}</div>"
        f"<div id=comments><h3>{f['comments']}</h3>{f.remarks(4, '<div class=comment>', '</div>')}</div>"
    )
    return _page(
        f,
        title,
        f"<header><div class=logo>Blog</div><nav>{f.menu()}</nav></header><div class=wrap>"
        f"<main>{main}</main><aside class=sidebar>{side}</aside></div><footer>{f.footer()}</footer>",
    )


def news(title: str, article: str, f: Filler) -> str:
    """A newspaper: breadcrumbs, share buttons, related articles with teasers, a ranking."""
    crumbs = " &gt; ".join(f.link(f[name]) for name in ("home", "news", "money"))
    teasers = "".join(
        f"<div class=card><h4>{f.link(headline)}</h4><p>{headline} {f['more']}</p><time>{f['date']}</time></div>"
        for headline in f.rng.sample(list(f.headlines), 6)
    )
    return _page(
        f,
        title,
        f"<header><nav class=global>{f.menu()}</nav></header><div class=breadcrumb>{crumbs}</div>"
        f"<article><header><h1>{title}</h1><p class=byline>{f['author']} {f['date']}</p></header>"
        f"<div class=share>{f['share']} <a href=#>X</a> <a href=#>Facebook</a></div>"
        f'<div itemprop="articleBody">{article}</div></article>'
        f"<section class=related><h2>{f['related']}</h2>{teasers}</section>"
        f"<aside><h2>{f['ranking']}</h2><ol>{f.list_of(10)}</ol></aside><footer>{f.footer()}</footer>",
    )


def forum(title: str, article: str, f: Filler) -> str:
    """A thread whose first post is the text; no semantic elements."""
    post = (
        f"<div class=postbox><div class=user>{f['post']}: taro<br>{f['member']}<br>1,024</div>"
        f"<div class=postbody>{article}</div><div class=tools>{f.link(f['reply'])} {f.link(f['quote'])}</div></div>"
    )
    return _page(
        f,
        title,
        f"<div id=top>{f.menu()}</div><h1>{title}</h1>{post}"
        f"<div class=signature>{f['greeting']}</div>{f.remarks(5, '<div class=reply>', '</div>')}"
        f"<div id=bottom>{f.footer()}</div>",
    )


def shop(title: str, article: str, f: Filler) -> str:
    """A shop's help or product page: many categories, prices, a cart."""
    items = "".join(
        f"<li><a href=/p><img src=a.png alt=x>{headline[:20]}</a><span>{f['price']}</span><span>{f['stock']}</span></li>"
        for headline in f.rng.sample(list(f.headlines), 8)
    )
    return _page(
        f,
        title,
        f"<div class=header>{f['sale']} {f.link(f['cart'])} {f.link(f['login'])}</div>"
        f"<div class=categories><ul>{f.list_of(25)}</ul></div><div class=product-page><h1>{title}</h1>"
        f"<div class=description>{article}</div></div><div class=recommend><ul>{items}</ul></div>"
        f"<div class=mailmag>{f['subscribe']}</div><div class=footer>{f.footer()}</div>",
    )


def table_layout(title: str, article: str, f: Filler) -> str:
    """The web of 1999: tables in tables, font elements, a menu in the left cell."""
    menu = "<br>".join(f.link(f[name]) for name in ("home", "news", "life", "travel", "contact"))
    return _page(
        f,
        title,
        f"<center><table width=800 border=0><tr><td colspan=2 bgcolor=navy><font size=5>{title}</font></td></tr>"
        f"<tr><td width=150 valign=top><table><tr><td>{menu}</td></tr></table></td>"
        f"<td valign=top>{article}</td></tr><tr><td colspan=2 align=center>{f.footer()}</td></tr></table></center>",
        charset="Shift_JIS",
    )


def cookie_banner(title: str, article: str, f: Filler) -> str:
    """A corporate page with a consent dialogue before and a newsletter form behind the text."""
    return _page(
        f,
        title,
        f'<div id="cookie-consent" role="dialog"><p>{f["cookie"]}</p><button>OK</button></div>'
        f"<header>{f.menu()}</header><main><h1>{title}</h1>{article}</main>"
        f"<form class=newsletter><p>{f['subscribe']}</p><input name=mail><button>{f['join']}</button></form>"
        f"<footer>{f.footer()}</footer>",
    )


def nested_divs(title: str, article: str, f: Filler) -> str:
    """Ten anonymous divs deep, class names without meaning."""
    inner = f"<div class=c7><div class=c8><div>{article}</div></div></div>"
    return _page(
        f,
        title,
        f"<div class=c1><div class=c2><div class=c3>{f.menu('div')}</div><div class=c4><div class=c5>"
        f"<div class=c6><div class=t>{title}</div><div class=d>{f['date']}</div>{inner}</div>"
        f"<div class=c9>{f['related']}<div>{f.list_of(8, 'div')}</div></div></div></div>"
        f"<div class=c10>{f.footer()}</div></div></div>",
    )


def portal(title: str, article: str, f: Filler) -> str:
    """Links everywhere: more of them than text."""
    blocks = "".join(f"<div class=box><h3>{f['news']}</h3><ul>{f.list_of(15)}</ul></div>" for _ in range(4))
    return _page(
        f,
        title,
        f"<div class=head>{f.menu()}</div><div class=left>{blocks}</div><div class=center>"
        f"<h1>{title}</h1><div class=ad>{f['ad']}</div>{article}<div class=ad>{f['ad']}</div></div>"
        f"<div class=right>{blocks}</div><div class=foot>{f.footer()}</div>",
    )


def encyclopedia(title: str, article: str, f: Filler) -> str:
    """A wiki: tools at the left, a table of contents, categories."""
    contents = "".join(
        f"<li><a href=#s{n}>{n} {headline[:12]}</a></li>" for n, headline in enumerate(f.headlines[:6])
    )
    return _page(
        f,
        title,
        f"<div id=mw-panel>{f.menu()}</div><div id=content class=mw-body><h1>{title}</h1>"
        f"<div id=toc><ul>{contents}</ul></div><div id=mw-content-text>{article}</div>"
        f"<div id=catlinks>{f['tags']}: {f.link(f['life'])} | {f.link(f['travel'])}</div></div>"
        f"<div id=footer>{f.footer()}</div>",
    )


def documentation(title: str, article: str, f: Filler) -> str:
    """A manual: a long table of contents in a nav, previous and next."""
    return _page(
        f,
        title,
        f"<nav class=toctree><ul>{f.list_of(40)}</ul></nav><div role=main class=document><h1>{title}</h1>{article}"
        f"<div class=prev-next>{f.link(f['previous'])} {f.link(f['next'])}</div></div><footer>{f.footer()}</footer>",
    )


def question(title: str, article: str, f: Filler) -> str:
    """Questions and answers: the text is the answer that was chosen; votes, profiles, other questions."""
    return _page(
        f,
        title,
        f"<div class=topbar>{f.menu()}</div><div class=question-header><h1>{title}</h1>{f['date']}</div>"
        f"<div class=answer><div class=votes>42</div><div class='answer-body'>{article}</div>"
        f"<div class=author>{f['author']} 12,345</div></div>"
        f"<ul class=comments>{f.remarks(3, '<li>', '</li>')}</ul>"
        f"<div class=linked><h4>{f['related']}</h4>{f.list_of(12, 'div')}</div><footer>{f.footer()}</footer>",
    )


def magazine(title: str, article: str, f: Filler) -> str:
    """A magazine: advertising and follow buttons in the middle of things, the author's box, more stories."""
    half = article.find("</p>", len(article) // 2)
    first, second = (article[: half + 4], article[half + 4 :]) if half >= 0 else (article, "")
    inset = f"<aside class=inline-ad>{f['ad']}</aside><div class=follow-us>{f.link(f['follow'])}</div>"
    return _page(
        f,
        title,
        f"<header><nav>{f.menu()}</nav></header><div class=story><h1>{title}</h1><p class=dek>{f['date']}</p>"
        f"<section class=story-body>{first}{inset}{second}</section>"
        f"<div class=author-box><h4>{f['author']}</h4><p>{f['greeting']}</p></div></div>"
        f"<section class=more-stories><h3>{f['more']}</h3>{f.list_of(9, 'h5')}</section>"
        f"<footer>{f['top']} {f.footer()}</footer>",
    )


TEMPLATES: dict[str, Callable[[str, str, Filler], str]] = {
    function.__name__: function
    for function in (
        *(blog, news, forum, shop, table_layout, cookie_banner),
        *(nested_divs, portal, encyclopedia, documentation, question, magazine),
    )
}

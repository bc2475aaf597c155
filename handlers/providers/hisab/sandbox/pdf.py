"""An invoice as a PDF: A4, and read from the right in Arabic.

The font has Latin and Arabic letters of one design; the text is shaped by HarfBuzz, and its order is that of the
Unicode bidirectional algorithm, whatever languages a line mixes.
"""

from __future__ import annotations

from importlib import resources
from typing import Final, Literal

from fpdf import FPDF, XPos, YPos
from fpdf.enums import Align, TableBordersLayout
from fpdf.fonts import FontFace

from handlers.providers.hisab.sandbox.paper import Paper, Party
from handlers.providers.hisab.sandbox.wording import NO_BREAK, WORDINGS, Wording

FONT: Final = "plex"
MARGIN: Final = 18.0
"""Millimetres."""
WIDTH: Final = 210.0 - 2 * MARGIN
HALF: Final = WIDTH / 2 - 4
GREY: Final = (110, 110, 110)
PALE: Final = (240, 240, 240)

_SHARES = (80, 22, 32, 16, 32)
_PADDING = 1.2
_MAX_SHOWN = 800
"""Characters of one text that are printed: a cell of a table cannot be taller than a page."""


class Sheet(FPDF):
    """Pages with a number at their feet."""

    def __init__(self, wording: Wording) -> None:
        super().__init__(format="A4")
        self.wording = wording
        files = resources.files("fontpkg_ibm_plex_sans_arabic").joinpath("files")
        for style, name in (("", "Regular"), ("B", "Bold")):
            self.add_font(FONT, _style(style), str(files.joinpath(f"IBMPlexSansArabic-{name}.ttf")))
        self.set_margin(MARGIN)
        self.set_auto_page_break(True, margin=22)
        # No direction is set: a French address in an Arabic invoice still runs from the left, and the other way round.
        self.set_text_shaping(True)

    @property
    def start(self) -> Align:
        """The side where a line begins."""
        return Align.R if self.wording.rtl else Align.L

    @property
    def end(self) -> Align:
        return Align.L if self.wording.rtl else Align.R

    def footer(self) -> None:
        self.set_y(-15)
        self.written(8, GREY)
        self.cell(0, 5, f"{self.wording.page} {self.page_no()}", align=Align.C)

    def written(self, size: float, colour: tuple[int, int, int] = (0, 0, 0), style: str = "") -> None:
        """The font of what follows."""
        self.set_font(FONT, _style(style), size)
        self.set_text_color(*colour)

    def half(self, place: int) -> float:
        """The left edge of one half of the page; the first is where a line begins."""
        right = (place == 0) == self.wording.rtl
        return MARGIN + WIDTH - HALF if right else MARGIN

    def fitting(self, text: str, width: float) -> float:
        """The font's size, or the largest below it at which the text fits."""
        return min(self.font_size_pt, self.font_size_pt * width / max(self.get_string_width(text), 0.1))

    def paragraph(self, x: float, width: float, text: str, align: Align, height: float = 5.0) -> None:
        """A text in lines of its own, from the current height down."""
        self.set_x(x)
        self.multi_cell(width, height, text, align=align, new_x=XPos.LEFT, new_y=YPos.NEXT)


def written(paper: Paper, locale: str) -> bytes:
    """The PDF. `locale` is fr, en or ar."""
    sheet = Sheet(WORDINGS[locale])
    sheet.set_lang(locale)
    sheet.set_title(f"{sheet.wording.title} {paper.number}")
    sheet.add_page()
    _head(sheet, paper)
    _parties(sheet, paper)
    _lines(sheet, paper)
    _totals(sheet, paper)
    _remarks(sheet, paper)
    return bytes(sheet.output())


def _head(sheet: Sheet, paper: Paper) -> None:
    wording = sheet.wording
    top = sheet.get_y()
    sheet.written(22, style="B")
    sheet.paragraph(sheet.half(0), HALF, wording.title, sheet.start, 10)
    if paper.status == "void":
        sheet.written(14, (190, 30, 30), "B")
        sheet.paragraph(sheet.half(0), HALF, wording.void, sheet.start, 7)
    below, facts = sheet.get_y(), [(wording.number, paper.number), (wording.issued, wording.day(paper.issue_date))]
    if paper.due_date is not None:
        facts.append((wording.due, wording.day(paper.due_date)))
    sheet.set_y(top)
    for name, value in facts:
        sheet.written(9.5)
        sheet.paragraph(sheet.half(1), HALF, f"{name}{wording.colon} {value}", sheet.end)
    sheet.set_y(max(below, sheet.get_y()) + 6)


def _parties(sheet: Sheet, paper: Paper) -> None:
    top, bottom = sheet.get_y(), 0.0
    sides = ((sheet.wording.seller, paper.seller), (sheet.wording.customer, paper.customer))
    for place, (label, party) in enumerate(sides):
        sheet.set_y(top)
        x = sheet.half(place)
        sheet.written(8.5, GREY)
        sheet.paragraph(x, HALF, label, sheet.start)
        sheet.written(11, style="B")
        sheet.paragraph(x, HALF, _cut(party.legal_name, 200), sheet.start, 5.5)
        sheet.written(9.5)
        for text in _address(party):
            sheet.paragraph(x, HALF, _cut(text, 200), sheet.start)
        bottom = max(bottom, sheet.get_y())
    sheet.set_y(bottom + 7)


def _address(party: Party) -> list[str]:
    place = " ".join(part for part in (party.postal_code, party.city) if part)
    found = [party.street, place or None, None if party.country == "MA" else party.country]
    found += [f"{kind} : {number}" for kind, number in party.identifiers]
    return [text for text in (*found, party.phone, party.email, party.website) if text]


def _lines(sheet: Sheet, paper: Paper) -> None:
    wording = sheet.wording
    heads = (wording.description, wording.quantity, wording.unit_price, wording.tax_rate, wording.amount)
    turn = -1 if wording.rtl else 1
    sheet.written(9)
    with sheet.table(
        col_widths=_SHARES[::turn],
        text_align=(sheet.start, *(sheet.end,) * 4)[::turn],
        width=WIDTH,
        align=Align.C,
        line_height=5.5,
        padding=_PADDING,
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(emphasis="BOLD", fill_color=PALE),
    ) as table:
        table.row(list(heads[::turn]))
        for line in paper.lines:
            row = table.row()
            cells = (
                _cut(line.description, _MAX_SHOWN),
                wording.decimal(line.quantity, 0),
                wording.decimal(line.unit_price),
                f"{line.tax_rate}{NO_BREAK}%",
                wording.decimal(line.subtotal),
            )
            for place, text in list(enumerate(cells))[::turn]:
                # A number is set smaller rather than broken; the description finds its lines by itself.
                room = _SHARES[place] / sum(_SHARES) * WIDTH - 2 * _PADDING - 0.5
                row.cell(text, style=FontFace(size_pt=sheet.fitting(text, room)) if place else None)
    sheet.ln(5)


def _totals(sheet: Sheet, paper: Paper) -> None:
    wording = sheet.wording
    found = [(wording.subtotal, paper.subtotal, "")]
    found += [(f"{wording.tax} {tax.rate}{NO_BREAK}%", tax.amount, "") for tax in paper.taxes]
    found.append((wording.total, paper.total, "B"))
    if sheet.will_page_break(8.0 * len(found)):
        sheet.add_page()
    names, sums = 62.0, 50.0
    left = MARGIN if wording.rtl else MARGIN + WIDTH - names - sums
    for name, value, style in found:
        top, amount = sheet.get_y(), f"{wording.decimal(value)}{NO_BREAK}{paper.currency}"
        sheet.written(11 if style else 9.5, style=style)
        sheet.paragraph(left + (sums if wording.rtl else 0), names, name, sheet.start, 6)
        below = sheet.get_y()
        sheet.set_y(top)
        sheet.set_font_size(sheet.fitting(amount, sums - 3))
        sheet.paragraph(left + (0 if wording.rtl else names), sums, amount, sheet.end, 6)
        sheet.set_y(max(below, sheet.get_y()))
    sheet.ln(6)


def _remarks(sheet: Sheet, paper: Paper) -> None:
    for label, text in ((sheet.wording.terms, paper.payment_terms), (sheet.wording.notes, paper.notes)):
        if text is None:
            continue
        sheet.written(8.5, GREY)
        sheet.paragraph(MARGIN, WIDTH, label, sheet.start)
        sheet.written(9.5)
        sheet.paragraph(MARGIN, WIDTH, _cut(text, 4 * _MAX_SHOWN), sheet.start)
        sheet.ln(3)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _style(style: str) -> Literal["", "B"]:
    return "B" if style == "B" else ""

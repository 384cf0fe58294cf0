"""Tables without boxes: they fit, and names stay whole or lose their middle."""

from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.evaluation.report.sheet import Column, Sheet, html_of, shortened, text_of

LAYERS = tuple(
    (f"/model/encoder/layer.{number}/attention/output/dense/MatMul", str(number), f"it feeds /model/encoder/{number}")
    for number in range(3)
)
SHEET = Sheet("left as it was", (Column("layer"), Column("channels", "number"), Column("because", "text")), LAYERS)


@settings(max_examples=30)
@given(st.integers(50, 200))
def test_a_table_fits_its_width_and_its_rows_stay_apart(width):
    lines = SHEET.text(width).splitlines()
    assert max(map(len, lines)) <= width
    firsts = [line.split()[0] for line in lines if line[:1] in ("/", "…")]
    assert len(set(firsts)) == len(firsts) == 3


def test_without_a_width_names_are_whole_and_every_row_is_a_line():
    lines = SHEET.text().splitlines()
    assert len(lines) == 2 + len(LAYERS)
    for line, row in zip(lines[2:], LAYERS, strict=True):
        assert all(cell in line for cell in row)


@settings(max_examples=50)
@given(st.text("abc/", min_size=1), st.integers(4, 30), st.integers(0, 40))
def test_a_name_is_shortened_in_the_middle_and_keeps_its_end_and_what_tells_it_apart(name, size, alike):
    alike = min(alike, len(name) - 1)
    found = shortened(name, size, alike)
    assert len(found) == min(len(name), size)
    if found != name:
        pieces = found.split("…")
        assert name.startswith(pieces[0])
        assert name.endswith(pieces[-1])
        assert alike <= size // 2 or name[alike:].startswith(pieces[1][:1])


def test_spare_columns_go_where_there_is_no_room_for_them():
    sheet = Sheet("t", (Column("name"), Column("more", spare=True)), (("a" * 30, "b" * 30),))
    assert "more" in sheet.text(80)
    assert "more" not in sheet.text(40)
    assert "a" * 30 in sheet.text(40)


def test_html_escapes_names_and_texts():
    page = html_of([Sheet("<t>", (Column("<b>"),), (("<script>",),)), "<i>"])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<p>&lt;i&gt;</p>" in page


def test_texts_between_tables_are_wrapped():
    text = text_of([SHEET, "note: " + "word " * 40], 60)
    assert max(map(len, text.splitlines())) <= 60
    assert not text.startswith("\n")

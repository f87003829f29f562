//! Where code may stand, and what becomes of the HTML around it.

use super::*;

fn refused(source: &str) -> Option<String> {
    Html::parse(source).err().map(|objection| format!("{}: {}", objection.offset, objection.message))
}

#[test]
fn values_stand_in_text_and_in_quotes() {
    for source in [
        "<p>{{ x }}</p>",
        "<a href=\"{{ url }}\" title='{{ x }} {{ y }}'>{{ x }}</a>",
        "<table>{% for row in rows %}<tr><td>{{ row }}</td></tr>{% endfor %}</table>",
        "<td {% if x %}class=\"a\"{% else %}class=\"b\"{% endif %} width=100>{{ x }}</td>",
        "<td class=\"a {% if x %}b{% elif y %}c{% endif %}\">x</td>",
        "<title>{{ x }}</title><textarea>{% if x %}{{ x }}{% endif %}</textarea>",
        "<!DOCTYPE html><html><head><style>a { color: red }</style></head><body>{{ x }}<br/></body></html>",
        "<!-- a comment --><!--[if mso]><table><![endif]-->{{ x }}<!-->{{ x }}",
        "a < b && c > d {{ x }} <3",
        "{% set x %}{{ y }} &quot;{% endset %}<b title=\"{{ x }}\">{{ x }}</b>",
        "{# <script>{{ x }}</script> #}{% raw %}<b>{{ x }}</b>{% endraw %}",
        "<p>{%- if x -%} <b>{{- x -}}</b> {%- endif -%}</p>",
        "<script>var a = \"<b>\";</script>{{ x }}",
        "{% if x %}<b>{% endif %}{{ x }}{% if x %}</b>{% endif %}",
        "<input disabled value=\"{{ x }}\">",
    ] {
        assert_eq!(refused(source), None, "{source}");
    }
}

#[test]
fn and_nowhere_else() {
    for source in [
        "<a href={{ url }}>",
        "<a href= {{ url }}>",
        "<a href=x{{ url }}>",
        "<a {{ x }}>",
        "<a {{ x }}=\"1\">",
        "<a da{{ x }}=\"1\">",
        "<{{ x }}>",
        "</{{ x }}>",
        "<b{{ x }}>",
        "</b {{ x }}>",
        "<{% if x %}b{% endif %}>",
        "<{# c #}{{ x }}>",
        "<script>{{ x }}</script>",
        "<SCRIPT>{{ x }}</SCRIPT>",
        "<style>a { color: {{ x }} }</style>",
        "<style>{% if x %}a {}{% endif %}</style>",
        "<script><!-- <script> --></script>{{ x }}",
        "<!-- {{ x }} -->",
        "<!-- {% if x %} -->{% endif %}",
        "<!-{{ x }}->",
        "<?{{ x }}>",
        "<!doctype {{ x }}>",
        "<a onclick=\"{{ x }}\">",
        "<a OnClick='{{ x }}'>",
        "<a style=\"color: {{ x }}\">",
        "<img srcset=\"{{ x }}\">",
        "<iframe srcdoc=\"{{ x }}\">",
        "<iframe src=\"https://x\"></iframe>",
        "<svg><a>{{ x }}</a></svg>",
        "<meta http-equiv=\"refresh\" content=\"0;url={{ x }}\">",
        "<base href=\"{{ x }}\">",
        "<title><{{ x }}</title>",
        "<a title=\"{% if x %}\" href=\"{% endif %}{{ x }}\">",
        "{% if x %}<a title=\"{% else %}b{% endif %}{{ x }}\">",
        "{% if x %}<!--{% endif %}{{ x }}-->",
        "{% for a in b %}<p title=\"{% endfor %}\">",
        "<a {% if x %}title{% endif %}=\"{{ x }}\">",
        "<a {% if x %}title={% endif %}\"{{ x }}\">",
        "<a title=\"a\"{% if x %} b=\"{% endif %}\">",
        "<a title=\"x\"\">{{ x }}",
        "<a title=\"{{ x }}",
        "<p",
        "<style>a {}",
        "<title>{{ x }}",
        "{% set x %}<b>{% endset %}{{ x }}",
        "{% set x %}\" onclick=\"{{ y }}{% endset %}<a title=\"{{ x }}\">",
        "{% set x %}{% if y %}'{% endif %}{% endset %}",
        "a\u{1}b",
        "a\u{F0000}b",
        "<plaintext>{{ x }}",
        "<noscript>{{ x }}</noscript>",
    ] {
        assert!(refused(source).is_some(), "{source} passed");
    }
}

#[test]
fn the_place_is_in_the_source() {
    let source = "{# ё #}<p>текст</p>\n<a href={{ url }}>";
    let objection = Html::parse(source).err().expect("no quotes");
    assert_eq!(&source[objection.offset..], "{{ url }}>");
    assert_eq!(objection.message, "put quotes around the value: href=\"{{ … }}\"");
}

#[test]
fn nesting_is_bounded_and_closed_as_browsers_close() {
    let many = |piece: &str, times: usize| piece.repeat(times);
    for (source, passes) in [
        (many("<div>", 100), true),
        (many("<div>", 101), false),
        (many("<b>", 17), false),
        (many("<p><font color=red>x</p>", 20), false),
        (many("<p>x", 1_000), true),
        (many("<ul><li>x<li>y</ul>", 500), true),
        (many("<table><tr><td>x<td>y<tr><td>z</table>", 100), true),
        (many("<dd><li>", 101), false),
        (many("<b><dd></b><b><li></b>", 60), false),
        (many("<br>", 4_000), true),
        (many("<br>", 4_001), false),
        (many("<table><tr><td>", 25), true),
        (many("<b>x</b>", 1_000), true),
    ] {
        let shown: String = source.chars().take(40).collect();
        assert_eq!(refused(&source).is_none(), passes, "{shown}…: {:?}", refused(&source));
    }
}

#[test]
fn rules_go_into_the_tags_and_everything_else_stays() {
    let source = "<style>td { color: red; } .big { font-size: 20px } a { content: '{' '{' }\n\
                  @media (max-width: 600px) { td { color: blue } }</style>\n\
                  <table>\n  {% for row in rows -%}\n  <tr><td {% if row.x %}title=\"{{ row.x }}\"{% endif %}>{{ row.n }} &amp; &lbrace;</td></tr>\n\
                  {%- endfor %}<tr><td class=\"big {{ c }}\" style='color:green'>{{ x }}</td></tr></table>\n\
                  <p class=\"{% if x %}big{% endif %}\">{{ x }}</p>";
    let prepared = Html::parse(source).expect("fine").styled().expect("styles");
    insta::assert_snapshot!(prepared.source);
    // Each piece of code is where it was, and its place is known.
    for (at, _) in prepared.source.match_indices("{{ ") {
        let original = prepared.map.original(at);
        let end = |text: &str| text.find("}}").expect("it ends");
        assert_eq!(
            &prepared.source[at..at + end(&prepared.source[at..])],
            &source[original..original + end(&source[original..])]
        );
    }
}

#[test]
fn addresses_are_marked_unless_their_author_began_them() {
    let links = |source: &str| Html::parse(source).expect(source).marked().links.len();
    for source in [
        "<a href=\"https://x/{{ id }}\">",
        "<a href=\"tg://user?id={{ id }}\">",
        "<a href=\"HTTPS://{{ host }}/\">",
        "<a href=\"https://x\">",
        "<b title=\"{{ x }}\">",
        "<a href=\"javascript:alert(1)\">",
    ] {
        assert_eq!(links(source), 0, "{source}");
    }
    for source in [
        "<a href=\"{{ url }}\">",
        "<a href=\"java{{ x }}\">",
        "<a href=\"javascript:{{ x }}\">",
        "<a href=\"java&#115;cript:{{ x }}\">",
        "<a HREF='{% if x %}https://x{% endif %}'>",
        "<img src=\"//{{ host }}/x.png\">",
    ] {
        assert_eq!(links(source), 1, "{source}");
    }
}

#[test]
fn a_text_is_made_of_the_html() {
    let source = "<html><head><title>{{ t }}</title><style>p { color: red }</style></head><body>\n\
                  <h1>Заказ {{ order.id }}</h1>\n\
                  {% if vip %}<p>Вы <b>особенный</b>&nbsp;гость &amp; друг</p>{% endif %}\n\
                  <table>{% for row in rows %}<tr><td>{{ row.name }}</td><td>{{ row.price | money }}</td></tr>{% endfor %}</table>\n\
                  <ul><li>один</li>{% for x in xs %}<li>{{ x }}</li>{% endfor %}</ul>\n\
                  <p><a href=\"https://x/{{ id }}\">Открыть</a><br><a href=\"{{ url }}\">{{ url }}</a> <img alt=\"Кот\" src=\"x\"></p>\n\
                  <p>&lbrace;{ не код }}</p></body></html>";
    let (text, map) = Html::parse(source).expect("fine").text().expect("a text");
    insta::assert_snapshot!(text);
    let at = text.find("{{ row.price").expect("is there");
    assert_eq!(map.original(at), source.find("{{ row.price").expect("is there"));
}

#[test]
fn a_sign_that_begins_no_tag_has_its_place() {
    let strays = |source: &str| {
        let found = Html::parse(source).expect(source).stray_signs();
        found.into_iter().map(|objection| objection.offset).collect::<Vec<_>>()
    };
    for source in [
        "<!DOCTYPE html><p>a &lt; b > c</p><br/><!-- < -->",
        "<style>a < b {}</style><title>1 < 2</title>{% if a < b %}x{% endif %}{{ '<' }}",
    ] {
        assert!(strays(source).is_empty(), "{source}: {:?}", strays(source));
    }
    assert_eq!(strays("{{ x }} я < b<p>1<2</p> </3> <<b>x</b>"), [11, 18, 25, 30]);
}

//! What hostile templates may not do: run on, grow, or overflow the stack.

use serde_json::json;

use super::{email, engine, rendered, sent_email};
use crate::templates::{RenderError, limits};

/// Runs where an async worker would: on a 2 MiB stack.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work).expect("a thread starts");
    thread.join().expect("it survives");
}

#[test]
fn hostile_templates_end_in_an_error() {
    let many = |piece: &str, times: usize| piece.repeat(times);
    let around = |open: &str, middle: &str, close: &str, times| many(open, times) + middle + &many(close, times);
    let sources = vec![
        "{{ 'x' * 2000000000 }}".to_owned(),
        "{{ rows * 2000000000 }}".to_owned(),
        "{{ ((rows * 1000000) * 1000000) | join }}".to_owned(),
        "{{ (texts * 1000) | join }}".to_owned(),
        many("{% set rows = rows + rows %}", 60) + "x",
        format!("{}{{{{ x }}}}", "{% set x = 'xx' %}".to_owned() + &many("{% set x = x + x %}", 60)),
        around("{% for a in rows %}", "{{ a }}", "{% endfor %}", 10),
        around("{% for a in rows %}", "", "{% endfor %}", 16) + "{{ x",
        around("{% if x %}", "", "{% endif %}", 5_000),
        around("{{ (", "1", ") }}", 20_000),
        format!("{{{{ {}1 }}}}", many("not ", 15_000)),
        format!("{{{{ {}1 }}}}", many("-", 60_000)),
        format!("{{{{ 1{} }}}}", many("+1", 30_000)),
        format!("{{{{ x{} }}}}", many("|upper", 10_000)),
        format!("{{{{ x{} }}}}", many(".a", 30_000)),
        format!("{{{{ x{} }}}}", many("[0]", 20_000)),
        format!("{{{{ x{} }}}}", many(" if 1 else x", 5_000)),
        format!("{{% set {}a{} = 1 %}}", many("(", 5_000), many(")", 5_000)),
        "{{ range(100000000) | list | length }}".to_owned(),
        "{% for i in range(100000000) %}{% endfor %}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% for i in rows recursive %}{{ loop(rows) }}{% endfor %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".to_owned(),
        format!("{}{{{{ x }}}}", "{% set x = [1] %}".to_owned() + &many("{% set x = [x, x] %}", 60)),
        "{{ 1 | tojson(indent=1000000000) }}".to_owned(),
        "{{ rows | batch(1000000000, 'x') }}".to_owned(),
        "{{ 'x\ny' | indent(2000000000) }}".to_owned(),
        "{{ '%2000000000d' | format(1) }}".to_owned(),
        "{{ 10 ** 1000000000 }}".to_owned(),
        "{% set a = 'a' * 100000 %}{{ a | replace('a', a) | length }}".to_owned(),
        "{% set a = 'a' * 100000 %}{{ a | join(a) | length }}".to_owned(),
        "{{ rows | map('map', 'batch', 2) | list }}".to_owned(),
    ];
    // The longest list that can be made for nothing; every way to use it has to end.
    let grown = [
        "{{ x | string }}",
        "{{ x | join }}",
        "{{ x }}",
        "{{ x | upper }}",
        "{{ x | list | length }}",
        "{{ x | sort | first }}",
        "{{ x | sum }}",
        "{{ x | max }}",
        "{{ x | unique | length }}",
        "{{ x | reverse | first }}",
        "{{ x | urlencode }}",
        "{{ x | map('string') | list | first }}",
        "{{ x | map('upper') | join }}",
        "{{ x | select | list | first }}",
        "{{ -1 in x }}",
        "{% for y in x %}{% if y > 1000 %}{% endif %}{% endfor %}y",
        "{{ '%s' | format(x) }}",
        "{{ x | escape }}",
        "{{ x + 1 }}",
        "{{ x / 0 }}",
        "{{ -x }}",
        "{{ x ** 2 }}",
        "{{ x | replace('a', 'b') }}",
        "{{ x | split }}",
        "{{ x | trim }}",
        "{{ x | int }}",
        "{{ x | round }}",
        "{{ x | items | list }}",
        "{{ x | dictsort }}",
        "{{ x | title }}",
        "{{ x is startingwith 'a' }}",
        "{{ x | d('a') | lower }}",
        "{{ 'a' | replace('a', x) }}",
        "{{ 'a' | join(x) }}",
        "{{ rows[x] }}",
        "{{ x | last }}",
        "{{ x * 3 }}",
        "{{ x | min }}",
        "{{ x | map('join') | list }}",
        "{{ 'abc'[x] }}",
        "{{ 'abc' | trim(x) }}",
        "{{ 1 | round(x) }}",
        "{{ x | lines }}",
        "{{ x[:] | list }}",
        "{{ x | rejectattr('a') | list }}",
        "{{ 1 | d(x) | string | e }}{{ x | e }}",
        "{{ 'a' in x }}",
    ];
    let grow = "{% set x = rows * 100000 %}".to_owned() + &many("{% set x = x + x %}", limits::ADDITIONS);
    let sources: Vec<String> = sources.into_iter().chain(grown.iter().map(|end| grow.clone() + end)).collect();
    on_a_small_stack(move || {
        let rows: Vec<u32> = (0..100).collect();
        let texts = vec!["x".repeat(10_000); 100];
        let data = json!({ "rows": rows, "x": 1, "texts": texts });
        for source in sources {
            let started = std::time::Instant::now();
            let outcome = rendered(&source, &data);
            let shown: String = source.chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
            assert!(outcome.is_err(), "{shown} rendered");
            // Far above what any takes unoptimised on a busy machine; an unbounded one would take minutes.
            assert!(started.elapsed().as_secs() < 5, "{shown} took {:?}", started.elapsed());
        }
    });
}

/// The largest of everything that the limits let through, on the stack it will have.
#[test]
fn the_limits_keep_the_stack() {
    let many = |piece: &str, times: usize| piece.repeat(times);
    let sources = vec![
        format!("{{{{ {}1 }}}}", many("not ", 199)),
        format!("{{{{ {}1 }}}}", many("-", 199)),
        format!("{{{{ 1{} }}}}", many("*1", 99)),
        format!("{{{{ x{} }}}}", many("|string", 99)),
        format!("{{{{ x{} }}}}", many(" if 1 else x", 49)),
        format!("{{% if x %}}{}{{% endif %}}x", many("{% elif x %}", 490)),
        format!("{}{}{}x", many("{% if x %}", 16), many("{% elif x %}", 440), many("{% endif %}", 16)),
        format!("{}{{{{ rows | length }}}}", many("{% set rows = rows[:] %}", 220)),
        format!("{}{{{{ rows | length }}}}", many(&format!("{{% set rows = rows{} %}}", many("[:]", 60)), 10)),
        format!("{}{{{{ rows | length }}}}", many(&format!("{{% set rows = rows{} %}}", many("|map('list')", 30)), 10)),
        format!("{}{{{{ rows | length }}}}", many(&format!("{{% set rows = rows{} %}}", many("|reverse", 90)), 10)),
        format!("{}{{{{ x | length }}}}", "{% set x = 'x' %}".to_owned() + &many("{% set x = x * 2 | upper %}", 190)),
    ];
    on_a_small_stack(move || {
        let data = json!({ "rows": [1, 2], "x": 1 });
        for source in sources {
            let started = std::time::Instant::now();
            let broken = matches!(rendered(&source, &data), Err(RenderError::Broken(_)));
            let shown: String = source.chars().take(80).collect();
            assert!(!broken, "{shown}: {:?}", rendered(&source, &data));
            assert!(started.elapsed().as_secs() < 5, "{shown} took {:?}", started.elapsed());
        }
    });
}

/// Pages that are cheap to write and dear to read. All are refused, or done in no time.
#[test]
fn hostile_pages_end() {
    let many = |piece: &str, times: usize| piece.repeat(times);
    let fonts: String = (0..16).map(|n| format!("<font a={n}>")).collect();
    let rules = |rule: &str, bytes: usize| format!("<style>{}</style>", many(rule, bytes / rule.len()));
    let longest = 60 * 1024;
    let pages = vec![
        many("<div>", longest / 5),
        many("<table>", longest / 7),
        many("<table><tr><td>", longest / 15),
        many("<b>", longest / 3),
        many("<p><font color=red>", longest / 19),
        fonts.clone() + &many("<p>x", 3_900) + "y",
        fonts + &many("<p><i>x</i>", 2_000),
        many("<br>", 4_000) + "x",
        many("<a>", longest / 3),
        many("<select><option>", longest / 16),
        many("</p>", longest / 4) + "x",
        many("<p><table>", longest / 10),
        many("<b><p></b>", longest / 10),
        format!("<p {}>x</p>", (0..6_000).map(|n| format!("a{n}=1 ")).collect::<String>()),
        many("<!---->", longest / 7) + "x",
        many("<", longest),
        many("&", longest),
        many("&#", longest / 2),
        many("<li>x", 4_000),
        rules("*{color:red}", 24_000) + &many("<p>x</p>", 300),
        rules("*{color:red}", 24_000) + &many("<p>x</p>", 3_000),
        rules("*{a:b}", 2_000) + &many("<p>x</p>", 3_900),
        rules("div div div div div div p{color:red}", 24_000) + &many("<div>", 99) + "<p>x",
        rules("* * * * * * * * * *{color:red}", 24_000) + &many(&(many("<div>", 90) + "x" + &many("</div>", 90)), 3),
        rules("p~p~p~p~p~p{color:red}", 4_000) + &many("<p>x</p>", 1_500),
        rules(":nth-last-child(2n+1) :nth-child(3n){color:red}", 4_000) + &many("<p>x</p>", 1_500),
        rules(&format!("{}p{}{{color:red}}", many(":not(", 200), many(")", 200)), 24_000) + "<p>x</p>",
        rules(&format!("{}p{}{{color:red}}", many(":is(p,", 200), many(")", 200)), 24_000) + "<p>x</p>",
        rules(&many("{", 24_000), 24_000) + "<p>x</p>",
        rules(&many("@media x{", 2_000), 20_000) + "<p>x</p>",
        rules(&many("a,", 12_000), 24_000) + &many("<p>x</p>", 300),
        format!("<style>@import url(https://example.org/x.css);</style><p>{}", many("x ", 20_000)),
        many("<blockquote>", 99) + &many("x ", 10_000),
        many("<pre>x", 90),
        format!("<p>{}</p>", many("{{ x }} ", 600)),
        format!("<p title=\"{}\">x</p>", many("{{ x }} ", 600)),
        format!("<p>{}</p>", many("слово ", 5_000)),
    ];
    on_a_small_stack(move || {
        for page in pages {
            let made = sent_email(&email("s", Some(&page), None), &json!({ "x": 1 }));
            let shown: String = page.chars().take(60).collect();
            let expected = matches!(
                made,
                Ok(_) | Err(RenderError::Broken(_) | RenderError::Empty { .. } | RenderError::TooBig { .. })
            );
            assert!(expected, "{shown}: {made:?}");
            let started = std::time::Instant::now();
            let mistakes =
                engine().check(&email("s", Some(&page), None)).map_or_else(|problems| problems.0.len(), |_| 0);
            assert!(mistakes <= 100, "{shown}: {mistakes} mistakes");
            assert!(started.elapsed().as_secs() < 5, "{shown} took {:?}", started.elapsed());
        }
    });
}

/// The filters, asked for too much.
#[test]
fn hostile_filters_end() {
    let digits = "9".repeat(5_000);
    let sources = [
        "{{ long | money }}".to_owned(),
        "{{ 1e300 | money }}".to_owned(),
        "{{ (10 ** 30) | money }}".to_owned(),
        "{{ 1 | money(decimals=255) }}".to_owned(),
        "{{ 1 | money('x' * 100000) }}".to_owned(),
        "{{ 1 | money(long) }}".to_owned(),
        "{{ rows | money }}".to_owned(),
        "{{ 1 | money(rows) }}".to_owned(),
        "{{ true | money }}".to_owned(),
        "{{ 1 | date('%' * 1000) }}".to_owned(),
        "{{ 1 | date('%Y' * 1000) }}".to_owned(),
        "{{ 1 | date('%9999Y') }}".to_owned(),
        "{{ 1 | date('%_99999d') }}".to_owned(),
        "{{ 1 | date('%') }}".to_owned(),
        "{{ 1 | date(zone='x' * 100000) }}".to_owned(),
        "{{ 1 | date(zone='../../etc/passwd') }}".to_owned(),
        "{{ 1 | date(rows) }}".to_owned(),
        "{{ rows | date }}".to_owned(),
        "{{ long | datetime }}".to_owned(),
        "{{ (10 ** 20) | date }}".to_owned(),
        "{{ 1767772800000 | date }}".to_owned(),
        "{{ long | plural('a', 'b', 'c') | upper }}{{ x | plural }}".to_owned(),
        "{{ 1 | plural(rows, rows, rows) }}".to_owned(),
        "{{ rows | phone }}".to_owned(),
        "{{ 1 | phone('x' * 100000) }}".to_owned(),
        "{% for a in rows %}{% for a in rows %}{% for a in rows %}{% if a|money %}{% endif %}{% endfor %}{% endfor %}{% endfor %}x".to_owned(),
        "{% for a in rows %}{% for a in rows %}{% for a in rows %}{% if a|date('%A %B %c') %}{% endif %}{% endfor %}{% endfor %}{% endfor %}x".to_owned(),
        "{% for a in rows %}{% for a in rows %}{% for a in rows %}{% if '79991234567'|phone %}{% endif %}{% endfor %}{% endfor %}{% endfor %}x".to_owned(),
        "{{ rows | map('money', 'XXX') | join }}".to_owned(),
        "{{ (rows * 10000) | map('phone', 'RU') | join | length }}".to_owned(),
    ];
    on_a_small_stack(move || {
        let data = json!({ "rows": (0..100).collect::<Vec<_>>(), "long": digits });
        for source in sources {
            let outcome = rendered(&source, &data);
            assert!(outcome.is_err(), "{source} rendered {outcome:?}");
            assert!(!matches!(outcome, Err(RenderError::Broken(_))), "{source}: {outcome:?}");
        }
        assert!(engine().check(&email("{{ x | money(currency='RUB') }}", None, Some("x"))).is_ok());
    });
}

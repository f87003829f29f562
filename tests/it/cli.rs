//! The commands as a user meets them: the real program, a server and a simulator on ports of their own.

use crate::support::process::{Stand, program};

const NUMBER: &str = "+79991234567";

#[test]
fn help_says_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args) in [
        ("vestnik", &[][..]),
        ("send", &["send"]),
        ("bulk", &["bulk"]),
        ("batches", &["batches"]),
        ("batches_list", &["batches", "list"]),
        ("batches_show", &["batches", "show"]),
        ("batches_watch", &["batches", "watch"]),
        ("batches_pause", &["batches", "pause"]),
        ("batches_resume", &["batches", "resume"]),
        ("batches_reschedule", &["batches", "reschedule"]),
        ("batches_cancel", &["batches", "cancel"]),
        ("queues", &["queues"]),
        ("templates", &["templates"]),
        ("templates_list", &["templates", "list"]),
        ("templates_show", &["templates", "show"]),
        ("templates_save", &["templates", "save"]),
        ("templates_delete", &["templates", "delete"]),
        ("notifications", &["notifications"]),
        ("notifications_list", &["notifications", "list"]),
        ("notifications_show", &["notifications", "show"]),
        ("notifications_cancel", &["notifications", "cancel"]),
        ("notifications_reschedule", &["notifications", "reschedule"]),
        ("dead_letters", &["dead-letters"]),
        ("dead_letters_list", &["dead-letters", "list"]),
        ("dead_letters_causes", &["dead-letters", "causes"]),
        ("dead_letters_export", &["dead-letters", "export"]),
        ("dead_letters_replay", &["dead-letters", "replay"]),
        ("dead_letters_discard", &["dead-letters", "discard"]),
        ("uncertain", &["uncertain"]),
        ("uncertain_list", &["uncertain", "list"]),
        ("uncertain_resolve", &["uncertain", "resolve"]),
        ("quarantine", &["quarantine"]),
        ("quarantine_list", &["quarantine", "list"]),
        ("quarantine_drop", &["quarantine", "drop"]),
        ("suppressions", &["suppressions"]),
        ("suppressions_list", &["suppressions", "list"]),
        ("suppressions_add", &["suppressions", "add"]),
        ("suppressions_lift", &["suppressions", "lift"]),
        ("import", &["import"]),
        ("records", &["records"]),
        ("records_list", &["records", "list"]),
        ("records_put", &["records", "put"]),
        ("config", &["config"]),
        ("doctor", &["doctor"]),
        ("migrate", &["migrate"]),
        ("serve", &["serve"]),
        ("worker", &["worker"]),
        ("demo", &["demo"]),
        ("simulator", &["simulator"]),
        ("simulator_inbox", &["simulator", "inbox"]),
    ] {
        let output = program(dir.path()).args(args).arg("--help").output().unwrap();
        assert!(output.status.success(), "{name}");
        insta::assert_snapshot!(format!("help_{name}"), String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn a_send_says_its_end_and_its_history_is_kept() {
    let stand = Stand::start();
    let sent = stand.run(&["send", "--channel", "whatsapp", "--to", "+7 999 123-45-67", "--text", "Привет"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    insta::assert_snapshot!(stand.redact(&sent.out), @r"
    sent  ID
      to         +79991234567 by whatsapp.main
      accepted   TIME
      policy     at_most_once
      attempt 1  TIME → TIME  accepted  provider id WAMID
    ");
    let listed = stand.run(&["notifications", "list", "--status", "sent", "--json"]).json();
    let id = listed["items"][0]["id"].as_str().unwrap();
    let shown = stand.run(&["notifications", "show", id]);
    assert_eq!(stand.redact(&shown.out), stand.redact(&sent.out));
    let none = stand.run(&["notifications", "list", "--status", "uncertain"]);
    assert_eq!((none.code, none.out.as_str()), (0, "there is none\n"));
}

#[test]
fn one_key_sends_once() {
    let stand = Stand::start();
    let send = || {
        let args = ["send", "--channel", "telegram", "--to", "42", "--text", "x", "--idempotency-key", "k", "--json"];
        stand.run(&args).json()["id"].clone()
    };
    assert_eq!(send(), send());
    assert_eq!(stand.run(&["notifications", "list", "--json"]).json()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_send_that_did_not_succeed_is_exit_code_1() {
    let stand = Stand::start();
    assert_eq!(stand.run(&["suppressions", "add", "whatsapp", NUMBER, "--reason", "asked"]).code, 0);
    let ended = stand.run(&["send", "--channel", "whatsapp", "--to", NUMBER, "--text", "x"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.starts_with("suppressed"), "{ended:?}");
    insta::assert_snapshot!(stand.redact(&stand.run(&["suppressions", "list"]).out), @"whatsapp  +79991234567      all        TIME  asked");
    assert_eq!(stand.run(&["suppressions", "lift", "whatsapp", NUMBER]).code, 0);
    assert_eq!(stand.run(&["send", "--channel", "whatsapp", "--to", NUMBER, "--text", "x"]).code, 0);
}

#[test]
fn templates_come_from_files_and_from_standard_input() {
    let stand = Stand::start();
    std::fs::write(stand.dir.path().join("t.toml"), "text = \"Заказ {{ order.number }}\"").unwrap();
    let saved = stand.run(&["templates", "save", "order", "t.toml"]);
    assert_eq!(saved.out, "saved order, version 1; variables: order.number\n", "{saved:?}");
    let saved = stand.run_with(&["templates", "save", "order", "-"], &[], r#"{"text": "№ {{ order.number }}"}"#);
    assert_eq!(saved.out, "saved order, version 2; variables: order.number\n", "{saved:?}");
    let old = stand.run(&["templates", "show", "order", "--version", "1", "--json"]).json();
    assert_eq!(old["text"], "Заказ {{ order.number }}");
    let args = ["send", "--channel", "telegram", "--to", "-100123", "--template", "order", "--data", "order.number=7"];
    assert_eq!(stand.run(&args).code, 0);
    assert_eq!(stand.run(&["templates", "list", "--json"]).json()["items"][0]["version"], 2);
    assert_eq!(stand.run(&["templates", "delete", "order"]).code, 0);
    let gone = stand.run(&["templates", "show", "order"]);
    assert_eq!(gone.code, 2);
    insta::assert_snapshot!(gone.err, @"error: There is no such thing: there is no such template, or no such version of it");
}

#[test]
fn records_are_kept_found_and_deleted() {
    let stand = Stand::start();
    let phone = ["--field", "phone=8 999 123-45-67"];
    let wrong = stand.run(&[&["records", "put", "contacts", "c1"], &phone[..]].concat());
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let body = r#"{"name": "Анна", "tags": ["vip"]}"#;
    let put = ["records", "put", "contacts", "c1", "--json-body", body, "--field", "phone=+7 999 123-45-67"];
    let saved = stand.run(&put);
    assert_eq!(saved.code, 0, "{saved:?}");
    insta::assert_snapshot!(saved.out.split("saved").next().unwrap(), @r#"
    id: c1
    name: Анна
    phone: +79991234567
    tags: ["vip"]
    "#);
    assert_eq!(stand.run(&["records", "show", "contacts", "c1"]).out, saved.out);
    stand.run_with(&["import", "contacts", "-"], &[], "id,name\nc2,Борис\n");
    let listed = stand.run(&["records", "list", "contacts"]).out;
    insta::assert_snapshot!(listed, @r"
    c1                Анна  +79991234567
    c2                Борис
    ");
    for (wanted, id) in [(["--search", "бор"], "c2"), (["--phone", "+79991234567"], "c1")] {
        let found = stand.run(&[&["records", "list", "contacts", "--json"], &wanted[..]].concat()).json();
        assert_eq!((&found["items"][0]["id"], found["items"].as_array().unwrap().len()), (&id.into(), 1));
    }
    assert_eq!(stand.run(&["records", "delete", "contacts", "c1"]).out, "deleted c1\n");
    assert_eq!(stand.run(&["records", "show", "contacts", "c1"]).code, 2);
}

#[test]
fn a_send_for_later_can_be_moved_and_cancelled() {
    let stand = Stand::start();
    let send = ["send", "--channel", "telegram", "--to", "42", "--text", "x"];
    let queued = stand.run(&[&send[..], &["--async", "--json"]].concat());
    assert_eq!(queued.code, 0, "{queued:?}");
    assert_eq!(queued.json()["mode"], "async");
    let far = "2099-01-07T10:00:00Z";
    let waiting = stand.run(&[&send[..], &["--scheduled", far]].concat());
    assert_eq!(waiting.code, 0, "{waiting:?}");
    insta::assert_snapshot!(stand.redact(&waiting.out), @r"
    scheduled  ID
      to         42 by telegram.main
      accepted   TIME
      scheduled  TIME
      policy     at_most_once
      waits      TIME
      no attempt yet
    ");
    let listed = stand.run(&["notifications", "list", "--status", "scheduled", "--json"]).json();
    let id = listed["items"][0]["id"].as_str().unwrap();
    let moved = stand.run(&["notifications", "reschedule", id, "--at", "2099-02-07T10:00:00+03:00", "--json"]).json();
    assert_eq!(moved["dueAt"], "2099-02-07T07:00:00Z");
    let cancelled = stand.run(&["notifications", "cancel", id]);
    assert!(cancelled.code == 0 && cancelled.out.starts_with("cancelled"), "{cancelled:?}");
    let again = stand.run(&["notifications", "cancel", id]);
    assert_eq!(again.code, 2, "{again:?}");
}

#[test]
fn a_campaign_goes_to_the_rows_of_a_table_once() {
    let stand = Stand::start();
    stand.run_with(&["templates", "save", "sale", "-"], &[], r#"{"text": "{{ name }}, скидка {{ sale.percent }}%"}"#);
    let table = "Телефон;name;sale.percent\n+7 999 123-45-67;Анна;20\n+7 999 123-45-68;Борис;10\n89991234567;Анна;20\n";
    std::fs::write(stand.dir.path().join("people.csv"), table).unwrap();
    let region = [("VESTNIK__DELIVERY__DEFAULT_REGION", "RU")];
    let bulk = ["bulk", "--channel", "whatsapp", "--template", "sale", "--csv", "people.csv"];
    let counted = stand.run_with(&[&bulk[..], &["--dry-run"]].concat(), &region, "");
    assert_eq!((counted.code, counted.out.as_str()), (0, "3 recipients, in 1 batch call: nothing was sent\n"));
    let keyed = [&bulk[..], &["--idempotency-key", "sale-1", "--watch"]].concat();
    let sent = stand.run(&keyed);
    assert_eq!(sent.code, 1, "the third row's number has no country code: {sent:?}");
    insta::assert_snapshot!(stand.redact(&sent.out), @r"
    accepted 3 notifications; 1 failed at once: no address that can be written to
      key    sale-1
      batch  ID
    3 of 3 ended: 1 failed, 2 sent
    ");
    let again = stand.run(&[&bulk[..], &["--idempotency-key", "sale-1", "--json"]].concat()).json();
    assert_eq!((&again["accepted"], &again["idempotencyKey"]), (&3.into(), &"sale-1".into()));
    let id = again["batches"][0]["batchId"].as_str().unwrap();
    assert!(sent.out.contains(id), "the same key is the same batch: {sent:?}");
    let other = stand.run(&[&bulk[..], &["--idempotency-key", "sale-1", "--priority", "low"]].concat());
    assert_eq!(other.code, 2, "{other:?}");
    let rows = stand.run(&["notifications", "list", "--batch", id, "--json"]).json();
    assert_eq!(rows["items"].as_array().unwrap().len(), 3);
    insta::assert_snapshot!(stand.redact(&stand.run(&["batches", "show", id]).out), @r"
    finished  ID
      what       sale
      by         whatsapp.main, normal priority
      accepted   3 at TIME
      failed     1
      sent       2
    ");
    std::fs::write(stand.dir.path().join("wrong.csv"), "name\nАнна\n").unwrap();
    let wrong = stand.run(&["bulk", "--channel", "sms", "--text", "x", "--csv", "wrong.csv"]);
    assert_eq!(wrong.code, 2);
    insta::assert_snapshot!(wrong.err, @"error: wrong.csv, line 1: no column names the recipients: call one recipient (or phone) or contactId; seen: name");
}

#[test]
fn all_contacts_that_are_found_are_written_to_at_their_time() {
    let stand = Stand::start();
    let contacts = "id,name,phone\nc1,Анна,+79991234567\nc2,Борис,+79991234568\nc3,Белла,+79991234569\n";
    assert_eq!(stand.run_with(&["import", "contacts", "-"], &[], contacts).code, 0);
    let all = ["bulk", "--channel", "whatsapp", "--text", "Привет", "--all-contacts", "--search", "б"];
    let asked = stand.run(&all);
    assert_eq!(asked.code, 2, "nobody is there to answer: {asked:?}");
    assert_eq!(stand.run(&["batches", "list"]).out, "there is none: `vestnik bulk` makes one\n");
    let later = [&all[..], &["--yes", "--scheduled", "2099-01-07T10:00:00Z", "--json"]].concat();
    let made = stand.run(&later).json();
    assert_eq!(made["accepted"], 2);
    let id = made["batches"][0]["batchId"].as_str().unwrap();
    let state = |args: &[&str]| stand.run(args).json()["state"].as_str().unwrap().to_owned();
    assert_eq!(state(&["batches", "show", id, "--json"]), "scheduled");
    assert_eq!(state(&["batches", "pause", id, "--json"]), "paused");
    let queues = stand.run(&["queues"]);
    assert_eq!(queues.code, 0, "{queues:?}");
    let lane: Vec<_> =
        queues.out.lines().find(|line| line.starts_with("whatsapp.send ")).unwrap().split_whitespace().collect();
    assert_eq!(lane, ["whatsapp.send", "0", "0", "0", "2", "0", "0", "1", "0", "-"], "{queues:?}");
    assert_eq!(state(&["batches", "resume", id, "--json"]), "scheduled");
    let moved = stand.run(&["batches", "reschedule", id, "--at", "2099-02-07T10:00:00Z", "--json"]).json();
    assert_eq!(moved["scheduledAt"], "2099-02-07T10:00:00Z");
    assert_eq!(stand.run(&["batches", "cancel", id]).code, 2, "nobody is there to answer");
    assert_eq!(stand.run(&["batches", "cancel", id, "--yes"]).code, 0);
    let ended = stand.run(&["batches", "watch", id]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.starts_with("cancelled  ") && ended.out.contains("cancelled  2"), "{ended:?}");
    let both =
        stand.run(&["bulk", "--channel", "sms", "--text", "x", "--csv", "people.csv", "--phone", "+79991234567"]);
    assert_eq!(both.code, 2, "an address narrows all contacts, and nothing else: {both:?}");
    std::fs::write(stand.dir.path().join("ids.txt"), "c1\n\nnobody\n").unwrap();
    let by_id = stand.run(&["bulk", "--channel", "whatsapp", "--text", "x", "--contact-ids-file", "ids.txt"]);
    assert_eq!(by_id.code, 1, "one has no address: {by_id:?}");
    assert!(by_id.out.starts_with("accepted 2 notifications; 1 failed at once"), "{by_id:?}");
}

#[test]
fn each_mistake_is_named_on_its_own_line() {
    let stand = Stand::start();
    stand.run_with(&["templates", "save", "hello", "-"], &[], r#"{"text": "Здравствуйте, {{ name }}!"}"#);
    let ended = stand.run(&["send", "--channel", "whatsapp", "--to", "12", "--template", "hello"]);
    assert_eq!(ended.code, 2);
    insta::assert_snapshot!(ended.err, @r"
    error: The request is wrong
      /recipient: not a valid phone number: give it with its country code, like +7 999 123-45-67
      /data: `name` is missing (/text, line 1, column 18)
    ");
}

#[test]
fn a_server_that_is_not_there_is_said_with_where_it_was_looked_for() {
    let stand = Stand::without_server();
    let looked = stand.run_with(&["notifications", "list"], &[("VESTNIK__HTTP__LISTEN", "127.0.0.1:1")], "");
    assert_eq!(looked.code, 2);
    insta::assert_snapshot!(looked.err, @r"
    error: no answer from http://127.0.0.1:1 (named by the setting http.listen): connecting failed: client error (Connect): tcp connect error: Connection refused (os error 111)
    hint: start it with `vestnik serve`, or set VESTNIK_URL
    ");
    let named = stand.run(&["notifications", "list", "--url", "nonsense"]);
    insta::assert_snapshot!(named.err, @r"
    error: nonsense (by --url or VESTNIK_URL) is not the address of a server
    hint: give it as http://HOST:PORT
    ");
}

#[test]
fn a_server_that_stopped_leaves_no_address_behind() {
    let mut stand = Stand::start();
    let file = stand.dir.path().join("data/server.url");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), stand.server.as_ref().unwrap().url);
    let stopping = std::time::Instant::now();
    assert!(stand.server.take().unwrap().stop());
    assert!(stopping.elapsed() < std::time::Duration::from_secs(10), "a stop with nothing to settle is quick");
    assert!(!file.exists());
}

#[test]
fn a_server_with_keys_wants_one() {
    const KEY: &str = "vk_a-bootstrap-key-of-good-length";
    let mut stand = Stand::without_server();
    stand.serve(&[("VESTNIK_BOOTSTRAP_KEY", KEY)]);
    let ended = stand.run(&["templates", "list"]);
    assert_eq!(ended.code, 2);
    insta::assert_snapshot!(ended.err, @r"
    error: An API key is needed: send the header Authorization: Bearer vk_…; `vestnik keys create` makes a key
    hint: set VESTNIK_KEY (or --key); `vestnik keys create NAME` makes a key
    ");
    let ended = stand.run_with(&["templates", "list"], &[("VESTNIK_KEY", KEY)], "");
    assert_eq!((ended.code, ended.out.as_str()), (0, "there is none: `vestnik templates save ID FILE` makes one\n"));
}

#[test]
fn settings_are_shown_with_origins_and_without_secrets() {
    let stand = Stand::without_server();
    let shown = stand.run(&["config"]);
    assert!(shown.out.contains("token = \"***\"  # vestnik.toml") && !shown.out.contains("sim-token"), "{shown:?}");
    let json = stand.run(&["config", "--json"]).json();
    assert_eq!(json["settings"]["whatsapp"]["main"]["token"], "***");
    assert_eq!(json["origins"]["whatsapp.main.token"], "vestnik.toml");
    assert_eq!(stand.run(&["config", "check"]).out, "the settings are fine\n");
    let wrong = stand.run_with(&["config", "check"], &[("VESTNIK__HTTP__LISTEN", "here")], "");
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.starts_with("error: setting `http.listen`"), "{wrong:?}");
}

#[test]
fn doctor_says_what_is_well_and_what_to_do() {
    let mut stand = Stand::without_server();
    let ill = stand.run_with(&["doctor", "--json"], &[("VESTNIK__HTTP__LISTEN", "127.0.0.1:1")], "");
    assert_eq!(ill.code, 1, "{ill:?}");
    let ill = ill.json();
    let of = |name: &str| ill["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).unwrap();
    for name in ["ledger", "server"] {
        assert_eq!(of(name)["ok"], false);
        assert!(of(name)["hint"].is_string());
    }
    stand.serve(&[]);
    let well = stand.run(&["doctor"]);
    assert_eq!(well.code, 0, "{well:?}");

    let lines: Vec<_> =
        stand.redact(&well.out).lines().map(|line| line.split(": ").next().unwrap().to_owned()).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    ok       settings
    ok       ledger
    ok       durability
    ok       disk
    ok       account whatsapp.main
    ok       account telegram.main
    ok       server
    ");
    assert!(well.out.contains("journal_mode wal, synchronous FULL"), "{well:?}");
    // It looked, and sent nothing.
    assert_eq!(stand.run(&["notifications", "list"]).out, "there is none\n");
    let wrong = stand.run_with(&["doctor"], &[("VESTNIK__NO__SUCH", "1")], "");
    assert_eq!(wrong.code, 1);
    assert!(wrong.out.starts_with("problem  settings: "), "{wrong:?}");
}

#[test]
fn bench_email_sends_every_email_and_says_how_fast() {
    let dir = tempfile::tempdir().unwrap();
    let output = program(dir.path()).args(["bench", "email", "--messages", "150", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["messages"], &figures["connections"]), (&150.into(), &1.into()));
    assert!(figures["perSecond"].as_f64().unwrap() > 0.0 && figures["ownCpuUs"].as_f64().unwrap() > 0.0, "{figures}");
}

//! Bringing records in: what a file of any size, shape and encoding becomes, and what it cannot do to the service.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::on_both_ledgers;
use super::server::{Answer, Client, read_to_end};
use super::world::World;
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    rows_become_records_and_the_same_file_changes_nothing,
    many_rows_come_in_and_again_change_nothing,
    merging_keeps_what_the_file_does_not_name,
    what_came_before_a_mistake_stays,
);

const CSV: (&str, &str) = ("content-type", "text/csv");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const ANY: (&str, &str) = ("content-type", "application/octet-stream");

async fn import(client: &Client, path: &str, content_type: (&str, &str), body: impl Into<Vec<u8>>) -> Answer {
    client.ask("POST", path, &[content_type], body).await.unwrap()
}

/// created, updated, unchanged, rejected.
fn counts(report: &Value) -> [u64; 4] {
    let counts = ["created", "updated", "unchanged", "rejected"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(report["rows"], counts.iter().sum::<u64>(), "{report:#}");
    counts
}

/// Pieces that are made as they are sent.
fn generated(piece: &'static [u8], times: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::iter((0..times).map(move |_| Ok(Bytes::from_static(piece))))
}

const TABLE: &str = "\u{feff}ИД;Имя;Моб. телефон;Эл. почта;Город\r\n\
    c1;Анна;+7 (999) 123-45-67;Anna@Example.com;Омск\r\n\
    c2;\"Борис; \"\"Боря\"\"\";12;;\r\n\
    c3;Вера;;;Пермь;лишнее\r\n\
    c4;\"Глеб\nИванов\";;;\r\n\
    ;Дина;;;\r\n";

async fn rows_become_records_and_the_same_file_changes_nothing(world: World) {
    let server = world.server(&[]).await;
    let report = import(&server, "/v1/contacts/import", CSV, TABLE).await.ok();
    assert_eq!(counts(&report), [2, 0, 0, 3]);
    assert_eq!(
        (&report["kind"], &report["format"], &report["encoding"], &report["delimiter"]),
        (&json!("contacts"), &json!("csv"), &json!("utf-8"), &json!(";"))
    );
    assert_eq!(report["columns"][2], json!({ "header": "Моб. телефон", "field": "phone" }));
    let rejected = report["rejectedRows"].as_array().unwrap();
    let lines: Vec<_> = rejected.iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 4, 7]);
    assert!(rejected[0]["reason"].as_str().unwrap().starts_with("phone: not a valid phone number"));
    assert_eq!(rejected[1]["row"], json!(["c3", "Вера", "", "", "Пермь", "лишнее"]));

    assert_eq!(counts(&import(&server, "/v1/contacts/import", CSV, TABLE).await.ok()), [0, 0, 2, 3]);
    // The same in another format says in which form the fields were kept.
    let kept = "{\"id\": \"c1\", \"name\": \"Анна\", \"phone\": \"+79991234567\", \"email\": \"Anna@example.com\", \
                \"Город\": \"Омск\"}\n{\"id\": \"c4\", \"name\": \"Глеб\\nИванов\"}\n";
    let report = import(&server, "/v1/contacts/import?mode=replace", NDJSON, kept).await.ok();
    assert_eq!(counts(&report), [0, 0, 2, 0]);

    // All rejected rows, line by line.
    let answer = server.ask("POST", "/v1/contacts/import", &[CSV, ("accept", NDJSON.1)], TABLE).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(NDJSON.1)));
    let lines: Vec<Value> =
        String::from_utf8_lossy(&answer.body).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["rejected"], &lines[0]["rejectedRows"]), (4, &json!(3), &Value::Null));
    assert_eq!(lines[1..], *rejected);
}

async fn many_rows_come_in_and_again_change_nothing(world: World) {
    // In a build without optimisation the larger file takes ten seconds.
    let count: u64 = if world.database.is_some() { 20_000 } else { 100_000 };
    let server = world.server(&[]).await;
    let table = move || {
        let rows = (0..count).map(|id| format!("{id},Anna {id},Omsk\n"));
        let text = stream::iter(std::iter::once("id,name,city\n".to_owned()).chain(rows));
        text.ready_chunks(1_000).map(|rows| Ok(Bytes::from(rows.concat())))
    };
    let created = server.upload("/v1/companies/import", &[CSV], table()).await.ok();
    assert_eq!(counts(&created), [count, 0, 0, 0]);
    let unchanged = server.upload("/v1/companies/import", &[CSV], table()).await.ok();
    assert_eq!(counts(&unchanged), [0, 0, count, 0]);
    let megabytes = server.memory_high_water() / 1024 / 1024;
    assert!(megabytes < 150, "{megabytes} MB for {count} rows");
}

async fn merging_keeps_what_the_file_does_not_name(world: World) {
    let server = world.server(&[]).await;
    let at = "/v1/leads/import";
    import(&server, at, NDJSON, r#"{"id": 7, "name": "A", "n": 1}"#).await.ok();
    let dry = import(&server, &format!("{at}?dryRun=true"), NDJSON, r#"{"id": 7, "n": 2}"#).await.ok();
    assert_eq!((counts(&dry), &dry["dryRun"]), ([0, 1, 0, 0], &json!(true)));
    let report = import(&server, at, NDJSON, r#"{"id": 7, "n": 2}"#).await.ok();
    assert_eq!(counts(&report), [0, 1, 0, 0]);
    // An empty cell says nothing.
    let whole = "{\"id\": 7, \"name\": \"A\", \"n\": 2}";
    assert_eq!(counts(&import(&server, at, CSV, "id,name\n7,\n").await.ok()), [0, 0, 1, 0]);
    assert_eq!(counts(&import(&server, &format!("{at}?mode=replace"), NDJSON, whole).await.ok()), [0, 0, 1, 0]);
    let report = import(&server, &format!("{at}?mode=replace"), NDJSON, r#"{"id": 7, "n": 2}"#).await.ok();
    assert_eq!(counts(&report), [0, 1, 0, 0]);
}

async fn what_came_before_a_mistake_stays(world: World) {
    let server = world.server(&[]).await;
    let problem = import(&server, "/v1/deals/import", CSV, "id,name\nd1,A\n,B\nd2,\"C\nd3,D\n").await.problem(422);
    assert_eq!((&problem["type"], &problem["line"]), (&json!("urn:vestnik:unreadable-file"), &json!(4)));
    assert!(problem["detail"].as_str().unwrap().contains("not closed"), "{problem:#}");
    assert_eq!(counts(&problem["report"]), [1, 0, 0, 1]);
    assert_eq!(problem["report"]["rejectedRows"][0]["line"], 3);
    assert_eq!(counts(&import(&server, "/v1/deals/import", CSV, "id,name\nd1,A\n").await.ok()), [0, 0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encodings_and_delimiters_are_recognised_or_given() {
    let world = World::sqlite().await;
    let server = world.server(&[]).await;
    let at = "/v1/contacts/import";
    let table = "id\tname\n1\tАнна — №1\n";
    let utf16 = |bytes: fn(u16) -> [u8; 2]| table.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    // Анна — №1 in Windows-1251.
    let windows = [b"id\tname\n1\t", &b"\xC0\xED\xED\xE0 \x97 \xB9"[..], b"1\n"].concat();
    import(&server, at, ANY, table).await.ok();
    for (encoding, file) in [
        ("utf-16le", utf16(u16::to_le_bytes)),
        ("utf-16be", utf16(u16::to_be_bytes)),
        ("utf-16le", [b"\xFF\xFE".to_vec(), utf16(u16::to_le_bytes)].concat()),
        ("windows-1251", windows.clone()),
    ] {
        let report = import(&server, at, ANY, file).await.ok();
        assert_eq!((counts(&report), &report["encoding"]), ([0, 0, 1, 0], &json!(encoding)));
        assert_eq!(report["delimiter"], "\t");
    }
    let given = format!("{at}?encoding=cp1251&delimiter=tab&format=csv&map=ID%3Did&map=name%3Dname");
    assert_eq!(counts(&import(&server, &given, ANY, windows).await.ok()), [0, 0, 1, 0]);
    let report = import(&server, &format!("{at}?map=name%3D"), ANY, table).await.ok();
    assert_eq!(report["columns"][1], json!({ "header": "name", "field": null }));
    let by_header = ("content-type", "text/csv; charset=\"windows-1251\"");
    assert_eq!(import(&server, at, by_header, "id\n1\n").await.ok()["encoding"], "windows-1251");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_named_and_forms_of_foreign_pages_refused() {
    let world = World::sqlite().await;
    let server = world.server(&[]).await;
    let at = "/v1/contacts/import";
    for content_type in ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""] {
        let answer = import(&server, at, ("content-type", content_type), "id\n1\n").await;
        assert_eq!(answer.problem(415)["type"], "urn:vestnik:media-type", "{content_type}");
    }
    assert_eq!(server.ask("POST", at, &[], "id\n1\n").await.unwrap().status, 415);
    let wrong = "?format=xlsx&encoding=koi8-r&delimiter=ab&map=x&mode=add&dryRun=1&what=x";
    let problem = import(&server, &format!("{at}{wrong}"), CSV, "id\n1\n").await.problem(422);
    let pointers: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/format", "/encoding", "/delimiter", "/map", "/mode", "/dryRun", ""]);
    for (file, said) in [
        ("", "no header"),
        ("name\nAnna\n", "no column is the id"),
        ("id,phone,Телефон\n", "both fill the field phone"),
        ("PK\u{3}\u{4}", "export it as CSV"),
        ("id,name\n1,\0\n", "NUL"),
    ] {
        let problem = import(&server, at, CSV, file).await.problem(422);
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem:#}");
    }
    assert_eq!(counts(&import(&server, at, NDJSON, "").await.ok()), [0; 4]);
    assert_eq!(counts(&import(&server, at, CSV, "id\n1\n").await.ok()), [1, 0, 0, 0], "nothing was written before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_needs_the_scope_manage() {
    let world = World::sqlite().await;
    let (_, sender) = world.new_key("sender", "send,read").await;
    let (_, manager) = world.new_key("manager", "manage").await;
    let server = world.server(&[]).await;
    import(&server, "/v1/leads/import", CSV, "id\n1\n").await.problem(401);
    import(&server.with_key(&sender), "/v1/leads/import", CSV, "id\n1\n").await.problem(403);
    import(&server.with_key(&manager), "/v1/leads/import", CSV, "id\n1\n").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_without_end_and_rows_without_use_take_no_memory() {
    const PIECE: &[u8] = &[b'x'; 64 * 1024];
    /// 200 MB.
    const PIECES: usize = 200 * 16;
    let world = World::sqlite().await;
    let server = world.server(&[]).await;
    for (start, content_type, line) in [("id,name\n1,A\n2,\"", CSV, 3), ("{\"id\": \"1\"}\n{\"id\": \"", NDJSON, 2)] {
        let start = stream::iter([Ok(Bytes::from_static(start.as_bytes()))]);
        let body = start.chain(generated(PIECE, PIECES));
        let problem = server.upload("/v1/contacts/import", &[content_type], body).await.problem(422);
        assert_eq!(problem["line"], line, "{problem:#}");
        assert_eq!(problem["report"]["rows"], 1);
    }
    let wide = generated(b"x,x,x,x,x,x,x,x,x,x,", 10_000);
    let problem = server.upload("/v1/contacts/import", &[CSV], wide).await.problem(422);
    assert!(problem["detail"].as_str().unwrap().contains("columns"), "{problem:#}");
    // A client that reads nothing before it has sent all.
    let mut stream = server.connect().await.unwrap();
    let row = b"no JSON, and of some length, so that it fills what lies between us\n";
    let (rows, body) = (100_000, row.repeat(1_000));
    let head = format!(
        "POST /v1/contacts/import HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\naccept: {}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        NDJSON.1,
        NDJSON.1,
        row.len() * rows
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..rows / 1_000 {
        stream.write_all(&body).await.unwrap();
    }
    let answer = read_to_end(&mut stream, LONG).await.unwrap();
    // One for the report, one for each row; the frames of a chunked body hold none.
    assert_eq!(answer.iter().filter(|byte| **byte == b'{').count(), rows + 1);
    let megabytes = server.memory_high_water() / 1024 / 1024;
    assert!(megabytes < 150, "{megabytes} MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_have_no_limit_of_size_or_time_but_of_number() {
    let settings = [
        ("VESTNIK__HTTP__BODY_LIMIT_BYTES", "2000"),
        ("VESTNIK__HTTP__REQUEST_TIME_LIMIT_MS", "1000"),
        ("VESTNIK__DELIVERY__DIRECT_DEADLINE_MS", "500"),
    ];
    let world = World::sqlite().await;
    let mut server = world.server(&settings).await;
    let at = "/v1/contacts/import";
    // More than the start that is looked at before anything is read, and then no more rows and no end. What is long
    // silent is cut off.
    let begun = |name: &'static str| {
        let rows: String =
            (0..1_000).map(|n| format!("{{\"id\": \"{name}{n}\", \"text\": \"{:80}\"}}\n", "x")).collect();
        let no_rows = stream::repeat(Bytes::from("\n".repeat(2_000))).then(|lines| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(lines)
        });
        stream::iter([Ok(Bytes::from(rows))]).chain(no_rows)
    };
    // One that is refused because the fifth came first, or cut off on a busy machine, comes again.
    let four = futures::future::join_all((0..4).map(|_| async {
        loop {
            server.upload(at, &[NDJSON], begun("a")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }));
    let full = eventually(LONG, "there is no room for a fifth", async || {
        let fifth = import(&server, at, CSV, "id\n1\n").await;
        (fifth.status != 200).then_some(fifth)
    });
    let fifth = tokio::select! {
        _ = four => unreachable!("they have no end"),
        fifth = full => fifth,
    };
    assert_eq!((&fifth.problem(429)["type"], fifth.header("retry-after")), (&json!("urn:vestnik:too-many"), Some("5")));
    // The four hung up, and their places are free again.
    eventually(LONG, "there is room again", async || {
        (import(&server, at, CSV, "id\n1\n").await.status == 200).then_some(())
    })
    .await;

    // Longer than a request may be and take.
    let slow = stream::iter(0..3).then(|n| async move {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let rows: String = (0..500).map(|row| format!("{{\"id\": \"slow{n}-{row}\"}}\n")).collect();
        Ok(Bytes::from(rows))
    });
    assert_eq!(counts(&server.upload(at, &[NDJSON], slow).await.ok()), [1_500, 0, 0, 0]);

    // One that is cut off by a stop says how far it came.
    let client = server.client();
    let (answer, ()) = futures::join!(client.upload(at, &[NDJSON], begun("b")), async {
        eventually(LONG, "a batch is in", async || (client.get("/v1/contacts/b499").await.status == 200).then_some(()))
            .await;
        server.signal(Signal::TERM);
    });
    let problem = answer.problem(503);
    assert!([[500, 0, 0, 0], [1_000, 0, 0, 0]].contains(&counts(&problem["report"])), "{problem:#}");
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_tells_and_keeps_what_was_rejected() {
    let world = World::sqlite().await;
    let _server = world.server(&[]).await;
    let file = |name: &str| world.dir.path().join(name);
    std::fs::write(file("contacts.csv"), TABLE).unwrap();
    let run = async |arguments: &[&str]| {
        let output = world.run(&[&["import"], arguments].concat()).await;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = run(&["contacts", "contacts.csv", "--dry-run"]).await;
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(out.starts_with("a dry run: nothing was written\n5 rows of contacts: 2 created"), "{out}");
    assert!(out.contains("Моб. телефон as phone") && out.contains("  line 7: there is no id\n"), "{out}");

    let (code, out, _) = run(&["contacts", "contacts.csv", "--rejected", "rejected.csv"]).await;
    assert_eq!(code, 1);
    assert!(out.contains("3 rejected") && out.contains("rejected rows are in rejected.csv"), "{out}");
    let rejected = std::fs::read_to_string(file("rejected.csv")).unwrap();
    let lines: Vec<_> = rejected.lines().collect();
    assert_eq!(lines[0], "\u{feff}rejected line;rejected because;id;name;phone;email;Город");
    assert!(lines[1].starts_with("3;phone: not a valid phone number") && lines[1].ends_with(";12;;"), "{rejected}");
    // Mended, it goes in as it is.
    let mended = rejected.replace(";12;", ";+79990000002;").replace(";лишнее", "").replace(";;Дина", ";c5;Дина");
    std::fs::write(file("mended.csv"), mended).unwrap();
    let (code, out, _) = run(&["contacts", "mended.csv", "--rejected", "none.ndjson", "--json"]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, counts(&report)), (0, [3, 0, 0, 0]));
    assert!(!file("none.ndjson").exists());

    std::fs::write(file("broken.csv"), "id,name\nd1,A\nd2,\"B\n").unwrap();
    let (code, out, err) = run(&["deals", "broken.csv", "--rejected", "r.ndjson"]).await;
    assert_eq!(code, 2);
    assert!(out.starts_with("1 row of deals: 1 created"), "{out}");
    assert!(err.starts_with("error: broken.csv, line 3: The file cannot be read further: a quote"), "{err}");

    // Without an answer the mended file stays as it was.
    let mended = std::fs::read_to_string(file("mended.csv")).unwrap();
    let nowhere = ["contacts", "contacts.csv", "--rejected", "mended.csv", "--url", "http://127.0.0.1:1"];
    assert_eq!(run(&nowhere).await.0, 2);
    assert_eq!(std::fs::read_to_string(file("mended.csv")).unwrap(), mended);

    for wrong in [
        &["contacts", "contacts.csv", "--rejected", "contacts.csv"][..],
        &["contacts", "contacts.csv", "--rejected", "x.txt"],
        &["contacts", "absent.csv"],
        &["contacts", "contacts.csv", "--encoding", "koi8-r"],
        &["contacts", "contacts.csv", "--map", "Absent=phone"],
    ] {
        assert_eq!(run(wrong).await.0, 2, "{wrong:?}");
    }
    assert_eq!(std::fs::read_to_string(file("contacts.csv")).unwrap(), TABLE);
}

//! What queries on the CRM's database promise beyond what every source does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vestnik::config::records::SqlSettings;
use vestnik::domain::{Channel, RecordId, RecordIds, RecordKind};
use vestnik::records::{Context, RecordSource, SourceError, SqlSource};

use super::{crm, settings, source};
use crate::support::eventually::{LONG, eventually};
use crate::support::ledger::chain;
use crate::support::postgres::TestDatabase;
use crate::support::proxy::Proxy;

const CONTACT: RecordKind = RecordKind::Contact;

fn ids(texts: &[&str]) -> Vec<RecordId> {
    texts.iter().map(|text| RecordId::parse(CONTACT, text).unwrap()).collect()
}

/// The same with another query for contacts.
fn with_query(database: &TestDatabase, query: &str) -> SqlSettings {
    SqlSettings { contact: Some(query.into()), ..settings(&database.url()) }
}

/// Why contacts cannot be used.
async fn unusable(source: &SqlSource, asked: &[&str]) -> String {
    match source.load(CONTACT, ids(asked)).await {
        Err(error @ SourceError::Unusable { .. }) => error.to_string(),
        other => panic!("not unusable: {other:?}"),
    }
}

#[tokio::test]
async fn one_query_reads_all_of_a_kind() {
    let Some((database, client)) = crm("int4").await else { return };
    client.batch_execute("insert into contact select n, 'n' || n from generate_series(1, 10000) n").await.unwrap();
    let proxy = Proxy::start(database.server()).await;
    let source = source(&settings(&database.url_at(proxy.address)));
    let all: Vec<String> = (1..=10_000).map(|n| n.to_string()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for round in 1..=3 {
        assert_eq!(source.load(CONTACT, ids(&all)).await.unwrap().len(), 10_000);
        assert_eq!(proxy.executed(), round);
    }
}

#[tokio::test]
async fn a_batch_of_notifications_is_one_query_per_kind_and_stage() {
    let Some((database, client)) = crm("int4").await else { return };
    client
        .batch_execute(
            "alter table contact add manager_id int4;
             insert into company (id, name) select n, 'f' || n from generate_series(1, 500) n;
             insert into contact (id, name, company_id, manager_id)
                 select n, 'c' || n, n, 1000 + n % 7 from generate_series(1, 500) n;
             insert into contact (id, name) select n, 'm' || n from generate_series(1000, 1010) n;
             create table deal (id int8 primary key, contact_id int4);
             insert into deal select n, n from generate_series(1, 500) n;
             create table lead (id int8 primary key, title text);
             insert into lead select n, 't' || n from generate_series(1, 500) n",
        )
        .await
        .unwrap();
    let proxy = Proxy::start(database.server()).await;
    let settings = SqlSettings {
        contact: Some(
            "select id, name, company_id as \"companyId\", manager_id as \"managerId\" from contact where id = any($1)"
                .into(),
        ),
        deal: Some("select id, contact_id as \"contactId\" from deal where id = any($1)".into()),
        lead: Some("select * from lead where id = any($1)".into()),
        ..settings(&database.url_at(proxy.address))
    };
    let context = Context::new(Arc::new(source(&settings)));
    let batch: Vec<RecordIds> = (1..=500)
        .map(|n| RecordIds { deal_id: Some(n.to_string()), lead_id: Some(n), ..RecordIds::default() })
        .collect();
    let loaded = context.load(&batch).await.unwrap();
    // Deals, leads, their contacts, those contacts' companies and managers.
    assert_eq!(proxy.executed(), 5);
    let data = loaded.of(&batch[41]).data(&serde_json::Map::new());
    assert_eq!(data["contact"]["name"], "c42");
    assert_eq!(data["company"], json!({ "id": "42", "name": "f42" }));
    assert_eq!(data["manager"]["name"], "m1000");
    assert_eq!(data["lead"], json!({ "id": 42, "title": "t42" }));
}

#[tokio::test]
async fn a_uuid_is_found_however_it_is_written() {
    let Some((database, client)) = crm("uuid").await else { return };
    let (small, capital) = ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11");
    client.batch_execute(&format!("insert into contact values ('{small}', 'Анна')")).await.unwrap();
    let source = source(&settings(&database.url()));
    let mut found = source.load(CONTACT, ids(&[capital])).await.unwrap();
    assert_eq!(found.pop().unwrap().id.as_str(), capital, "as it was asked for");
    assert_eq!(source.load(CONTACT, ids(&[capital, small])).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_no_phone_is_left_out_and_says_why() {
    let Some((database, client)) = crm("int4").await else { return };
    let rows = "(1, 'Анна', 'ask her mother', 'anna@example.com'), (2, 'Олег', '8 999 123-45-67', '')";
    client.batch_execute(&format!("insert into contact values {rows}")).await.unwrap();
    let context = Context::new(Arc::new(source(&settings(&database.url()))));
    let contact = |id: &str| RecordIds { contact_id: Some(id.into()), ..RecordIds::default() };
    let loaded = context.load(&[contact("1"), contact("2"), contact("3")]).await.unwrap();
    let anna = loaded.of(&contact("1"));
    assert_eq!(anna.address(Channel::Email).unwrap(), "anna@example.com");
    let said = [
        anna.address(Channel::Sms).unwrap_err(),
        loaded.of(&contact("2")).address(Channel::Email).unwrap_err(),
        loaded.of(&contact("3")).address(Channel::Email).unwrap_err(),
    ];
    insta::assert_snapshot!(said.map(|error| error.to_string()).join("\n"), @r"
    contact 1's phone is not usable: not a valid phone number: give it with its country code, like +7 999 123-45-67
    contact 2 has no email
    there is no contact 3
    ");
}

#[tokio::test]
async fn rows_that_are_not_one_per_id_are_unusable() {
    let Some((database, client)) = crm("int4").await else { return };
    client.batch_execute("insert into contact values (1, 'a'), (2, 'b'), (3, null)").await.unwrap();
    let queries = [
        "select id, name from contact where id = any($1) union all select 2, 'c' where 2 = any($1)",
        "select id, name from contact where $1::int4[] is not null",
        "select name from contact where id = any($1)",
        "select null::int4 as id, name from contact where id = any($1)",
        "select id, name::int4 as n from contact where id = any($1)",
        "select true as id, name from contact where id = any($1)",
    ];
    let mut said = Vec::new();
    for query in queries {
        said.push(unusable(&source(&with_query(&database, query)), &["2"]).await);
    }
    insta::assert_snapshot!(said.join("\n"), @r"
    the source of contact records answers nothing usable: its query gives two rows with id 2
    the source of contact records answers nothing usable: its query gives a row with id 1, which was not asked for
    the source of contact records answers nothing usable: its query gives no column `id`
    the source of contact records answers nothing usable: a row of its query has an id that is neither text nor number
    the source of contact records answers nothing usable: a value in it does not fit (SQLSTATE 22P02)
    the source of contact records answers nothing usable: a row of its query has an id that is neither text nor number
    ");
}

#[tokio::test]
async fn a_query_that_writes_is_refused() {
    let Some((database, client)) = crm("int4").await else { return };
    client
        .batch_execute(
            "insert into contact values (1, 'Анна');
             create sequence seen;
             create function touch(which int4) returns text language sql volatile
                 as $$ update contact set name = 'touched' where id = which returning name $$;
             create function open_up(which int4) returns text language plpgsql volatile as $$
                 begin set transaction read write; return touch(which); end $$",
        )
        .await
        .unwrap();
    let queries = [
        "select id, touch(id) from contact where id = any($1)",
        "select id, open_up(id) from contact where id = any($1)",
        "select id, nextval('seen') from contact where id = any($1)",
        "select id, set_config('transaction_read_only', 'off', false), touch(id) from contact where id = any($1)",
        "with gone as (delete from contact where id = any($1) returning *) select * from gone",
        "delete from contact where id = any($1) returning *",
        "select * from contact where id = any($1) for update",
    ];
    let mut said = Vec::new();
    for query in queries {
        said.push(unusable(&source(&with_query(&database, query)), &["1"]).await);
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    the source of contact records answers nothing usable: it writes, and only reading is allowed (cannot execute UPDATE in a read-only transaction)
    the source of contact records answers nothing usable: transaction read-write mode must be set before any query
    the source of contact records answers nothing usable: it writes, and only reading is allowed (cannot execute nextval() in a read-only transaction)
    the source of contact records answers nothing usable: transaction read-write mode must be set before any query
    the source of contact records answers nothing usable: WITH clause containing a data-modifying statement must be at the top level, at character 6
    the source of contact records answers nothing usable: syntax error at or near "from", at character 8
    the source of contact records answers nothing usable: it writes, and only reading is allowed (cannot execute SELECT FOR UPDATE in a read-only transaction)
    "#);
    assert_eq!(client.query_one("select name from contact", &[]).await.unwrap().get::<_, String>(0), "Анна");
}

#[tokio::test]
async fn the_time_limit_is_kept_here_and_on_the_server() {
    let Some((database, client)) = crm("int4").await else { return };
    client.batch_execute("insert into contact values (1, 'a'); insert into company values (1, 'b')").await.unwrap();
    // Much longer than the test waits: whoever keeps no limit fails it.
    let slow = "select id, pg_sleep(600)::text as slept from contact where id = any($1)";
    let settings = SqlSettings { timeout_ms: 1_000, pool_size: 1, ..with_query(&database, slow) };
    let source = source(&settings);
    let asked = source.load(CONTACT, ids(&["1"]));
    let said = tokio::time::timeout(LONG, asked).await.expect("it gives up").unwrap_err();
    assert!(matches!(said, SourceError::Unavailable { .. }), "{said:?}");
    // The one connection serves others again; on a loaded machine not within the short limit at once.
    let company = eventually(LONG, "another query is answered", async || {
        source.load(RecordKind::Company, ids(&["1"])).await.ok()
    });
    assert_eq!(company.await.len(), 1);
    eventually(LONG, "the server has given up, too", async || {
        let active = "select 1 from pg_stat_activity where datname = current_database() and state = 'active'
                      and backend_type = 'client backend' and pid <> pg_backend_pid()";
        client.query(active, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_down_is_unavailable_and_is_found_again() {
    let Some((database, client)) = crm("int4").await else { return };
    client.batch_execute("insert into contact values (1, 'a')").await.unwrap();
    let proxy = Proxy::start(database.server()).await;
    proxy.set_down(true);
    let source = source(&settings(&database.url_at(proxy.address)));
    for round in 0..2 {
        let said = source.load(CONTACT, ids(&["1"])).await.unwrap_err();
        assert!(matches!(said, SourceError::Unavailable { .. }), "round {round}: {said:?}");
        assert!(source.fields(CONTACT).await.is_err());
        assert!(source.check().await.server.is_err());
        proxy.set_down(false);
        let found = eventually(LONG, "it is found again", async || source.load(CONTACT, ids(&["1"])).await.ok());
        assert_eq!(found.await.len(), 1);
        proxy.set_down(true);
        // Its connections are cut by another task.
        eventually(LONG, "the line is cut", async || source.load(CONTACT, ids(&["1"])).await.err()).await;
    }
}

#[tokio::test]
async fn a_lost_caller_leaves_nothing_behind_for_the_next() {
    let Some((database, client)) = crm("int4").await else { return };
    client.batch_execute("insert into contact values (1, 'a'); insert into company values (1, 'b')").await.unwrap();
    let slow = "select id, pg_sleep(600)::text as slept from contact where id = any($1)";
    let settings = SqlSettings { pool_size: 1, ..with_query(&database, slow) };
    let source = source(&settings);
    let asked = source.load(CONTACT, ids(&["1"]));
    assert!(tokio::time::timeout(Duration::from_millis(300), asked).await.is_err(), "the caller is gone");
    assert_eq!(source.load(RecordKind::Company, ids(&["1"])).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_told_with_what_to_do() {
    let Some((database, client)) = crm("int4").await else { return };
    client
        .batch_execute("insert into contact values (1, 'a'); create table odd (id numeric, telegramChatId int8)")
        .await
        .unwrap();
    let mut said = Vec::new();
    for query in [
        "select id, phone from contact where id = any($1)",
        "selec id from contact where id = any($1)",
        "select id, fone from contact where id = any($1)",
        "select id from contact where (id = any($1)",
        "select id from contact",
        "select id from contact where id = $1",
        "select id from contact where id = any($1) and name = $2",
        "select id from odd where id = any($1)",
        "select id, telegramChatId from odd where id = any($1::int8[])",
        "select name from contact where id = any($1)",
        "select *, company_id as id from contact where id = any($1)",
        "select id from contact where $1::int4[] is not null or 1 / (select count(*) from odd) = 1",
        "insert into contact select unnest($1::int4[])",
    ] {
        let checked = source(&with_query(&database, query)).check().await;
        checked.server.unwrap();
        let (_, tried) = checked.queries.into_iter().next().unwrap();
        said.push(match tried {
            Ok(seen) => format!("{query}\n  {seen}"),
            Err(trouble) => format!("{query}\n  {}\n  hint: {}", trouble.seen, trouble.hint),
        });
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    select id, phone from contact where id = any($1)
      ids are integer; gives id, phone
    selec id from contact where id = any($1)
      syntax error at or near "from", at character 10
      hint: try the query in psql, as the user of records.sql.url
    select id, fone from contact where id = any($1)
      column "fone" does not exist, at character 12
      hint: try the query in psql, as the user of records.sql.url
    select id from contact where (id = any($1)
      syntax error at or near "r", at its end
      hint: try the query in psql, as the user of records.sql.url
    select id from contact
      its query has no $1, and would give the same rows whatever is asked for
      hint: take the ids as `where id = any($1)`
    select id from contact where id = $1
      its query takes one int4 and not many
      hint: take the ids as `where id = any($1)`
    select id from contact where id = any($1) and name = $2
      its query has 2 parameters
      hint: take the ids as `where id = any($1)`
    select id from odd where id = any($1)
      its query takes ids as numeric[], which none can be
      hint: say what they are: `any($1::text[])`, `any($1::int8[])` or `any($1::uuid[])`
    select id, telegramChatId from odd where id = any($1::int8[])
      its query gives a column `telegramchatid`, and `telegramChatId` is meant
      hint: PostgreSQL writes names small unless they are quoted: `as "telegramChatId"`
    select name from contact where id = any($1)
      its query gives no column `id`
      hint: name it so: `select client_no as id, …`
    select *, company_id as id from contact where id = any($1)
      its query gives two columns `id`
      hint: name one of them otherwise
    select id from contact where $1::int4[] is not null or 1 / (select count(*) from odd) = 1
      its query gives rows without being asked for any
      hint: take the ids as `where id = any($1)`
    insert into contact select unnest($1::int4[])
      syntax error at or near "into", at character 8
      hint: try the query in psql, as the user of records.sql.url
    "#);
}

#[tokio::test]
async fn a_user_who_may_not_read_is_told_so() {
    let Some((database, client)) = crm("int4").await else { return };
    // A role outlives the database, and has to be of this test only.
    let role = format!("{}_reader", database.name());
    client.batch_execute(&format!("create role {role} login")).await.unwrap();
    let url = database.url();
    let (scheme, rest) = url.split_once("://").unwrap();
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let checked = source(&settings(&format!("{scheme}://{role}@{server}"))).check().await;
    client.batch_execute(&format!("drop role {role}")).await.unwrap();
    let trouble = checked.queries.into_iter().next().unwrap().1.unwrap_err();
    insta::assert_snapshot!(format!("{}\nhint: {}", trouble.seen, trouble.hint), @r"
    permission denied for table contact
    hint: let the user of records.sql.url read it: GRANT SELECT ON …
    ");
}

#[tokio::test]
async fn what_cannot_be_asked_at_all_stops_the_start_and_shows_no_password() {
    let base = settings("postgres://u:topsecret@127.0.0.1:1/d");
    let mut said = Vec::new();
    for settings in [
        SqlSettings { url: "postgres://u:topsecret@127.0.0.1:port/d".into(), ..base.clone() },
        SqlSettings { contact: Some("select 1; drop table contact".into()), ..base.clone() },
        SqlSettings { company: Some(" -- later".into()), ..base.clone() },
    ] {
        said.push(chain(&SqlSource::new(&settings, None).err().unwrap()));
    }
    // Nobody listens there.
    said.push(chain(&SqlSource::new(&base, None).unwrap().load(CONTACT, ids(&["1"])).await.unwrap_err()));
    let said = said.join("\n");
    assert!(!said.contains("topsecret"), "{said}");
    insta::assert_snapshot!(said, @r"
    setting `records.sql.url`: records.sql.url is not a PostgreSQL URL: invalid connection string: invalid value for option `port`
    setting `records.sql.contact`: holds more than one statement
    setting `records.sql.company`: is empty
    the source of contact records is not available: Error occurred while creating a new object: error connecting to server: error connecting to server: Connection refused (os error 111)
    ");
}

#[tokio::test]
async fn a_changed_table_is_read_as_it_is_now() {
    let Some((database, client)) = crm("int4").await else { return };
    client.batch_execute("insert into contact values (1, 'a')").await.unwrap();
    let source = source(&with_query(&database, "select * from contact where id = any($1)"));
    assert!(source.load(CONTACT, ids(&["1"])).await.unwrap()[0].text("city").is_none());
    client.batch_execute("alter table contact add city text default 'Москва'").await.unwrap();
    client.batch_execute("alter table contact alter id type int8").await.unwrap();
    assert_eq!(source.load(CONTACT, ids(&["1"])).await.unwrap()[0].text("city"), Some("Москва"));
}

//! What every account promises, held against the simulator: above all, what an outcome says of the message has to
//! agree with what the simulator's record says it took.

mod bench;
mod tables;

use std::net::TcpListener;
use std::time::Instant;

use serde_json::json;
use vestnik::domain::{Content, EmailContent, Outcome};

use self::bench::{Adapter, Bench, IMPATIENCE, PATIENCE, message, summary, template};

/// Each promise becomes a test for each adapter.
macro_rules! promises {
    ($($(#[$doc:meta])* async fn $name:ident($adapter:ident) $body:block)*) => {
        $($(#[$doc])* async fn $name($adapter: Adapter) $body)*
        promises! { @tests whatsapp_account, Adapter::WhatsApp, $($name)* }
        promises! { @tests telegram_bot, Adapter::Telegram, $($name)* }
        promises! { @tests twilio_account, Adapter::Twilio, $($name)* }
        promises! { @tests gateway_account, Adapter::Gateway, $($name)* }
    };
    (@tests $module:ident, $adapter:expr, $($name:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name($adapter).await;
                }
            )*
        }
    };
}

promises! {
    async fn an_accepted_message_is_the_one_that_was_taken(adapter) {
        let bench = Bench::start(adapter).await;
        for text in ["Здравствуйте, Анна! <3 & \"ok\" \\ \u{1f600}\nline", "x", &"я".repeat(adapter.longest_text())] {
            let outcome = bench.send(Content::Text(text.into()), PATIENCE).await;
            let Outcome::Accepted { provider_message_id, note } = outcome else { panic!("{outcome:?}") };
            let taken = bench.simulator.taken().pop().unwrap();
            assert_eq!((taken.provider_message_id, taken.text.as_deref()), (provider_message_id, Some(text)));
            assert_eq!((taken.channel, note), (adapter.channel(), None));
        }
        assert_eq!(bench.simulator.taken_count(), 3);
    }

    async fn a_refused_connection_is_transient_and_not_handed_off(adapter) {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let provider = adapter.account(&format!("http://{closed}"), None);
        let outcome = provider.send(&message(adapter, Content::Text("x".into())), PATIENCE).await;
        assert_eq!(summary(&outcome), "transient, not handed off");
        assert_eq!(outcome.error().unwrap().code, "connect");
    }

    async fn a_time_out_after_the_request_was_written_is_ambiguous(adapter) {
        let bench = Bench::start(adapter).await;
        let started = Instant::now();
        assert_eq!(bench.send_meeting(json!({ "fault": "hang" }), IMPATIENCE).await, "ambiguous timeout");
        assert!(started.elapsed() < IMPATIENCE * 3, "the time limit was not kept");
    }

    async fn a_slow_answer_within_the_time_limit_is_waited_for(adapter) {
        let bench = Bench::start(adapter).await;
        assert_eq!(bench.send_meeting(json!({ "ok": true, "latencyMs": 700 }), PATIENCE).await, "accepted");
    }

    async fn the_settings_time_limit_holds_where_the_callers_is_longer(adapter) {
        let mut bench = Bench::start(adapter).await;
        bench.provider = adapter.account(&bench.simulator.url(), Some(IMPATIENCE));
        let started = Instant::now();
        assert_eq!(bench.send_meeting(json!({ "fault": "hang" }), PATIENCE).await, "ambiguous timeout");
        assert!(started.elapsed() < PATIENCE / 2);
    }

    async fn a_lost_connection_is_ambiguous(adapter) {
        let bench = Bench::start(adapter).await;
        for fault in ["reset_after_read", "close_after_read", "reset_before_read"] {
            for is_kept in [false, true] {
                bench.fresh_or_kept(is_kept).await;
                let said = bench.send_meeting(json!({ "fault": fault }), PATIENCE).await;
                // Not even a reset before anything was read can be told from one after.
                assert_eq!(said, "ambiguous connection_lost", "{fault}, kept: {is_kept}");
            }
        }
    }

    async fn an_unreadable_yes_is_ambiguous(adapter) {
        let bench = Bench::start(adapter).await;
        assert_eq!(bench.send_meeting(json!({ "fault": "rubbish_200" }), PATIENCE).await, "ambiguous 200");
        assert_eq!(bench.send_meeting(json!({ "fault": "endless_body" }), PATIENCE).await, "ambiguous answer_too_large");
        assert_eq!(bench.send_meeting(json!({ "fault": "slow_headers" }), IMPATIENCE).await, "ambiguous timeout");
    }

    async fn a_proxys_502_is_ambiguous_whether_or_not_it_was_taken(adapter) {
        let bench = Bench::start(adapter).await;
        for taken in [false, true] {
            let rule = json!({ "fault": "bad_gateway", "taken": taken });
            assert_eq!(bench.send_meeting(rule, PATIENCE).await, "ambiguous 502");
        }
    }

    async fn the_providers_own_500_is_transient_and_handed_off(adapter) {
        let bench = Bench::start(adapter).await;
        let said = bench.send_meeting(json!({ "fault": "server_error_json" }), PATIENCE).await;
        // A gateway says nothing with its 500 that shows it to be the gateway's own.
        assert_eq!(said, if adapter == Adapter::Gateway { "ambiguous 500" } else { "transient, handed off" });
    }

    async fn a_redirect_is_not_followed(adapter) {
        let bench = Bench::start(adapter).await;
        let requests = bench.simulator.figures(adapter.channel()).requests;
        // Of a 302 a server may mean "done, now look there".
        assert_eq!(bench.send_meeting(json!({ "fault": "redirect" }), PATIENCE).await, "ambiguous 302");
        assert_eq!(bench.simulator.figures(adapter.channel()).requests, requests + 1);
    }

    async fn nothing_is_ever_sent_twice_by_itself(adapter) {
        for fault in ["reset_before_read", "reset_after_read", "close_after_read", "bad_gateway", "server_error_json"] {
            let bench = Bench::start(adapter).await;
            bench.fresh_or_kept(true).await;
            let requests = bench.simulator.figures(adapter.channel()).requests;
            bench.send_meeting(json!({ "fault": fault }), PATIENCE).await;
            assert_eq!(bench.simulator.figures(adapter.channel()).requests, requests + 1, "{fault}");
        }
    }

    async fn a_wrong_token_stops_the_account_and_takes_nothing(adapter) {
        let bench = Bench::start(adapter).await;
        bench.play(adapter.with_another_secret());
        let outcome = bench.send(Content::Text("x".into()), PATIENCE).await;
        assert_eq!(summary(&outcome), "channel_down auth");
        let said = bench.provider.check(PATIENCE).await.unwrap_err();
        assert!(!said.contains(adapter.secret()) && !format!("{outcome:?}").contains(adapter.secret()), "{said}");
    }

    async fn what_is_not_the_provider_stops_the_account(adapter) {
        // The simulator knows nothing of this path, like a web server that somebody took for the provider.
        let bench = Bench::start(adapter).await;
        let provider = adapter.account(&format!("{}/nowhere", bench.simulator.url()), None);
        let outcome = provider.send(&message(adapter, Content::Text("x".into())), PATIENCE).await;
        assert_eq!(summary(&outcome), "channel_down config");
    }

    async fn no_secret_is_in_any_outcome_or_debug(adapter) {
        let bench = Bench::start(adapter).await;
        for rule in [json!({ "fault": "hang" }), json!({ "fault": "bad_gateway" }), json!({ "fault": "reset_after_read" })] {
            bench.play(json!({ adapter.path(): { "next": [rule] } }));
            let outcome = bench.send(Content::Text("x".into()), IMPATIENCE).await;
            assert!(!format!("{outcome:?}").contains(adapter.secret()), "{outcome:?}");
        }
        let nowhere = adapter.account("http://no-such-host.invalid", None);
        let outcome = nowhere.send(&message(adapter, Content::Text("x".into())), PATIENCE).await;
        assert_eq!(summary(&outcome), "transient, not handed off");
        let check = nowhere.check(PATIENCE).await.unwrap_err();
        assert!(!format!("{outcome:?} {check}").contains(adapter.secret()), "{outcome:?} {check}");
    }

    async fn a_check_names_the_account_and_sends_nothing(adapter) {
        let bench = Bench::start(adapter).await;
        let said = bench.provider.check(PATIENCE).await.unwrap();
        let expected = match adapter {
            Adapter::WhatsApp => "Vestnik Simulator, quality GREEN",
            Adapter::Telegram => "id 1000001",
            Adapter::Twilio => "Vestnik Simulator, account type",
            Adapter::Gateway => "answered 200: {\"balance\":",
        };
        assert!(said.contains(expected), "{said}");
        assert_eq!(bench.simulator.taken_count(), 0);
    }

    async fn content_of_another_channel_is_refused_and_not_sent(adapter) {
        let bench = Bench::start(adapter).await;
        let foreign = match adapter {
            Adapter::WhatsApp => Content::TelegramHtml("<b>x</b>".into()),
            Adapter::Telegram | Adapter::Twilio | Adapter::Gateway => Content::WhatsAppTemplate(template()),
        };
        let email = Content::Email(EmailContent { subject: "x".into(), ..EmailContent::default() });
        for foreign in [foreign, email] {
            assert_eq!(summary(&bench.send(foreign, PATIENCE).await), "permanent content");
        }
        let mut stray = message(adapter, Content::Text("x".into()));
        stray.recipient = message(adapter.other(), Content::Text(String::new())).recipient;
        assert_eq!(summary(&bench.provider.send(&stray, PATIENCE).await), "permanent recipient");
        assert_eq!(bench.simulator.figures(adapter.channel()).requests, 0);
    }

    async fn many_at_once_are_each_taken_once(adapter) {
        let bench = Bench::start(adapter).await;
        let sends = (0..100).map(|n| bench.send(Content::Text(format!("n {n}")), PATIENCE));
        let outcomes = futures::future::join_all(sends).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
        let mut texts: Vec<_> = bench.simulator.taken().into_iter().map(|taken| taken.text.unwrap()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 100);
    }
}

#[tokio::test]
async fn a_whatsapp_template_arrives_with_its_parameters_and_our_id() {
    let bench = Bench::start(Adapter::WhatsApp).await;
    bench.play(json!({ "whatsapp": { "templates": {
        "order_ready": { "languages": ["ru"], "headerParameters": 1, "bodyParameters": 2, "messageStatus": "held_for_quality_assessment" },
    } } }));
    let outcome = bench.send(Content::WhatsAppTemplate(template()), PATIENCE).await;
    let Outcome::Accepted { note, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(note.as_deref(), Some("held_for_quality_assessment"));
    let taken = bench.simulator.taken().pop().unwrap();
    assert_eq!(taken.our_id, Some(message(Adapter::WhatsApp, Content::Text(String::new())).id.to_string()));
    let components = &taken.template.unwrap()["components"];
    assert_eq!(components[1]["parameters"][1]["text"], "42");
    assert_eq!(components[2]["index"], "0");
}

#[tokio::test]
async fn a_whatsapp_number_that_does_not_exist_stops_the_account() {
    let bench = Bench::start(Adapter::WhatsApp).await;
    bench.play(json!({ "whatsapp": { "phoneNumbers": [{ "id": "5" }] } }));
    assert_eq!(summary(&bench.send(Content::Text("x".into()), PATIENCE).await), "channel_down config");
    assert!(bench.provider.check(PATIENCE).await.is_err());
}

#[tokio::test]
async fn telegram_html_arrives_as_markup() {
    let bench = Bench::start(Adapter::Telegram).await;
    let html = "<b>Сделка</b> &lt;42&gt; &amp; <a href=\"https://example.com/?a=1&amp;b=2\">ссылка</a>";
    assert_eq!(summary(&bench.send(Content::TelegramHtml(html.into()), PATIENCE).await), "accepted");
    assert_eq!(bench.simulator.taken().pop().unwrap().text.as_deref(), Some("Сделка <42> & ссылка"));
    let broken = bench.send(Content::TelegramHtml("<b>open".into()), PATIENCE).await;
    assert_eq!(summary(&broken), "permanent content");
}

#[tokio::test]
async fn an_sms_at_twilio_brings_our_id_back_with_its_receipts() {
    let bench = Bench::start(Adapter::Twilio).await;
    assert_eq!(summary(&bench.send(Content::Text("я".repeat(71)), PATIENCE).await), "accepted");
    let taken = bench.simulator.taken().pop().unwrap();
    let sms = taken.sms.unwrap();
    let id = message(Adapter::Twilio, Content::Text(String::new())).id;
    let callback = format!("https://notify.example.com/v1/callbacks/sms.main?id={id}");
    assert_eq!((sms.status_callback, sms.from, sms.segments), (Some(callback), Some("+15005550006".into()), 2));
}

#[tokio::test]
async fn a_suspended_twilio_account_is_said_to_be_so() {
    let bench = Bench::start(Adapter::Twilio).await;
    bench.play(json!({ "sms": { "accounts": [{ "status": "suspended" }] } }));
    assert!(bench.provider.check(PATIENCE).await.unwrap_err().contains("suspended"));
    assert_eq!(summary(&bench.send(Content::Text("x".into()), PATIENCE).await), "channel_down suspended");
}

#[tokio::test]
async fn an_api_key_of_twilios_sends_and_is_checked() {
    let key = "SK00000000000000000000000000000001";
    let bench = Bench::start(Adapter::Twilio).await;
    bench.play(json!({ "sms": { "accounts": [{ "apiKeys": { key: "sim-key-secret" } }] } }));
    let change = json!({ "auth_token": null, "api_key": key, "api_key_secret": "sim-key-secret" });
    let provider = bench::twilio(&bench.simulator.url(), PATIENCE, change);
    let outcome = provider.send(&message(Adapter::Twilio, Content::Text("x".into())), PATIENCE).await;
    assert_eq!(summary(&outcome), "accepted");
    assert_eq!(
        provider.check(PATIENCE).await.unwrap(),
        "the API key may use the account's messages, sends from +15005550006"
    );
}

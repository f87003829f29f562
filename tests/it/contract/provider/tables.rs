//! What each provider's codes have to become; written from the facts, not from the adapters' tables.

use serde_json::json;
use vestnik::channels::outcomes::Verdict;
use vestnik::channels::{twilio_codes, whatsapp_codes};

use super::bench::{Adapter, Bench, PATIENCE};

#[tokio::test]
async fn every_whatsapp_code_has_the_outcome_of_its_row() {
    let rows: &[(&str, &[u32])] = &[
        ("channel_down auth", &[0, 3, 10, 190, 200, 131005]),
        ("channel_down suspended", &[368, 131031]),
        ("channel_down billing", &[131042]),
        ("channel_down config", &[33, 131037, 131045, 133010]),
        ("throttled account 60", &[4, 80007]),
        ("throttled account 86400", &[131064]),
        ("throttled sender 1", &[130429]),
        ("throttled sender 60", &[131057]),
        ("throttled sender 3600", &[131048]),
        ("throttled recipient 1", &[131056]),
        ("transient, handed off", &[1, 2, 131000, 131016, 131052, 131053, 135000]),
        ("permanent recipient", &[131021, 131026, 131030, 131062, 137000]),
        ("permanent opted_out", &[131050]),
        // 131063 concerns marketing templates only, which an account that is down could not say.
        ("permanent policy", &[130472, 130497, 131049, 131063]),
        ("permanent content", &[100, 131008, 131009, 131047, 131051]),
        ("permanent template", &[132000, 132001, 132005, 132007, 132008, 132012, 132015, 132016, 132018]),
    ];
    let bench = Bench::start(Adapter::WhatsApp).await;
    for (expected, codes) in rows {
        for code in *codes {
            assert_eq!(bench.send_meeting(json!({ "error": code }), PATIENCE).await, *expected, "{code}");
        }
    }
    let code = bench.send_to_meet(json!({ "error": 131026 })).await.error().unwrap().clone();
    assert_eq!(code.code, "131026");
    assert!(code.detail.contains("Message undeliverable"), "{}", code.detail);
    let listed: usize = rows.iter().map(|(_, codes)| codes.len()).sum();
    // One row is a range of a hundred codes; 2500 cannot be asked of the simulator by a scenario.
    assert_eq!(listed, whatsapp_codes::CODES.len() - 1, "a row of the table is not tried here");
}

#[tokio::test]
async fn every_telegram_refusal_has_the_outcome_of_its_row() {
    let bench = Bench::start(Adapter::Telegram).await;
    for (word, expected) in [
        ("retry_after:7", "throttled recipient 7"),
        ("retry_after:600", "throttled recipient 600"),
        ("unauthorized", "channel_down auth"),
        ("not_found", "channel_down config"),
        ("conflict", "channel_down config"),
        ("blocked", "permanent opted_out"),
        ("deactivated", "permanent recipient"),
        ("cant_initiate", "permanent recipient"),
        ("kicked", "permanent recipient"),
        ("not_member", "permanent recipient"),
        ("group_deleted", "permanent recipient"),
        ("chat_not_found", "permanent recipient"),
        ("chat_id_empty", "permanent recipient"),
        ("peer_id_invalid", "permanent recipient"),
        ("migrated:-1001234567890", "permanent recipient"),
        ("cant_parse_entities", "permanent content"),
        ("message_too_long", "permanent content"),
        ("message_empty", "permanent content"),
        ("no_rights", "permanent policy"),
        ("internal", "transient, handed off"),
    ] {
        assert_eq!(bench.send_meeting(json!({ "error": word }), PATIENCE).await, expected, "{word}");
    }
    // Whoever knows the person finds the group's new id in the answer that is kept.
    let migrated = bench.send_to_meet(json!({ "error": "migrated:-1001234567890" })).await;
    assert!(migrated.error().unwrap().detail.contains("-1001234567890"));
}

#[tokio::test]
async fn every_twilio_code_has_the_outcome_of_its_row() {
    let rows: &[(&str, &[u32])] = &[
        ("channel_down auth", &[20003]),
        ("channel_down suspended", &[10001, 20005, 30002]),
        (
            "channel_down config",
            &[20404, 21212, 21603, 21606, 21609, 21659, 21660, 21661, 21701, 21703, 21704, 21705, 21910, 30034],
        ),
        ("throttled account 1", &[20429, 63017]),
        ("throttled account 3600", &[60728]),
        ("throttled account 86400", &[63038]),
        ("throttled sender 1", &[63018]),
        ("throttled sender 60", &[30001, 30022]),
        ("throttled sender 300", &[21611]),
        ("throttled recipient 30", &[14107]),
        ("transient, handed off", &[20500, 21730]),
        ("permanent recipient", &[21211, 21214, 21266, 21608, 21612, 21614, 21635, 63024]),
        ("permanent opted_out", &[21610]),
        ("permanent policy", &[21408, 30450]),
        ("permanent content", &[21602, 21604, 21617, 63016]),
    ];
    let bench = Bench::start(Adapter::Twilio).await;
    for (expected, codes) in rows {
        for code in *codes {
            assert_eq!(bench.send_meeting(json!({ "error": code }), PATIENCE).await, *expected, "{code}");
        }
    }
    // These come with status callbacks, never as an answer.
    let later: &[(&str, &[i64])] = &[
        ("channel_down config", &[30032]),
        ("transient", &[30003, 30008]),
        ("permanent recipient", &[30005, 30006]),
        ("permanent policy", &[30004, 30007]),
        ("permanent content", &[30036]),
    ];
    for (expected, codes) in later {
        for code in *codes {
            assert_eq!(twilio_codes::row(*code).unwrap().verdict, expected.parse::<Verdict>().unwrap(), "{code}");
        }
    }
    let listed: usize =
        rows.iter().map(|(_, codes)| codes.len()).chain(later.iter().map(|(_, codes)| codes.len())).sum();
    assert_eq!(listed, twilio_codes::CODES.len(), "a row of the table is not tried here");
}

/// The simulator turns Twilio's numbers into the nearest of SMSC's.
#[tokio::test]
async fn the_codes_of_the_example_gateway_have_the_outcomes_of_its_settings() {
    let bench = Bench::start(Adapter::Gateway).await;
    for (number, code, expected) in [
        (21617, "1", "permanent content"),
        (20003, "2", "channel_down auth"),
        (20005, "3", "channel_down billing"),
        (30450, "6", "permanent policy"),
        (21211, "7", "permanent recipient"),
        (21610, "8", "permanent recipient"),
        (20429, "9", "throttled account 60"),
    ] {
        assert_eq!(bench.send_meeting(json!({ "error": number }), PATIENCE).await, expected, "{number}");
        assert_eq!(bench.send_to_meet(json!({ "error": number })).await.error().unwrap().code, code);
    }
}

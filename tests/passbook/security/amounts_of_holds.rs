//! The amount of a hold is shown to those who may read its account, and by its own requests.

use crate::harness::{
    credentials::{Callers, allow, identity, identity_with},
    *,
};

on_both_databases! {
    the_error_of_a_request_for_a_hold_has_no_amount_that_depends_on_the_hold,
}

async fn the_error_of_a_request_for_a_hold_has_no_amount_that_depends_on_the_hold(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let own = identity_with("own", &[allow(&["safe", "owing"], &["debit"], "\"unlimited\"")]);
    let tokens = [("own", "own-token"), ("all", "all-token")];
    let callers = Callers::new(&tokens, &(own + &identity("all", &["*"], &[""])));
    let server = callers.serve(&database, &[]).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    open_funded(&all, "safe", "100").await;
    let hold_id = place(&all, hold("safe", "77.77")).await.hold_id;

    // 922.23 more than the hold, of which 22.23 are there.
    let capture = CaptureHoldRequest { allow_excess: true, ..capture_part(&hold_id, "1000") };
    let update = hold_update(&hold_id, "1000");
    for (client, required) in [(&own, ""), (&all, "922.23")] {
        let captured = client.capture_hold(capture.clone()).await;
        let updated = client.update_hold(update.clone()).await;
        for status in [
            must_fail(captured, Reason::InsufficientFunds),
            must_fail(updated, Reason::InsufficientFunds),
        ] {
            assert_eq!(metadata(&status, "required"), required, "{status:?}");
            assert_eq!(status.message().contains("922.23"), !required.is_empty(), "{status:?}");
        }
    }

    // What is held goes beyond the limit of an amount.
    open_unlimited(&all, "owing").await;
    place(&all, hold("owing", &"9".repeat(26))).await;
    let hold_id = place(&all, hold("owing", "0.99")).await.hold_id;
    let update = hold_update(&hold_id, "1000");
    for (client, amount) in [(&own, ""), (&all, "999.01")] {
        let answer = client.update_hold(update.clone()).await;
        let status = must_fail(answer, Reason::BalanceOutOfRange);
        assert_eq!(metadata(&status, "amount"), amount, "{status:?}");
    }
}

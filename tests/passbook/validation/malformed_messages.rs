//! Bytes that are no message of the contract.

use crate::harness::{malformed::Fixture, raw_codec, *};

on_both_databases! {
    invalid_utf_8_and_oversized_messages_do_no_harm,
}

async fn invalid_utf_8_and_oversized_messages_do_no_harm(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = fixture.server.client();
    let huge = DepositRequest { description: "x".repeat(5 << 20), ..deposit("a", "1") };

    let status = client.deposit(huge).await.expect_err("five megabytes are too much");
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    let status = send_bytes(&fixture.server, &[0x0a, 2, 0xff, 0xfe]).await;
    assert_reason(&status, Reason::InvalidMessage);
    let status = send_bytes(&fixture.server, &[0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f]).await;
    assert_reason(&status, Reason::InvalidMessage);
    let log = fixture.server.log();
    assert!(!log.contains("ERROR"), "it is not the server's fault: {log}");

    fixture.assert_nothing_changed().await;
}

/// Sends these bytes as the message of a Deposit.
async fn send_bytes(server: &Server, bytes: &[u8]) -> Status {
    let answer = raw_codec::call(server.channel(), "Deposit", bytes.to_vec()).await;
    answer.expect_err("it is invalid")
}

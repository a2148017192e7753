//! Bytes that are no message of the contract.

use crate::harness::{malformed::Fixture, *};

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
    let mut grpc = tonic::client::Grpc::new(server.channel());
    grpc.ready().await.expect("a connection");
    let path = "/passbook.v1.AccountService/Deposit".parse().expect("a path");
    let message = tonic::Request::new(bytes.to_vec());
    let answer = grpc.unary(message, path, raw_codec::RawCodec).await;
    answer.map(|_: tonic::Response<Vec<u8>>| ()).expect_err("it is invalid")
}

mod raw_codec {
    use prost::bytes::{Buf, BufMut};
    use tonic::{
        Status,
        codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    };

    /// Bytes as they are.
    #[derive(Default)]
    pub struct RawCodec;

    impl Codec for RawCodec {
        type Encode = Vec<u8>;
        type Decode = Vec<u8>;
        type Encoder = Self;
        type Decoder = Self;

        fn encoder(&mut self) -> Self {
            Self
        }

        fn decoder(&mut self) -> Self {
            Self
        }
    }

    impl Encoder for RawCodec {
        type Item = Vec<u8>;
        type Error = Status;

        fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
            buffer.put_slice(&item);
            Ok(())
        }
    }

    impl Decoder for RawCodec {
        type Item = Vec<u8>;
        type Error = Status;

        fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
            Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
        }
    }
}

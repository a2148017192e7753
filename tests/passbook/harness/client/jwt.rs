//! An issuer of JSON Web Tokens: its keys, the tokens that it signs, and a server of its key set.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::{self, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::harness::credentials::whole_policy;

pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "passbook";
/// A key for these tests only: ring signs with RSA, and cannot generate its keys.
const RSA_KEY: &[u8] = include_bytes!("rsa_key.der");

/// A key of the issuer.
pub struct SigningKey {
    pub id: String,
    pair: Pair,
}

enum Pair {
    Rsa(rsa::KeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl SigningKey {
    pub fn rsa(id: &str) -> Self {
        let pair = rsa::KeyPair::from_pkcs8(RSA_KEY).expect("a key");
        Self { id: id.to_owned(), pair: Pair::Rsa(pair) }
    }

    pub fn ec(id: &str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        Self { id: id.to_owned(), pair: Pair::Ec(pair.expect("a key")) }
    }

    pub fn ed(id: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
        Self { id: id.to_owned(), pair: Pair::Ed(pair) }
    }

    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
            Pair::Ed(_) => "EdDSA",
        }
    }

    /// The bytes of the public key, as an attacker knows them.
    pub fn public(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ec(pair) => pair.public_key().as_ref(),
            Pair::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    /// The public key as JSON.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public_key().into();
                json!({"kty": "RSA", "n": base64(n), "e": base64(e)})
            }
            Pair::Ec(_) => {
                // The byte before the coordinates says that the point is not compressed.
                let (x, y) = self.public()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)})
            }
            Pair::Ed(_) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64(self.public())}),
        };
        jwk["kid"] = self.id.clone().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": self.algorithm(), "kid": self.id, "typ": "JWT"}), claims)
    }

    /// A token with this header, whatever it says.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
                    .expect("signed");
                signature
            }
            Pair::Ec(pair) => {
                pair.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec()
            }
            Pair::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", base64(signature))
    }
}

/// Claims that are valid for ten minutes.
pub fn claims_of(subject: &str) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": seconds_from_now(600)})
}

/// The same claims with others in addition or instead. Null takes one away.
pub fn with(mut claims: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("no object: {changes}") };
    for (claim, value) in changes {
        claims[claim] = value;
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

/// A time as JWTs have it.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("a time") + seconds
}

/// What is signed: header and claims.
pub fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string()), base64(claims.to_string()))
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The text of a key set.
pub fn key_set(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// The files of a server that accepts JWTs.
pub struct Files(TempDir);

impl Files {
    pub fn new(policy: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        files.set_policy(policy);
        files
    }

    pub fn set_policy(&self, entries: &str) {
        self.write("policy.toml", &whole_policy(entries));
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a plain path").to_owned()
    }

    /// The settings without those of the keys.
    pub fn settings(&self) -> Vec<String> {
        let policy = self.0.path().join("policy.toml");
        let policy = policy.to_str().expect("a plain path");
        ["--policy-file", policy, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE]
            .map(str::to_owned)
            .to_vec()
    }
}

/// Serves a key set on 127.0.0.1.
pub struct JwksServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

struct State {
    /// The whole response.
    response: String,
    requests: usize,
}

impl JwksServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { response: String::new(), requests: 0 }));
        let serving = tokio::spawn(serve(listener, state.clone()));
        let server = Self { address, state, serving };
        server.respond("503 Service Unavailable", "");
        server
    }

    /// Responds with this key set from now on.
    pub fn publish(&self, keys: &str) {
        self.respond("200 OK", keys);
    }

    /// Responds with this status line, which may have headers, and this body from now on.
    pub fn respond(&self, status: &str, body: &str) {
        let length = body.len();
        self.state.lock().expect("the lock").response = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
    }

    /// How many requests it has received.
    pub fn requests(&self) -> usize {
        self.state.lock().expect("the lock").requests
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    /// Closes the port.
    pub async fn stop(self) {
        self.serving.abort();
        // The error says that it was aborted.
        let _ = self.serving.await;
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let response = {
            let mut state = state.lock().expect("the lock");
            state.requests += 1;
            state.response.clone()
        };
        tokio::spawn(async move {
            // The request is small: one read has all of it. A client that has gone is none.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(response.as_bytes()).await;
        });
    }
}

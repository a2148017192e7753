//! Reads the files of tokens (TOML) and of the policy.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize;

use crate::{
    auth::{
        credentials::Credentials,
        policy_file,
        tokens::{Token, Tokens},
    },
    domain::{
        ids::{Identity, IdentityKind},
        money::Currencies,
    },
    toml_text,
};

/// The most tokens. Each call compares its token with all of them.
const TOKENS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    #[serde(default)]
    token: Vec<TokenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    identity: String,
    sha256: String,
    expire_time: Option<toml::value::Datetime>,
}

/// The paths of both files.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    /// The policy.
    pub policy: PathBuf,
    /// The tokens. None: callers are known by their certificates only.
    pub tokens: Option<PathBuf>,
}

impl CredentialFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// A file cannot be read or is not valid. One line, with the name of the file.
    pub fn load(&self, currencies: &Currencies) -> Result<Credentials, String> {
        let policy = in_file(&self.policy, |text| policy_file::parse(text, currencies))?;
        let tokens = match &self.tokens {
            Some(tokens_file) => in_file(tokens_file, tokens)?,
            None => Tokens::default(),
        };
        Ok(Credentials { tokens, policy })
    }

    /// The texts of the files, to notice changes. None for a file that cannot be read.
    #[must_use]
    pub fn texts(&self) -> [Option<String>; 2] {
        [Some(&self.policy), self.tokens.as_ref()].map(|file| std::fs::read_to_string(file?).ok())
    }
}

fn in_file<T>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn tokens(text: &str) -> Result<Tokens, String> {
    let file: TokensFile = toml_text::parse(text)?;
    if file.token.len() > TOKENS_MAX {
        return Err(format!("has {} tokens; at most {TOKENS_MAX} are allowed", file.token.len()));
    }
    let tokens = file.token.into_iter().enumerate().map(|(index, entry)| {
        token(entry).map_err(|error| format!("token {}: {error}", index + 1))
    });
    tokens.collect::<Result<_, _>>().map(Tokens)
}

fn token(entry: TokenEntry) -> Result<Token, String> {
    let sha256 = hex_digits(&entry.sha256)
        .ok_or("sha256 must be 64 hexadecimal digits; `passbook token create` prints them")?;
    let expire_time = entry.expire_time.map(|it| it.to_string());
    let expire_time = expire_time.map(|text| {
        humantime::parse_rfc3339(&text)
            .map_err(|_| format!("expire_time {text} must be in UTC, like 2027-01-01T00:00:00Z"))
    });
    let expire_time: Option<SystemTime> = expire_time.transpose()?;
    let identity = Identity::new(IdentityKind::Token, &entry.identity)?;
    Ok(Token { identity, sha256, expire_time })
}

fn hex_digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_a_file_of_tokens_name_the_problem() {
        let hash = "ab".repeat(32);
        let entry = |rest: &str| format!("[[token]]\nidentity = \"a\"\n{rest}");
        let whole = format!("sha256 = \"{hash}\"\nexpire_time = 2027-01-01T00:00:00Z");
        assert_eq!(tokens(&entry(&whole)).unwrap().0[0].sha256, [0xab; 32]);
        let cases = [
            (entry(""), "missing field `sha256`"),
            (entry("sha256 = \"secret\""), "token 1: sha256 must be 64 hexadecimal digits"),
            (entry(&whole.replace("T00:00:00Z", "")), "must be in UTC"),
            (entry(&whole).replace("\"a\"", "\"jwt:a\""), "cannot be \"jwt:a\""),
        ];
        for (text, expected) in cases {
            let error = tokens(&text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
            assert!(!error.contains("secret\""), "{error}");
        }
    }
}

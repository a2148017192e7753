//! Reads the files of tokens and of the policy (TOML).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde::Deserialize;

use crate::{
    auth::{
        credentials::Credentials,
        policy::{AllowedMethods, Permission, Policy},
        tokens::{Token, Tokens},
    },
    domain::{
        authorization::{Grant, Rule},
        ids::{AccountId, Identity},
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    identity: Vec<PolicyEntry>,
    #[serde(default)]
    group: Vec<PolicyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyEntry {
    name: String,
    methods: Vec<String>,
    account_prefixes: Vec<String>,
    amount_max: Option<BTreeMap<String, String>>,
    /// The former name of a renamed identity. Empty for the identity that continues the requests from
    /// before authentication was switched on.
    recorded_as: Option<String>,
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
        let policy = in_file(&self.policy, |text| policy(text, currencies))?;
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
    let identity = Identity::parse(&entry.identity)?;
    if identity.is_of_jwt() {
        return Err(format!("identity {identity:?} can be proved by a JWT only"));
    }
    Ok(Token { identity, sha256, expire_time })
}

fn policy(text: &str, currencies: &Currencies) -> Result<Policy, String> {
    let file: PolicyFile = toml_text::parse(text)?;
    let mut policy = Policy::default();
    for entry in file.identity {
        let name = Identity::parse(&entry.name)?;
        let permission =
            permission(entry, currencies).map_err(|error| format!("identity {name:?}: {error}"))?;
        if policy.identities.insert(name.clone(), permission).is_some() {
            return Err(format!("identity {name:?} is listed twice"));
        }
    }
    for entry in file.group {
        let name = entry.name.clone();
        if name.is_empty() {
            return Err("a group has no name".to_owned());
        }
        if entry.recorded_as.is_some() {
            return Err(format!("group {name:?}: recorded_as is for identities"));
        }
        let permission =
            permission(entry, currencies).map_err(|error| format!("group {name:?}: {error}"))?;
        if policy.groups.insert(name.clone(), permission).is_some() {
            return Err(format!("group {name:?} is listed twice"));
        }
    }
    let mut names = BTreeSet::new();
    if let Some(name) = policy.recorded_names().find(|name| !names.insert((*name).clone())) {
        return Err(format!(
            "two identities are recorded as {name:?}: they would share their request_ids"
        ));
    }
    Ok(policy)
}

fn permission(entry: PolicyEntry, currencies: &Currencies) -> Result<Permission, String> {
    let methods =
        AllowedMethods::parse(&entry.methods).map_err(|error| format!("methods: {error}"))?;
    for prefix in &entry.account_prefixes {
        // A prefix of an account id is a valid account id itself, unless it is empty.
        if !prefix.is_empty() {
            AccountId::parse(prefix)
                .map_err(|error| format!("account_prefixes: {prefix:?} {error}"))?;
        }
    }
    let limit = |(code, text): (String, String)| {
        let invalid = |error: String| format!("amount_max: {code} {text:?} {error}");
        let currency = currencies.get(&code).map_err(|error| invalid(error.to_string()))?;
        let amount = currency.parse(&text).map_err(|error| invalid(error.to_string()))?;
        if !amount.is_positive() {
            return Err(invalid("must be above zero".to_owned()));
        }
        Ok((code, amount))
    };
    let limits = entry.amount_max.map(|limits| limits.into_iter().map(limit).collect());
    let amount_max = limits.transpose()?;
    let rule = Rule { account_prefixes: entry.account_prefixes, amount_max };
    let grant = Arc::new(Grant { rules: vec![rule] });
    let recorded_as = entry.recorded_as.map(|name| match name.as_str() {
        "" => Ok(Identity::anonymous()),
        name => Identity::parse(name).map_err(|error| format!("recorded_as: {error}")),
    });
    Ok(Permission { methods, grant, recorded_as: recorded_as.transpose()? })
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

    fn currencies() -> Currencies {
        Currencies::new(&[]).unwrap()
    }

    #[test]
    fn errors_in_a_policy_name_the_problem() {
        let entry = |rest: &str| format!("[[identity]]\nname = \"a\"\n{rest}");
        let whole = "methods = [\"read\"]\naccount_prefixes = [\"\"]\n";
        let in_group = |rest: &str| entry(&format!("{whole}{rest}")).replace("identity", "group");
        assert!(policy(&entry(whole), &currencies()).is_ok());
        assert!(policy(&(entry(whole) + &in_group("")), &currencies()).is_ok(), "no common names");
        let cases = [
            (entry("methods = [\"read\"]"), "missing field `account_prefixes`"),
            (entry("account_prefixes = []"), "missing field `methods`"),
            (entry(&format!("{whole}method = 1")), "unknown field `method`"),
            (entry("methods = [\"Pay\"]\naccount_prefixes = []"), "\"Pay\" is neither a method"),
            (entry("methods = []\naccount_prefixes = [\"a b\"]"), "\"a b\" has a character"),
            (entry(&format!("{whole}amount_max = {{ EUR = \"1.001\" }}")), "EUR \"1.001\""),
            (entry(&format!("{whole}amount_max = {{ EUR = \"-1\" }}")), "must be above zero"),
            (entry(&format!("{whole}amount_max = {{ ZZZ = \"1\" }}")), "ZZZ"),
            (format!("{0}\n{0}", entry(whole)), "is listed twice"),
            (entry(whole).replace("\"a\"", "\"a b\""), "must be 1-256 printable"),
            (entry(&format!("{whole}recorded_as = \"a b\"")), "recorded_as: identity \"a b\""),
            (
                format!(
                    "{}{}recorded_as = \"a\"",
                    entry(whole),
                    entry(whole).replace("name = \"a\"", "name = \"b\"")
                ),
                "two identities are recorded as \"a\"",
            ),
            ("identity = 3".to_owned(), "line 1"),
            (in_group("recorded_as = \"a\""), "group \"a\": recorded_as is for identities"),
            (
                in_group("methods = [\"Pay\"]").replace(whole, "account_prefixes = []\n"),
                "group \"a\": methods",
            ),
            (format!("{0}\n{0}", in_group("")), "group \"a\" is listed twice"),
            (in_group("").replace("\"a\"", "\"\""), "a group has no name"),
        ];
        for (text, expected) in cases {
            let error = policy(&text, &currencies()).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
    }

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
            (entry(&whole).replace("\"a\"", "\"jwt:a\""), "can be proved by a JWT only"),
        ];
        for (text, expected) in cases {
            let error = tokens(&text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
            assert!(!error.contains("secret\""), "{error}");
        }
    }
}

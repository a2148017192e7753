//! Reads the policy (TOML).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    auth::policy::{AllowedMethods, Permission, Policy},
    domain::{
        authorization::{AccountPattern, AmountMax, Effect, Grant, Right, Rule},
        ids::{AccountId, Identity, IdentityKind},
        money::Currencies,
    },
    toml_text,
};

/// The last line of a policy. Without it the file was cut off, and what denies or narrows may be
/// missing: a rule, or an entry that counts instead of the groups'.
const END: &str = "[end]";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    identity: Vec<IdentityEntry>,
    #[serde(default)]
    group: Vec<GroupEntry>,
    #[serde(rename = "end")]
    _end: Option<End>,
}

/// The table of [`END`], which is empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityEntry {
    name: String,
    known_by: Option<String>,
    methods: Vec<String>,
    #[serde(default)]
    rule: Vec<RuleEntry>,
    /// The former name of a renamed identity. Empty for the identity that continues the requests from
    /// before authentication was switched on.
    recorded_as: Option<String>,
    /// Fields of older versions, to say what is in their place.
    account_prefixes: Option<IgnoredAny>,
    amount_max: Option<IgnoredAny>,
}

/// A group that JWTs name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupEntry {
    name: String,
    methods: Vec<String>,
    #[serde(default)]
    rule: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    accounts: Vec<String>,
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    amount_max: Option<AmountMaxEntry>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "amount_max must be \"unlimited\" or amounts by currency")]
enum AmountMaxEntry {
    Word(String),
    ByCurrency(BTreeMap<String, String>),
}

/// Reads a policy.
pub fn parse(text: &str, currencies: &Currencies) -> Result<Policy, String> {
    let file: PolicyFile = toml_text::parse(text)?;
    if text.trim_end().lines().next_back() != Some(END) {
        return Err(format!("the last line must be {END}: without it the file may be cut off"));
    }
    let mut policy = Policy::default();
    for entry in file.identity {
        let name = entry.name.clone();
        let in_entry = |error| format!("identity {name:?}: {error}");
        let known_by = entry.known_by.clone();
        let permission = identity_permission(entry, currencies).map_err(in_entry)?;
        let identity = identity(&name, known_by.as_deref()).map_err(in_entry)?;
        if policy.identities.insert(identity.clone(), permission).is_some() {
            return Err(format!("identity {identity:?} is listed twice"));
        }
    }
    for GroupEntry { name, methods, rule } in file.group {
        if name.is_empty() {
            return Err("a group has no name".to_owned());
        }
        let permission = permission(&methods, rule, currencies)
            .map_err(|error| format!("group {name:?}: {error}"))?;
        if policy.groups.insert(name.clone(), permission).is_some() {
            return Err(format!("group {name:?} is listed twice"));
        }
    }
    if policy.identities.is_empty() && policy.groups.is_empty() {
        return Err("has neither an identity nor a group".to_owned());
    }
    let mut names = BTreeSet::new();
    if let Some(name) = policy.recorded_names().find(|name| !names.insert((*name).clone())) {
        return Err(format!(
            "two identities are recorded as {name:?}: they would share their request_ids"
        ));
    }
    Ok(policy)
}

fn identity_permission(
    entry: IdentityEntry,
    currencies: &Currencies,
) -> Result<Permission, String> {
    let former = [
        ("account_prefixes", entry.account_prefixes.is_some()),
        ("amount_max", entry.amount_max.is_some()),
    ];
    if let Some((field, _)) = former.iter().find(|(_, is_set)| *is_set) {
        return Err(format!(
            "{field} is no longer a field of an identity: write [[identity.rule]] with accounts, \
             allow and amount_max"
        ));
    }
    let recorded_as = entry.recorded_as.map(|name| match name.as_str() {
        "" => Ok(Identity::anonymous()),
        name => Identity::parse(name).map_err(|error| format!("recorded_as: {error}")),
    });
    let permission = permission(&entry.methods, entry.rule, currencies)?;
    Ok(Permission { recorded_as: recorded_as.transpose()?, ..permission })
}

fn permission(
    methods: &[String],
    rules: Vec<RuleEntry>,
    currencies: &Currencies,
) -> Result<Permission, String> {
    let methods = AllowedMethods::parse(methods).map_err(|error| format!("methods: {error}"))?;
    let rules = rules.into_iter().enumerate().map(|(index, entry)| {
        rule(entry, currencies).map_err(|error| format!("rule {}: {error}", index + 1))
    });
    let rules = rules.collect::<Result<_, _>>()?;
    Ok(Permission { methods, grant: Arc::new(Grant { rules }), recorded_as: None })
}

fn identity(name: &str, known_by: Option<&str>) -> Result<Identity, String> {
    let kinds = IdentityKind::ALL.map(|kind| format!("{:?}", kind.name())).join(", ");
    let known_by = known_by.ok_or_else(|| {
        format!("known_by is missing: how the server knows this identity, one of {kinds}")
    })?;
    let kind = IdentityKind::from_name(known_by)
        .ok_or_else(|| format!("known_by: {known_by:?} is not one of {kinds}"))?;
    Identity::new(kind, name)
}

fn rule(entry: RuleEntry, currencies: &Currencies) -> Result<Rule, String> {
    if entry.accounts.is_empty() {
        return Err("accounts is empty; \"*\" is all accounts".to_owned());
    }
    let accounts = entry.accounts.iter().map(|text| pattern(text));
    let accounts = accounts.collect::<Result<_, _>>()?;
    let (names, is_denial) = match (entry.allow, entry.deny) {
        (Some(names), None) => (names, false),
        (None, Some(names)) => (names, true),
        _ => return Err("must have either allow or deny".to_owned()),
    };
    let rights = names.iter().map(|name| right(name)).collect::<Result<Vec<_>, _>>()?;
    let has_amounts = !is_denial && rights.iter().any(|right| *right != Right::Read);
    let effect = match (has_amounts, entry.amount_max) {
        (true, Some(entry)) => Effect::Allow(amount_max(entry, currencies)?),
        (true, None) => {
            return Err("amount_max is missing: amounts by currency, or \"unlimited\"".to_owned());
        }
        (false, Some(_)) => {
            return Err("amount_max means nothing here: the rule allows no change".to_owned());
        }
        (false, None) if is_denial => Effect::Deny,
        (false, None) => Effect::Allow(AmountMax::ByCurrency(BTreeMap::new())),
    };
    Ok(Rule { accounts, rights, effect })
}

/// The accounts of `shop:1` (one account) or `shop:*` (a prefix).
fn pattern(text: &str) -> Result<AccountPattern, String> {
    let invalid = |error| format!("accounts: {text:?} {error}");
    match text.strip_suffix('*') {
        Some("") => Ok(AccountPattern::all()),
        // A prefix of an account id is a valid account id itself.
        Some(prefix) => {
            AccountId::parse(prefix).map_err(invalid)?;
            Ok(AccountPattern::Prefix(prefix.to_owned()))
        }
        None => AccountId::parse(text).map(AccountPattern::Exact).map_err(invalid),
    }
}

fn right(name: &str) -> Result<Right, String> {
    Right::from_name(name).ok_or_else(|| {
        let names = Right::ALL.map(|right| format!("{:?}", right.name())).join(", ");
        format!("{name:?} is not a right: {names}")
    })
}

fn amount_max(entry: AmountMaxEntry, currencies: &Currencies) -> Result<AmountMax, String> {
    let limits = match entry {
        AmountMaxEntry::Word(word) if word == "unlimited" => return Ok(AmountMax::Unlimited),
        AmountMaxEntry::Word(word) => {
            return Err(format!(
                "amount_max: {word:?} is neither \"unlimited\" nor amounts by currency"
            ));
        }
        AmountMaxEntry::ByCurrency(limits) => limits,
    };
    let limit = |(code, text): (String, String)| {
        let invalid = |error: String| format!("amount_max: {code} {text:?} {error}");
        let currency = currencies.get(&code).map_err(|error| invalid(error.to_string()))?;
        let amount = currency.parse(&text).map_err(|error| invalid(error.to_string()))?;
        if !amount.is_positive() {
            return Err(invalid("must be above zero".to_owned()));
        }
        Ok((code, amount))
    };
    Ok(AmountMax::ByCurrency(limits.into_iter().map(limit).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currencies() -> Currencies {
        Currencies::new(&[]).unwrap()
    }

    /// Reads a policy that was not cut off.
    fn parse_whole(text: &str) -> Result<Policy, String> {
        parse(&format!("{text}\n{END}\n"), &currencies())
    }

    const READ: &str = "[[identity.rule]]\naccounts = [\"*\"]\nallow = [\"read\"]\n";
    const DENY: &str = "[[identity.rule]]\naccounts = [\"a\"]\ndeny = [\"debit\"]\n";

    fn entry(rest: &str) -> String {
        format!("[[identity]]\nname = \"a\"\nknown_by = \"token\"\nmethods = [\"read\"]\n{rest}")
    }

    fn group(rest: &str) -> String {
        let entry = entry(rest).replace("known_by = \"token\"\n", "");
        entry.replace("[[identity", "[[group")
    }

    fn rule_with(rest: &str) -> String {
        entry(&format!("[[identity.rule]]\n{rest}"))
    }

    #[test]
    fn errors_in_a_policy_name_the_problem() {
        let whole = format!("{DENY}{READ}");
        assert!(parse_whole(&entry(&whole)).is_ok());
        assert!(parse_whole(&(entry(&whole) + &group(&whole))).is_ok(), "no common names");
        let other = |from: &str, to: &str| entry(READ).replace(from, to);
        let cases = [
            (entry(READ).replace("methods", "#"), "missing field `methods`"),
            (entry("method = 1"), "unknown field `method`"),
            (entry("account_prefixes = []"), "account_prefixes is no longer a field"),
            (entry("amount_max = { EUR = \"1\" }"), "amount_max is no longer a field"),
            (entry(READ).replace("known_by", "#"), "identity \"a\": known_by is missing"),
            (other("\"token\"", "\"password\""), "\"password\" is not one of \"token\""),
            (other("\"token\"", "\"spiffe\""), "\"a\" is not a SPIFFE ID"),
            (other("\"a\"", "\"dns:a\""), "cannot be \"dns:a\""),
            (other("\"read\"", "\"Pay\""), "\"Pay\" is neither a method"),
            (format!("{0}\n{0}", entry(READ)), "is listed twice"),
            (other("\"a\"", "\"a b\""), "must be 1-256 printable"),
            (entry("recorded_as = \"a b\""), "recorded_as: identity \"a b\""),
            (
                format!(
                    "{}recorded_as = \"a\"\n{}",
                    other("\"a\"", "\"b\"").replace(READ, ""),
                    entry("")
                ),
                "two identities are recorded as \"a\"",
            ),
            ("identity = 3".to_owned(), "line 1"),
            (group("recorded_as = \"a\""), "unknown field `recorded_as`"),
            (group("known_by = \"jwt\""), "unknown field `known_by`"),
            (group(READ).replace("\"read\"", "\"Pay\""), "group \"a\": methods: \"Pay\""),
            (group(READ).replace("\"*\"", "\"a b\""), "rule 1"),
            (format!("{0}\n{0}", group("")), "group \"a\" is listed twice"),
            (group("").replace("\"a\"", "\"\""), "a group has no name"),
            (String::new(), "has neither an identity nor a group"),
            ("[end]".to_owned(), "line 2: duplicate key"),
        ];
        for (text, expected) in cases {
            let error = parse_whole(&text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn errors_in_a_rule_name_the_problem() {
        let all = "accounts = [\"*\"]\n";
        let debit = "accounts = [\"*\"]\nallow = [\"debit\"]\n";
        let limit = |text: &str| rule_with(&format!("{debit}amount_max = {text}"));
        for valid in ["{ EUR = \"1\" }", "\"unlimited\"", "{}"] {
            assert!(parse_whole(&limit(valid)).is_ok(), "{valid}");
        }
        let cases = [
            (rule_with("allow = [\"read\"]"), "missing field `accounts`"),
            (rule_with("accounts = []\nallow = [\"read\"]"), "rule 1: accounts is empty"),
            (rule_with("accounts = [\"a b\"]\nallow = []"), "\"a b\" has a character"),
            (rule_with("accounts = [\"a**\"]\nallow = []"), "\"a**\" has a character"),
            (rule_with(all), "must have either allow or deny"),
            (rule_with(&format!("{all}allow = []\ndeny = []")), "must have either allow or deny"),
            (rule_with(&format!("{all}allow = [\"pay\"]")), "\"pay\" is not a right"),
            (rule_with(debit), "rule 1: amount_max is missing"),
            (
                rule_with(&format!("{all}deny = [\"debit\"]\namount_max = {{}}")),
                "means nothing here",
            ),
            (
                rule_with(&format!("{all}allow = [\"read\"]\namount_max = {{}}")),
                "means nothing here",
            ),
            (limit("\"none\""), "\"none\" is neither \"unlimited\" nor"),
            (limit("{ EUR = \"1.001\" }"), "EUR \"1.001\""),
            (limit("{ EUR = \"-1\" }"), "must be above zero"),
            (limit("{ ZZZ = \"1\" }"), "ZZZ"),
        ];
        for (text, expected) in cases {
            let error = parse_whole(&text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn the_examples_in_the_documents_are_valid() {
        let pages = [
            include_str!("../../docs/reference/policy.md"),
            include_str!("../../docs/security.md"),
            include_str!("../../docs/operations/install.md"),
        ];
        let blocks = pages.iter().flat_map(|page| page.split("```toml\n").skip(1));
        let examples = blocks.map(|block| block.split("```").next().unwrap_or_default());
        let is_policy = |it: &&str| it.contains("[[identity]]") || it.contains("[[group]]");
        let examples = examples.filter(is_policy).map(|it| it.trim_end().trim_end_matches(END));
        let examples: Vec<_> = examples.collect();
        assert!(examples.len() >= 8, "{examples:?}");
        for example in examples {
            let policy = parse_whole(example).unwrap_or_else(|error| panic!("{error}: {example}"));
            assert_eq!(policy.identities.len() + policy.groups.len(), 1, "{example}");
        }
    }

    #[test]
    fn a_policy_that_is_cut_off_anywhere_is_no_policy() {
        let rules = format!("{DENY}{READ}");
        let whole = entry(&rules) + &group(&rules);
        let whole = format!("# A comment.\n{}\n{END}", whole.replace("[\"*\"]", "[\n  \"*\",\n]"));
        for text in [whole.clone(), whole.replace('\n', "\r\n"), whole.clone() + "\n\n \t\n"] {
            assert!(parse(&text, &currencies()).is_ok(), "{text:?}");
        }
        for (end, _) in whole.char_indices() {
            assert!(parse(&whole[..end], &currencies()).is_err(), "{}", &whole[..end]);
        }
        for wrong in ["# [end]", "[end] # the end", "[end.end]", "end = {}", "[[end]]", "[END]"] {
            let text = whole.replace(END, wrong);
            assert!(parse(&text, &currencies()).is_err(), "{wrong}");
        }
        let more = format!("{whole}\n{}", entry("").replace("\"a\"", "\"b\""));
        let error = parse(&more, &currencies()).unwrap_err();
        assert!(error.starts_with("the last line must be [end]"), "{error}");
    }
}

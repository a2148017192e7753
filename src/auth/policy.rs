//! The policy: the permissions of each identity.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    domain::{
        authorization::{Effect, Grant},
        ids::Identity,
    },
    proto::methods::{ACCOUNT_SERVICE, ADMIN_SERVICE, METHODS, Method},
};

/// The permissions of identities and groups. A caller without any of them may do nothing.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The permissions of identities.
    pub identities: HashMap<Identity, Permission>,
    /// The permissions of groups, which JWTs name. They are for identities without an own entry.
    pub groups: HashMap<String, Permission>,
}

/// The permissions of one identity or group.
#[derive(Clone, Debug)]
pub struct Permission {
    /// The methods that may be called.
    pub methods: AllowedMethods,
    /// The rights on accounts.
    pub grant: Arc<Grant>,
    /// The name under which the identity's requests are recorded. None: the identity itself, as
    /// always for groups.
    pub recorded_as: Option<Identity>,
}

/// The methods that an identity or a group may call, as `SERVICE/METHOD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedMethods(HashSet<String>);

/// A name in the policy that is neither a method nor a set of methods.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is neither a method (such as Deposit or AdminService/GetWritePathStats) nor read, \
     write, admin or *"
)]
pub struct MethodsError(String);

impl Policy {
    /// The names under which requests are recorded, one for each identity.
    pub fn recorded_names(&self) -> impl Iterator<Item = &Identity> {
        let identities = self.identities.iter();
        identities.map(|(name, permission)| permission.recorded_as.as_ref().unwrap_or(name))
    }

    /// The name under which the requests of this identity are recorded.
    pub(super) fn recorded_as(&self, identity: &Identity) -> Identity {
        let renamed = self.identities.get(identity).and_then(|it| it.recorded_as.as_ref());
        renamed.unwrap_or(identity).clone()
    }

    /// The rights of the caller with this method; None if the caller may not call it. The entry of
    /// the identity decides alone. Without one, each of the groups that may call the method adds its
    /// rules. The denials of all groups count. An identity that is recorded under this name, too, has
    /// it alone.
    pub(super) fn grant(
        &self,
        identity: &Identity,
        groups: &[String],
        (service, method): (&str, &str),
    ) -> Option<Arc<Grant>> {
        let may_call = |entry: &Permission| entry.methods.contain(service, method);
        if let Some(own) = self.identities.get(identity) {
            return may_call(own).then(|| own.grant.clone());
        }
        let entries = self.entries(identity, groups);
        if !entries.iter().copied().any(may_call) {
            return None;
        }
        let rules = entries.into_iter().flat_map(|entry| {
            let may_call = may_call(entry);
            entry.grant.rules.iter().filter(move |rule| may_call || rule.effect == Effect::Deny)
        });
        Some(Arc::new(Grant { rules: rules.cloned().collect() }))
    }

    /// Whether the caller may call any method.
    pub(super) fn allows_any_method(&self, identity: &Identity, groups: &[String]) -> bool {
        self.entries(identity, groups).iter().any(|entry| !entry.methods.0.is_empty())
    }

    /// The identities with an entry that allows no method.
    pub(super) fn identities_without_methods(&self) -> impl Iterator<Item = &Identity> {
        let without = self.identities.iter().filter(|(_, entry)| entry.methods.0.is_empty());
        without.map(|(identity, _)| identity)
    }

    /// The entries that a caller has its rights from: its own alone, or those of its groups.
    fn entries(&self, identity: &Identity, groups: &[String]) -> Vec<&Permission> {
        if let Some(own) = self.identities.get(identity) {
            return vec![own];
        }
        // Another identity continues this name: the two would share their request ids.
        if self.recorded_names().any(|name| name == identity) {
            return Vec::new();
        }
        groups.iter().filter_map(|name| self.groups.get(name)).collect()
    }
}

impl AllowedMethods {
    /// Parses the names of methods (`Deposit` of AccountService, `AdminService/GetWritePathStats`) and
    /// of sets: `read` (AccountService's Get..., BatchGet..., List..., Sum..., Watch... and Verify...),
    /// `write` (the others of AccountService), `admin` (AdminService's), `*` (all).
    ///
    /// # Errors
    /// The first name that is neither a method nor a set of methods.
    pub fn parse(names: &[String]) -> Result<Self, MethodsError> {
        let mut chosen = HashSet::new();
        for name in names {
            let matching = ledger_methods().filter(|method| matches(name, method));
            let mut matching = matching.map(|it| format!("{}/{}", it.service, it.name)).peekable();
            if matching.peek().is_none() {
                return Err(MethodsError(name.clone()));
            }
            chosen.extend(matching);
        }
        Ok(Self(chosen))
    }

    /// Whether this method may be called.
    pub(super) fn contain(&self, service: &str, method: &str) -> bool {
        self.0.contains(&format!("{service}/{method}"))
    }
}

/// Whether a name in the policy means this method.
fn matches(word: &str, method: &Method) -> bool {
    let (service, name) = (method.service.as_str(), method.name.as_str());
    match word {
        "*" => true,
        "read" => service == ACCOUNT_SERVICE && method.is_read(),
        "write" => service == ACCOUNT_SERVICE && !method.is_read(),
        "admin" => service == ADMIN_SERVICE,
        _ => match word.split_once('/') {
            None => service == ACCOUNT_SERVICE && word == name,
            Some((named, word)) => service.ends_with(&format!(".{named}")) && word == name,
        },
    }
}

/// The methods that the policy covers: those of the contract.
pub fn ledger_methods() -> impl Iterator<Item = &'static Method> {
    METHODS.iter().filter(|it| [ACCOUNT_SERVICE, ADMIN_SERVICE].contains(&it.service.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &[&str]) -> Result<AllowedMethods, MethodsError> {
        AllowedMethods::parse(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_method_is_in_one_set() {
        let sets = ["read", "write", "admin"].map(|set| parse(&[set]).unwrap());
        let all: Vec<_> = ledger_methods().map(|it| (&it.service, &it.name)).collect();
        assert!(all.len() > 20, "{all:?}");
        for (service, method) in &all {
            let count = sets.iter().filter(|set| set.contain(service, method)).count();
            assert_eq!(count, 1, "{service}/{method}");
        }
        assert_eq!(parse(&["*"]).unwrap().0.len(), all.len());
    }

    #[test]
    fn what_changes_something_is_no_read() {
        let read = parse(&["read"]).unwrap();
        for method in ["Deposit", "CreateAccount", "FenceRequest", "FreezeAccount", "PlaceHold"] {
            assert!(!read.contain(ACCOUNT_SERVICE, method), "{method}");
        }
        for method in ["GetAccount", "GetRequestOutcome"] {
            assert!(read.contain(ACCOUNT_SERVICE, method), "{method}");
        }
        assert!(!read.contain(ADMIN_SERVICE, "GetWritePathStats"));
    }

    #[test]
    fn a_method_that_does_not_exist_is_a_mistake() {
        for wrong in ["Depozit", "deposit", "AdminService/Deposit", "", "/", "GetWritePathStats"] {
            assert_eq!(parse(&[wrong]), Err(MethodsError(wrong.to_owned())), "{wrong}");
        }
        let stats = parse(&["AdminService/GetWritePathStats"]).unwrap();
        assert!(stats.contain(ADMIN_SERVICE, "GetWritePathStats"));
    }
}
